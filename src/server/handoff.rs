//! The hand-off of an accepted connection to the worker that serves it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use super::connection;
use super::worker::Worker;
use crate::connection::seats::Seat;
use crate::metrics::Metrics;
use crate::runtime::lifecycle::Phase;

/// A connection on its way to its worker. Their permits bound the queue of these.
pub(super) struct HandedOff {
    pub tcp: std::net::TcpStream,
    pub address: SocketAddr,
    pub tls: bool,
    pub permit: OwnedSemaphorePermit,
    pub seat: Seat,
}

pub(super) enum Command {
    Serve(HandedOff),
    Advance(Phase),
    Stop,
}

#[derive(Clone)]
pub(super) struct WorkerHandle {
    pub commands: UnboundedSender<Command>,
    pub connections: Arc<AtomicUsize>,
}

/// Serves a connection that is already counted in `own`.
pub(super) fn serve(
    worker: &Rc<Worker>,
    tcp: tokio::net::TcpStream,
    address: SocketAddr,
    tls: bool,
    (permit, seat): (OwnedSemaphorePermit, Seat),
    own: &Arc<AtomicUsize>,
    metrics: &Arc<Metrics>,
) {
    let counted = Counted { own: own.clone(), metrics: metrics.clone(), _permit: permit };
    metrics.connections.inc();
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        let _counted = counted;
        connection::serve(worker, tcp, address, tls, seat).await;
    });
}

/// A counted connection, released when its task ends for any reason.
struct Counted {
    own: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.own.fetch_sub(1, Ordering::Relaxed);
        self.metrics.connections.dec();
    }
}
