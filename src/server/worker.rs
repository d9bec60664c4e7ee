//! The workers: one thread, one runtime, one pool of connections each. A connection is served by the
//! worker that has the fewest, and never leaves it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::Cache;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection;
use crate::connection::seats::{Claim, Evicted, Seat, Seats};
use crate::http1::server::Settings;
use crate::layer::record::{self, Sink};
use crate::layer::stack;
use crate::log::{AccessLog, Writer};
use crate::memory::buffers::{BufferMemory, ClientSlot};
use crate::metrics::{Metrics, RefusedLabels, WORKER};
use crate::runtime::clock;
use crate::runtime::lifecycle::{Lifecycle, Phase, PhaseWatcher};
use crate::runtime::log_throttle::LogThrottle;
use crate::state::live_policy::{LivePolicy, PolicyView, SharedState, Snapshot};
use crate::upstream::Pool;

/// How often idle connections to apps are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// After an accept that failed for want of something (file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection that is told to make room may take for it.
const EVICTION: Duration = Duration::from_secs(1);
/// How often an idle connection is looked for while there is none.
const ROOM_LOOK: Duration = Duration::from_millis(50);
/// How often a client that has its share is looked at, while a new connection of it waits for one of its others to close.
const SHARE_LOOK: Duration = Duration::from_millis(10);
/// Such new connections, for each listener of each worker. They wait for [`EVICTION`], and hold descriptors.
const MAX_NEWCOMERS: usize = 2;

/// Events about requests that failed, of one worker in a second; the rest are counted, and each is in the access log.
const FAILURES: u32 = 10;

#[derive(Clone)]
pub(crate) struct Shared {
    pub live: LivePolicy,
    pub shared_state: SharedState,
    /// One permit for each client connection.
    pub connections: Arc<Semaphore>,
    /// Whose they are, and which are idle.
    pub seats: Arc<Seats>,
}

/// A connection on its way to its worker. The line of these is bounded by their permits.
struct HandedOff {
    tcp: std::net::TcpStream,
    address: SocketAddr,
    tls: bool,
    permit: OwnedSemaphorePermit,
    seat: Seat,
}

enum Order {
    Serve(HandedOff),
    Advance(Phase),
    Stop,
}

#[derive(Clone)]
struct WorkerHandle {
    orders: UnboundedSender<Order>,
    connections: Arc<AtomicUsize>,
}

/// A listener, and whether it speaks TLS.
pub(crate) struct Bound {
    pub listener: TcpListener,
    pub tls: bool,
}

/// All workers of the process.
pub(crate) struct Workers {
    handles: Vec<WorkerHandle>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` of them, all accepting from all of `bound`.
    pub(crate) fn start(
        count: usize,
        bound: Vec<Bound>,
        shared: &Shared,
        log: &Writer,
    ) -> io::Result<Workers> {
        let (colleagues, receivers): (Vec<WorkerHandle>, Vec<UnboundedReceiver<Order>>) = (0..count)
            .map(|_| {
                let (orders, receiver) = unbounded_channel();
                (WorkerHandle { orders, connections: Arc::default() }, receiver)
            })
            .unzip();
        let mut threads = Vec::with_capacity(count);
        for (index, orders) in receivers.into_iter().enumerate() {
            let bound: io::Result<Vec<Bound>> = bound
                .iter()
                .map(|bound| Ok(Bound { listener: bound.listener.try_clone()?, tls: bound.tls }))
                .collect();
            let (bound, shared, log, colleagues) =
                (bound?, shared.clone(), AccessLog::new(log.lines()), colleagues.clone());
            let runtime = move || {
                tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())
            };
            let thread =
                std::thread::Builder::new().name(format!("{WORKER}{index}")).spawn(
                    move || match runtime() {
                        Ok(runtime) => {
                            runtime.block_on(run(index, bound, shared, log, colleagues, orders));
                            // A resolver that hangs does not hold up the end.
                            runtime.shutdown_background();
                            record::tell_of_ended();
                        }
                        Err(error) => tracing::error!(%error, "a worker could not start"),
                    },
                )?;
            threads.push(thread);
        }
        Ok(Workers { handles: colleagues, threads })
    }

    /// Tells every worker how far stopping has come.
    pub(crate) fn advance(&self, phase: Phase) {
        for colleague in &self.handles {
            // A worker that is gone has nothing to drain.
            let _ = colleague.orders.send(Order::Advance(phase));
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.handles.iter().map(|colleague| colleague.connections.load(Ordering::Relaxed)).sum()
    }

    /// Ends every worker, whatever it does.
    pub(crate) fn stop(self) {
        for colleague in &self.handles {
            let _ = colleague.orders.send(Order::Stop);
        }
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// One worker, as its connections see it.
pub(crate) struct Worker {
    view: RefCell<PolicyView>,
    parts: stack::Parts,
    /// How often refused connections are told of.
    pub refusals: LogThrottle,
    /// Its share in the end of the process.
    pub lifecycle: Rc<Lifecycle>,
}

impl Worker {
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.view.borrow_mut().load().clone()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.parts.sink.shared_state.metrics
    }

    /// The memory of what waits for slow clients.
    pub(crate) fn buffers(&self) -> &Arc<BufferMemory> {
        &self.parts.shared_state.buffers
    }

    /// How client connections are served now; no count is touched for it.
    pub(crate) fn settings(&self) -> Settings {
        self.view.borrow_mut().load().policy.server.settings
    }

    /// A client's slot, and whether it is a trusted proxy, which carries the requests of others.
    fn client(&self, address: IpAddr) -> (ClientSlot, bool) {
        let mut view = self.view.borrow_mut();
        let policy = &view.load().policy;
        let client = ClientSlot::new(address, policy.limits.ipv6_prefix);
        (client, policy.server.trusts(address.to_canonical()))
    }

    /// Counts a connection that is closed as its client has its share of all.
    pub(crate) fn refuse_beyond_share(&self, seats: &Seats, address: IpAddr) {
        self.metrics().refused.get_or_create(&RefusedLabels { reason: "share" }).inc();
        if let Some(connections) = seats.count_refused(clock::now()) {
            tracing::warn!(client = %address, connections, "connections closed: their client has its share of max_connections");
        }
    }

    /// The stack for one connection.
    pub(crate) fn service(
        &self,
    ) -> impl tower::Service<
        crate::message::inbound::Inbound,
        Response = http::Response<crate::message::body::Body>,
        Error = std::convert::Infallible,
        Future: 'static,
    > + Clone
    + use<> {
        stack::build(&self.parts)
    }
}

async fn run(
    index: usize,
    bound: Vec<Bound>,
    shared: Shared,
    log: AccessLog,
    colleagues: Vec<WorkerHandle>,
    mut orders: UnboundedReceiver<Order>,
) {
    let view = Cache::new(shared.live.clone());
    let pool = Rc::new(Pool::default());
    let shared_state = shared.shared_state.clone();
    let sink =
        Rc::new(Sink { shared_state: shared_state.clone(), log, failures: LogThrottle::new(FAILURES) });
    let parts = stack::Parts { view: view.clone(), sink, pool: pool.clone(), shared_state };
    let lifecycle = Rc::new(Lifecycle::default());
    let worker = Rc::new(Worker {
        view: RefCell::new(view),
        parts,
        refusals: LogThrottle::new(1),
        lifecycle: lifecycle.clone(),
    });
    let own = colleagues[index].connections.clone();
    for bound in bound {
        let acceptor = Acceptor {
            worker: worker.clone(),
            index,
            shared: shared.clone(),
            colleagues: colleagues.clone(),
            phase_watcher: PhaseWatcher::new(lifecycle.clone()),
            newcomers: Cell::new(0),
        };
        tokio::task::spawn_local(Rc::new(acceptor).run(bound));
    }
    tokio::task::spawn_local(record::tell_as_they_end());
    let (sweeping, heartbeats) = (pool.clone(), shared.shared_state.heartbeats.clone());
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            sweeping.sweep(clock::now());
            heartbeats.beat(index, clock::now());
        }
    });
    while let Some(order) = orders.recv().await {
        match order {
            Order::Serve(handed) => match tokio::net::TcpStream::from_std(handed.tcp) {
                Ok(tcp) => serve(
                    &worker,
                    tcp,
                    handed.address,
                    handed.tls,
                    (handed.permit, handed.seat),
                    &own,
                    &shared.shared_state.metrics,
                ),
                Err(error) => {
                    own.fetch_sub(1, Ordering::Relaxed);
                    tracing::warn!(%error, "a connection could not be taken over");
                }
            },
            Order::Advance(phase) => lifecycle.advance(phase),
            Order::Stop => return,
        }
    }
}

/// Serves a connection that is already counted in `own`.
fn serve(
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

/// One connection's place; given back however its task ends.
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

struct Acceptor {
    worker: Rc<Worker>,
    index: usize,
    shared: Shared,
    colleagues: Vec<WorkerHandle>,
    phase_watcher: PhaseWatcher,
    /// See [`MAX_NEWCOMERS`].
    newcomers: Cell<usize>,
}

impl Acceptor {
    async fn run(self: Rc<Self>, bound: Bound) {
        let listener = match tokio::net::TcpListener::from_std(bound.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "a worker cannot accept"),
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

    /// Connections that the kernel completed before the listener closes are served, not reset.
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

    /// A permit where there is none: a connection that is idle, or waits for a client that has far more, is closed for it.
    /// The accepted one waits here meanwhile, and the ones behind it in the kernel.
    async fn make_room(&self, client: ClientSlot) -> Option<OwnedSemaphorePermit> {
        let mut acquire = std::pin::pin!(self.shared.connections.clone().acquire_owned());
        loop {
            let evicted = self.shared.seats.evict(client);
            if evicted == Some(Evicted::Waiting) && self.worker.refusals.may(clock::now()).is_some() {
                tracing::info!(
                    "max_connections is reached: a connection that waited for its client was closed"
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

    /// A connection of a client that has its share. It takes the place of one of its own that is idle, waits or ends just
    /// now, or is closed. Nobody else waits behind it.
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

    /// Resets a connection: nothing of it is left in the kernel.
    fn refuse(&self, tcp: &tokio::net::TcpStream, address: SocketAddr) {
        let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        self.worker.refuse_beyond_share(&self.shared.seats, address.ip());
    }

    /// Gives a connection to the worker that has the fewest.
    fn hand_out(
        &self,
        tcp: tokio::net::TcpStream,
        address: SocketAddr,
        tls: bool,
        permit: OwnedSemaphorePermit,
        claim: Claim,
    ) {
        let seat = self.shared.seats.take(claim);
        let load = |colleague: &WorkerHandle| colleague.connections.load(Ordering::Relaxed);
        let own = load(&self.colleagues[self.index]);
        let min = self.colleagues.iter().enumerate().min_by_key(|(_, colleague)| load(colleague));
        let (index, colleague) = match min {
            Some((index, colleague)) if load(colleague) < own => (index, colleague),
            _ => (self.index, &self.colleagues[self.index]),
        };
        colleague.connections.fetch_add(1, Ordering::Relaxed);
        if index == self.index {
            return serve(
                &self.worker,
                tcp,
                address,
                tls,
                (permit, seat),
                &colleague.connections,
                &self.shared.shared_state.metrics,
            );
        }
        let handed = tcp.into_std().map(|tcp| HandedOff { tcp, address, tls, permit, seat });
        let sent = handed.map(|handed| colleague.orders.send(Order::Serve(handed)).is_ok());
        if !matches!(sent, Ok(true)) {
            colleague.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A new connection of a client that has its share, while it waits for one of that client's to close.
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
