//! The composition root: builds everything from a source, runs it, and takes it down again.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::admin::control::{Command, Control};
use crate::admin::finding::State;
use crate::admin::health;
use crate::admin::monitor::{Change, Monitor};
use crate::admin::{self, Access, checks, webhook};
use crate::cache::unattended::Unattended;
use crate::cache::{Cache, collected as cached};
use crate::config::{self, Environment, Source};
use crate::connection::seats::Seats;
use crate::http2::refusals;
use crate::layer::certificates;
use crate::layer::record::Sink;
use crate::limit::{Limiter, collected as limits};
use crate::log::{self, LogQueue, Target, Writer};
use crate::memory::buffers::BufferMemory;
use crate::metrics::{Heartbeats, Metrics, buffers as buffered, read_process};
use crate::performance::{Performance, Warning, collected as judged, window};
use crate::policy::{AccessLog, Check, LogFormat, Policy, descriptors};
use crate::reload::{self, Reloader, SetLevel};
use crate::rendering::secret::Secret;
use crate::represent::counters::{self, Counters};
use crate::runtime::clock;
use crate::runtime::lifecycle::Phase;
use crate::runtime::log_throttle::LogThrottle;
use crate::runtime::systemd;
use crate::server::listener;
use crate::server::worker::{Bound, Shared, Workers};
use crate::state::live_policy::{LivePolicy, SharedState, Snapshot};
use crate::trace::{self, Spans};
use crate::upstream::{Collected, Registry};

/// The version, with the commit it was built from where the build says so.
pub(crate) const VERSION: &str = match option_env!("PILLION_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// How often the end of the last connection is looked for while draining.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// How long the end of the process waits for a receiver to take the last spans.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// How often the checks are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often the cache is looked after.
const TICK: Duration = Duration::from_millis(100);

/// Why the process did not start.
#[derive(Debug)]
pub(crate) enum StartError {
    Config(config::LoadError),
    Bind(&'static str, SocketAddr, io::Error),
    System(&'static str, io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::Bind(key, address, error) => write!(f, "cannot listen on {address} ({key}): {error}"),
            StartError::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Asks the machine and the process.
pub(crate) fn environment() -> Environment {
    use std::io::IsTerminal as _;
    Environment {
        variables: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        // Honours the affinity mask and the cgroup's quota.
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_limit: cgroup_memory(),
        terminal: std::io::stdout().is_terminal(),
        secret: Secret::new(secret()),
    }
}

/// This process's own secret, the same for its whole life.
fn secret() -> [u8; 32] {
    static SECRET: std::sync::OnceLock<[u8; 32]> = std::sync::OnceLock::new();
    *SECRET.get_or_init(|| {
        let mut secret = [0; 32];
        if ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut secret).is_err() {
            // No system that runs this is without randomness; what is left is at least not the same twice.
            fastrand::fill(&mut secret);
        }
        secret
    })
}

/// Version 2, then version 1; "max" and absurdly large numbers are no limit.
fn cgroup_memory() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    read("/sys/fs/cgroup/memory.max")
        .or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
        .filter(|limit| *limit < 1 << 60)
}

/// What listens where, with the ports the system chose.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    pub data: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

/// Runs until it is told to stop. `started` is called once everything listens.
pub(crate) fn run(source: Source, started: impl FnOnce(&Started)) -> Result<(), StartError> {
    let mut policy = config::load(&source, &environment()).map_err(StartError::Config)?;
    let dropped = Counter::default();
    let start = |target| {
        Writer::start(target, dropped.clone())
            .map_err(|error| StartError::System("cannot start a log writer", error))
    };
    let (events, access) = (start(Target::Error)?, start(Target::Output)?);
    let set_level = start_log(&policy, events.lines());
    for warning in &policy.warnings {
        tracing::warn!("{warning}");
    }
    let _ = read_process();
    raise_file_limit();
    let lowered = reload::file_limit().and_then(|limit| descriptors::fit(&mut policy, limit));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .map_err(|error| StartError::System("cannot start a runtime", error))?;
    let metrics = Metrics::new(&policy.metrics.buckets, policy.metrics.max_routes, VERSION, dropped);
    let result = runtime.block_on(main(source, policy, lowered, metrics, set_level, &access, started));
    runtime.shutdown_background();
    drop(access);
    drop(events);
    result
}

/// Operational events go to standard error; the access log has standard output for itself.
fn start_log(policy: &Policy, events: LogQueue) -> SetLevel {
    use std::io::IsTerminal as _;
    let (filter, handle) = tracing_subscriber::reload::Layer::new(LevelFilter::from_level(policy.log.level));
    let layer = fmt::layer().with_target(false).with_writer(events);
    let layer = match policy.log.format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Pretty => layer.with_ansi(io::stderr().is_terminal()).boxed(),
    };
    let registry = tracing_subscriber::registry().with(layer.with_filter(filter)).with(refusals::listener());
    // A second run in one process (tests do that) keeps the first one's log.
    drop(registry.try_init());
    Box::new(move |level| {
        let _ = handle.modify(|filter| *filter = LevelFilter::from_level(level));
    })
}

/// A proxy holds two descriptors a request; the soft limit is a relic of select().
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    listener::bind(address).map_err(|error| StartError::Bind(key, address, error))
}

struct Listeners {
    data: Vec<Bound>,
    admin: Option<TcpListener>,
    probes: Option<TcpListener>,
}

impl Listeners {
    fn bind(policy: &Policy) -> Result<Listeners, StartError> {
        let server = &policy.server;
        let mut data = Vec::new();
        for address in &server.listen {
            data.push(Bound { listener: bind("server.listen", *address)?, tls: false });
        }
        for address in server.tls.iter().flat_map(|tls| &tls.listen) {
            data.push(Bound { listener: bind("server.tls.listen", *address)?, tls: true });
        }
        let admin = server.admin.map(|address| bind("server.admin", address)).transpose()?;
        let probes = server.probes.map(|address| bind("server.probes", address)).transpose()?;
        Ok(Listeners { data, admin, probes })
    }

    fn announce(&self) -> Started {
        let address = |listener: &TcpListener| listener.local_addr().ok();
        for bound in &self.data {
            let kind = if bound.tls { "https" } else { "http" };
            if let Some(address) = address(&bound.listener) {
                tracing::info!(kind, %address, "listening");
            }
        }
        for (kind, listener) in [("admin", &self.admin), ("probes", &self.probes)] {
            if let Some(address) = listener.as_ref().and_then(address) {
                tracing::info!(kind, %address, "listening");
            }
        }
        Started {
            data: self.data.iter().filter_map(|bound| address(&bound.listener)).collect(),
            admin: self.admin.as_ref().and_then(address),
        }
    }
}

async fn main(
    source: Source,
    policy: Policy,
    lowered: Option<String>,
    mut metrics: Metrics,
    set_level: SetLevel,
    access: &Writer,
    started: impl FnOnce(&Started),
) -> Result<(), StartError> {
    let system = |what| move |error| StartError::System(what, error);
    let mut terminate = signal(SignalKind::terminate()).map_err(system("cannot listen for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("cannot listen for SIGINT"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(system("cannot listen for SIGHUP"))?;
    let listeners = Listeners::bind(&policy)?;
    let registry = Arc::new(Registry::default());
    let upstreams = registry.build(&policy.upstreams);
    let workers = policy.server.workers;
    let connections = Arc::new(Semaphore::new(policy.server.max_connections));
    // The collector reads the snapshot, which needs the metrics: it is filled in below.
    let live_cell: Arc<std::sync::OnceLock<LivePolicy>> = Arc::default();
    let collected = live_cell.clone();
    metrics.collect(Box::new(Collected(Box::new(move || {
        collected.get().map_or_else(Vec::new, |live| live.load().upstreams.clone())
    }))));
    metrics.collect(Box::new(certificates::Collected(live_cell.clone())));
    let monitor: Arc<Monitor> = Arc::default();
    metrics.collect(Box::new(checks::Collected { monitor: monitor.clone(), live: live_cell.clone() }));
    let shared_state = shared_state(&policy, metrics);
    let snapshot = Snapshot::new(1, policy, upstreams, &shared_state);
    let live: LivePolicy = Arc::new(ArcSwap::from_pointee(snapshot));
    let _ = live_cell.set(live.clone());
    reload::watch_snapshot(&live.load_full(), &registry);

    // A failed start says its one line alone.
    if let Some(lowered) = lowered {
        tracing::warn!("{lowered}");
    }
    let addresses = listeners.announce();
    let shared = Shared {
        live: live.clone(),
        shared_state: shared_state.clone(),
        connections: connections.clone(),
        seats: Seats::new(live.load().policy.server.max_connections),
    };
    let seats = shared.seats.clone();
    tokio::task::spawn_local(tick(shared_state.cache.clone()));
    tokio::task::spawn_local(step(shared_state.performance.clone()));
    let receiver = {
        let live = live.clone();
        move || live.load().policy.tracing.receiver.clone()
    };
    let spans = shared_state.spans.clone();
    let exporter = tokio::task::spawn_local(trace::run(receiver, registry.clone(), spans.clone()));
    let unattended = shared_state.cache.unattended.clone();
    let workers =
        Workers::start(workers, listeners.data, &shared, access).map_err(system("cannot start a worker"))?;
    let (orders, mut received) = unbounded_channel();
    let leaving = Arc::new(AtomicBool::new(false));
    let (changes, told) = tokio::sync::mpsc::channel(webhook::MAX_WAITING);
    tokio::task::spawn_local(webhook::run(
        live.clone(),
        registry.clone(),
        shared_state.metrics.clone(),
        told,
    ));
    tokio::task::spawn_local(look(live.clone(), shared_state.clone(), monitor.clone(), changes));
    let control = Control {
        live: live.clone(),
        shared_state: shared_state.clone(),
        monitor: monitor.clone(),
        watchers: Arc::default(),
        leaving: leaving.clone(),
        commands: orders,
    };
    for (listener, access) in [(listeners.admin, Access::Admin), (listeners.probes, Access::Probes)] {
        if let Some(listener) = listener {
            tokio::task::spawn_local(admin::serve(listener, control.clone(), access));
        }
    }
    let reloader = Rc::new(Reloader {
        source,
        environment,
        live: live.clone(),
        registry,
        shared_state,
        connections,
        seats,
        set_level,
    });
    let watched = reloader.clone();
    tokio::task::spawn_local(reload::watch(live.clone(), leaving.clone(), move || {
        let _ = supervised(&watched);
    }));
    started(&addresses);
    systemd::ready(1);

    let mut drain = Drain { workers, unattended, live, leaving, announced: None };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                let _ = supervised(&reloader);
            }
            order = received.recv() => match order {
                Some(Command::Reload(reply)) => {
                    let _ = reply.send(supervised(&reloader));
                }
                Some(Command::Drain) => drain.announce(),
                Some(Command::Quit) | None => break,
            },
        }
    }
    systemd::stopping();
    let second = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    if drain.finish(second, &mut received).await {
        spans.end();
        // A receiver that hangs does not hold up the end.
        let _ = tokio::time::timeout(LAST_SPANS, exporter).await;
    }
    Ok(())
}

/// Reloads, and tells the supervisor of it.
fn supervised(reloader: &Reloader) -> Result<String, String> {
    systemd::reloading();
    let result = reloader.reload();
    let generation = reloader.generation();
    match &result {
        Ok(_) => systemd::ready(generation),
        Err(_) => systemd::refused(generation),
    }
    result
}

/// Everything that outlives reloads, each with its share in the metrics.
fn shared_state(policy: &Policy, mut metrics: Metrics) -> SharedState {
    let represented: Arc<Counters> = Arc::default();
    metrics.collect(Box::new(counters::Collected(represented.clone())));
    let [a, b, c, d, e, f, g, h, ..] = secret();
    let seed = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let cache = Arc::new(Cache::new(seed, policy.cache.max_size, clock::now()));
    metrics.collect(Box::new(cached::Collected(cache.clone())));
    let buffers = Arc::new(BufferMemory::new(policy.server.buffer_memory));
    metrics.collect(Box::new(buffered::Collected(buffers.clone())));
    let limiter = Arc::new(Limiter::new(policy.limits.max_keys, clock::now()));
    metrics.collect(Box::new(limits::Collected(limiter.clone())));
    let performance = Arc::new(Performance::new(policy.metrics.max_routes));
    metrics.collect(Box::new(judged::Collected(performance.clone())));
    metrics.generation.set(1);
    let heartbeats = Arc::new(Heartbeats::new(policy.server.workers, clock::now()));
    let spans = Spans::new(metrics.spans_dropped.clone());
    let metrics = Arc::new(metrics);
    SharedState { metrics, represented, buffers, cache, limiter, performance, heartbeats, spans }
}

/// All that decides about requests, without a listener, a worker or an app: for questions.
pub(crate) fn rehearse(mut policy: Policy) -> io::Result<(Arc<Snapshot>, Rc<Sink>)> {
    // What is asked here is no traffic.
    policy.log.access = AccessLog::Off;
    let metrics =
        Metrics::new(&policy.metrics.buckets, policy.metrics.max_routes, VERSION, Counter::default());
    let upstreams = Registry::default().build(&policy.upstreams);
    let shared_state = shared_state(&policy, metrics);
    let snapshot = Arc::new(Snapshot::new(1, policy, upstreams, &shared_state));
    let lines = Writer::start(Target::Error, Counter::default())?.lines();
    Ok((
        snapshot,
        Rc::new(Sink { shared_state, log: log::AccessLog::new(lines), failures: LogThrottle::new(1) }),
    ))
}

async fn look(
    live: LivePolicy,
    shared_state: SharedState,
    monitor: Arc<Monitor>,
    changes: tokio::sync::mpsc::Sender<Change>,
) {
    loop {
        tokio::time::sleep(LOOK).await;
        if health::run(Check::Workers, &live.load(), &shared_state).status != State::Unhealthy {
            systemd::alive();
        }
        for change in monitor.look(&live.load(), &shared_state, clock::wall()) {
            let check = change.check.as_str();
            let (from, to, detail) = (change.from.as_str(), change.to.status.as_str(), &change.to.detail);
            let text = format!("{check} is {to}: {detail}");
            let recovered = change.to.status == State::Healthy;
            shared_state.performance.warn(Warning { at: change.at, text, recovered });
            if change.to.status > change.from {
                tracing::warn!(check, from, to, detail, "a check changed its state");
            } else {
                tracing::info!(check, from, to, detail, "a check changed its state");
            }
            if live.load().policy.health.webhook.is_some() && changes.try_send(change).is_err() {
                shared_state.metrics.webhook("dropped");
                tracing::warn!(check, "health.webhook is not told of it: too many changes wait already");
            }
        }
    }
}

/// Routes are judged at their own pace.
async fn step(performance: Arc<Performance>) {
    loop {
        tokio::time::sleep(window::STEP).await;
        for Warning { text, recovered, .. } in performance.step(clock::wall()) {
            if recovered {
                tracing::info!("recovered: {text}");
            } else {
                tracing::warn!("{text}");
            }
        }
    }
}

async fn tick(cache: Arc<Cache>) {
    loop {
        tokio::time::sleep(TICK).await;
        cache.tick(clock::now());
    }
}

struct Drain {
    workers: Workers,
    unattended: Arc<Unattended>,
    live: LivePolicy,
    leaving: Arc<AtomicBool>,
    announced: Option<clock::Instant>,
}

impl Drain {
    /// Not ready from now on, and every answer says that its connection ends.
    fn announce(&mut self) {
        if self.announced.is_none() {
            tracing::info!("draining: not ready any more");
            self.announced = Some(clock::now());
            self.leaving.store(true, Ordering::Relaxed);
            self.workers.advance(Phase::Announcing);
        }
    }

    /// All of it; `second` ends it at once, and then it is false.
    async fn finish(
        mut self,
        second: impl Future<Output = ()>,
        orders: &mut UnboundedReceiver<Command>,
    ) -> bool {
        self.announce();
        let policy = self.live.load_full();
        let server = &policy.policy.server;
        let announced = self.announced.unwrap_or_else(clock::now);
        let (workers, unattended) = (&self.workers, self.unattended.clone());
        let orderly = async {
            tokio::time::sleep_until((announced + server.drain_delay).into()).await;
            workers.advance(Phase::Draining);
            let deadline = clock::now() + server.drain_timeout;
            // What goes on without its client is waited for too: a write's end is what its readers depend on.
            let busy = || workers.connections() > 0 || unattended.get() > 0;
            while busy() && clock::now() < deadline {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            match workers.connections() {
                0 => tracing::info!("stopped"),
                left => tracing::warn!(left, "stopped with connections open: drain_timeout passed"),
            }
        };
        let refused = async {
            // Whoever orders something now is told by the closed channel.
            while let Some(order) = orders.recv().await {
                drop(order);
            }
            std::future::pending::<bool>().await
        };
        let in_order = tokio::select! {
            () = orderly => true,
            () = second => {
                tracing::warn!("stopped at once by a second signal");
                false
            }
            never = refused => never,
        };
        self.workers.stop();
        in_order
    }
}
