//! The operator's interface: metrics, health, reload, drain and quit. It runs on a thread of its own, so that it
//! responds while the workers are busy.

mod access;
mod addresses;
mod cache;
pub(crate) mod checks;
pub(crate) mod control;
mod disk;
mod elsewhere;
mod endpoints;
mod events;
mod explain;
pub(crate) mod finding;
mod fleet;
mod handler;
pub(crate) mod health;
mod limits;
pub(crate) mod monitor;
mod page;
mod performance;
mod report;
mod schemas;
mod tail;
pub(crate) mod webhook;

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::task::JoinHandle;

use crate::connection::stream::Stream;
use crate::http1::server::{self, Settings};
use crate::memory::buffers::ClientSlot;
use crate::message::inbound::Peer;
use crate::runtime::lifecycle::{Lifecycle, PhaseWatcher};

pub(crate) use access::Access;
use control::Control;

/// Idle timeout of a connection. Most admin clients send one request, and a scraper returns within this time.
const IDLE: Duration = Duration::from_secs(20);

/// Serves one of the two listeners for the life of the process.
pub(crate) async fn serve(listener: TcpListener, control: Control, access: Access) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin listener cannot accept connections"),
    };
    let lifecycle = Rc::new(Lifecycle::default());
    let mut open: VecDeque<Open> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((tcp, address)) => {
                open.retain(|open| !open.task.is_finished());
                if open.len() >= control.live.load().policy.server.admin_connections {
                    make_room(&mut open);
                }
                let served = connection(tcp, address, control.clone(), access, lifecycle.clone());
                let client = ClientSlot::new(address.ip(), 64);
                open.push_back(Open { client, task: tokio::task::spawn_local(served) });
                // Lets the new connection's task run before the next accept, so that a flood cannot evict a connection
                // that was never read.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One open connection to an admin or probe listener.
struct Open {
    client: ClientSlot,
    task: JoinHandle<()>,
}

/// Closes the oldest connection of the client with the most connections, so that silent connections cannot keep a
/// kubelet out.
fn make_room(open: &mut VecDeque<Open>) {
    let count = |of: &Open| open.iter().filter(|other| other.client == of.client).count();
    // The reversed order makes `max_by_key` pick the first, hence the oldest, among clients with equal counts.
    let goes = (0..open.len()).rev().max_by_key(|at| count(&open[*at]));
    if let Some(oldest) = goes.and_then(|at| open.remove(at)) {
        oldest.task.abort();
    }
}

async fn connection(
    tcp: tokio::net::TcpStream,
    address: SocketAddr,
    control: Control,
    access: Access,
    lifecycle: Rc<Lifecycle>,
) {
    let peer = Rc::new(Peer::new(address, false));
    let live = control.live.clone();
    let settings =
        move || Settings { idle_timeout: IDLE, header_timeout: IDLE, ..live.load().policy.server.settings };
    let service = handler::Handler { control, access };
    let phase_watcher = PhaseWatcher::new(lifecycle);
    server::serve(Stream::Tcp(tcp), BytesMut::new(), service, peer, &settings, phase_watcher, false, None)
        .await;
}
