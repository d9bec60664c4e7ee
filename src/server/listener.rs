//! Listening sockets and accepting. At `max_connections` another connection makes room for a new one; the worker with
//! the fewest connections serves it.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::OwnedSemaphorePermit;

use super::handoff::{Command, HandedOff, WorkerHandle, serve};
use super::worker::{Shared, Worker};
use crate::connection::seats::{Claim, Evicted};
use crate::memory::buffers::ClientSlot;
use crate::runtime::clock;
use crate::runtime::lifecycle::{Phase, PhaseWatcher};

/// Maximum number of connections that wait in the kernel for a worker.
const BACKLOG: i32 = 4096;

/// Pause after an accept that failed for lack of resources (mostly file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Maximum time for an evicted connection to make room.
const EVICTION: Duration = Duration::from_secs(1);
/// Interval of the search for an idle connection while there is none.
const ROOM_LOOK: Duration = Duration::from_millis(50);
/// Interval at which a client at its share is checked, while a new connection of it waits for another one to close.
const SHARE_LOOK: Duration = Duration::from_millis(10);
/// Maximum number of such new connections per listener of each worker. They wait for [`EVICTION`], and hold
/// descriptors.
const MAX_NEWCOMERS: usize = 2;

/// A listener, and whether it speaks TLS.
pub(crate) struct Bound {
    pub listener: TcpListener,
    pub tls: bool,
}

/// Binds `address`. `[::]` serves IPv4 too, and falls back to `0.0.0.0` without IPv6.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match attempt(address) {
        Err(error) if is_without_ipv6(&error) && address.is_ipv6() && address.ip().is_unspecified() => {
            attempt(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        result => result,
    }
}

/// Returns whether binding failed because the machine has no IPv6.
pub(crate) fn is_without_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
        || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn attempt(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

pub(super) struct Acceptor {
    pub worker: Rc<Worker>,
    pub index: usize,
    pub shared: Shared,
    pub handles: Vec<WorkerHandle>,
    pub phase_watcher: PhaseWatcher,
    /// Number of waiting new connections; see [`MAX_NEWCOMERS`].
    pub newcomers: Cell<usize>,
}

impl Acceptor {
    pub(super) async fn run(self: Rc<Self>, bound: Bound) {
        let listener = match tokio::net::TcpListener::from_std(bound.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "a worker cannot accept connections"),
        };
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.phase_watcher.reached(Phase::Draining) => return self.empty(&listener, bound.tls).await,
            };
            match accepted {
                Ok((tcp, address)) => self.dispatch(tcp, address, bound.tls).await,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves connections that the kernel completed before the listener closes, so that they are not reset.
    async fn empty(self: &Rc<Self>, listener: &tokio::net::TcpListener, tls: bool) {
        let mut accept = std::pin::pin!(async {
            while let Ok((tcp, address)) = listener.accept().await {
                self.dispatch(tcp, address, tls).await;
            }
        });
        std::future::poll_fn(|cx| {
            let _ = accept.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
    }

    /// Waits for a permit when all are taken: an idle connection, or a connection that waits for a client with far more
    /// connections, is closed for it. The accepted connection waits here meanwhile, and those behind it wait in the
    /// kernel.
    async fn make_room(&self, client: ClientSlot) -> Option<OwnedSemaphorePermit> {
        let mut acquire = std::pin::pin!(self.shared.connections.clone().acquire_owned());
        loop {
            let evicted = self.shared.seats.evict(client);
            if evicted == Some(Evicted::Waiting) && self.worker.refusals.may(clock::now()).is_some() {
                tracing::info!(
                    "max_connections is reached: a connection that was waiting for its client was \
                    closed"
                );
            }
            let timeout = if evicted.is_some() { EVICTION } else { ROOM_LOOK };
            if let Ok(permit) = tokio::time::timeout(timeout, acquire.as_mut()).await {
                return permit.ok();
            }
        }
    }

    async fn dispatch(self: &Rc<Self>, tcp: tokio::net::TcpStream, address: SocketAddr, tls: bool) {
        let (client, is_shared) = self.worker.client(address.ip());
        let Some(claim) = self.shared.seats.claim(client, is_shared) else {
            return self.replace_own(tcp, address, tls, client);
        };
        let permit = match self.shared.connections.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => match Box::pin(self.make_room(client)).await {
                Some(permit) => permit,
                None => return,
            },
        };
        self.hand_out(tcp, address, tls, permit, claim);
    }

    /// Handles a connection of a client at its share. It replaces an idle, waiting or ending connection of the same
    /// client, or is closed. Connections of other clients do not wait behind it.
    fn replace_own(
        self: &Rc<Self>,
        tcp: tokio::net::TcpStream,
        address: SocketAddr,
        tls: bool,
        client: ClientSlot,
    ) {
        if self.newcomers.get() >= MAX_NEWCOMERS {
            return self.refuse(&tcp, address);
        }
        let newcomer = Newcomer::new(self.clone());
        tokio::task::spawn_local(async move {
            let acceptor = &newcomer.0;
            let (seats, connections) = (&acceptor.shared.seats, &acceptor.shared.connections);
            let room = async {
                let mut evicted = seats.evict_own(client);
                let claim = loop {
                    if let Some(claim) = seats.claim(client, false) {
                        break claim;
                    }
                    tokio::time::sleep(SHARE_LOOK).await;
                    evicted = evicted.or_else(|| seats.evict_own(client));
                };
                Some((claim, connections.clone().acquire_owned().await.ok()?))
            };
            match tokio::time::timeout(EVICTION, room).await {
                Ok(Some((claim, permit))) => acceptor.hand_out(tcp, address, tls, permit, claim),
                _ => acceptor.refuse(&tcp, address),
            }
        });
    }

    /// Resets a connection, so that nothing of it is left in the kernel.
    fn refuse(&self, tcp: &tokio::net::TcpStream, address: SocketAddr) {
        let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        self.worker.refuse_beyond_share(&self.shared.seats, address.ip());
    }

    /// Hands a connection to the worker with the fewest connections.
    fn hand_out(
        &self,
        tcp: tokio::net::TcpStream,
        address: SocketAddr,
        tls: bool,
        permit: OwnedSemaphorePermit,
        claim: Claim,
    ) {
        let seat = self.shared.seats.take(claim);
        let load = |handle: &WorkerHandle| handle.connections.load(Ordering::Relaxed);
        let own = load(&self.handles[self.index]);
        let min = self.handles.iter().enumerate().min_by_key(|(_, handle)| load(handle));
        let (index, handle) = match min {
            Some((index, handle)) if load(handle) < own => (index, handle),
            _ => (self.index, &self.handles[self.index]),
        };
        handle.connections.fetch_add(1, Ordering::Relaxed);
        if index == self.index {
            return serve(
                &self.worker,
                tcp,
                address,
                tls,
                (permit, seat),
                &handle.connections,
                &self.shared.shared_state.metrics,
            );
        }
        let handed = tcp.into_std().map(|tcp| HandedOff { tcp, address, tls, permit, seat });
        let sent = handed.map(|handed| handle.commands.send(Command::Serve(handed)).is_ok());
        if !matches!(sent, Ok(true)) {
            handle.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A new connection of a client at its share, which waits for another connection of that client to close.
struct Newcomer(Rc<Acceptor>);

impl Newcomer {
    fn new(acceptor: Rc<Acceptor>) -> Newcomer {
        acceptor.newcomers.set(acceptor.newcomers.get() + 1);
        Newcomer(acceptor)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.0.newcomers.set(self.0.newcomers.get() - 1);
    }
}
