//! The composition root: builds every component from a configuration source, runs the process, and shuts it down.

mod background;
mod environment;
mod fleet;
mod inherited;
mod listeners;
mod shutdown;
mod signals;
mod start_error;
mod start_line;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::unbounded_channel;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::admin::control::Control;
use crate::admin::monitor::Monitor;
use crate::admin::{self, Access, checks, webhook};
use crate::cache::{Cache, collected as cached};
use crate::config::{self, Kept, Source};
use crate::connection::seats::Seats;
use crate::http2::library_refusals;
use crate::layer::certificates;
use crate::layer::record::Sink;
use crate::limit::{Limiter, collected as limits};
use crate::log::recent::Recent;
use crate::log::tail::{self, Tail};
use crate::log::{self, JsonEvents, LocalTime, LogQueue, Target, Writer};
use crate::memory::buffers::BufferMemory;
use crate::metrics::{Heartbeats, Metrics, buffers as buffered, read_process};
use crate::performance::{Performance, collected as judged};
use crate::policy::{LogFormat, Policy, descriptors};
use crate::reload::{self, Reloader, SetLevel};
use crate::represent::counters::{self, Counters};
use crate::runtime::clock;
use crate::runtime::log_throttle::LogThrottle;
use crate::runtime::systemd;
use crate::server::worker::Shared;
use crate::server::workers::Workers;
use crate::state::live_policy::{LivePolicy, SharedState, Snapshot};
use crate::state::maintenance::Maintenance;
use crate::state::warming::{self, Warming};
use crate::trace::{self, Spans};
use crate::upstream::{Collected, Registry};
pub(crate) use environment::environment;
use environment::{raise_file_limit, secret, shows_colors};
use inherited::Inherited;
use listeners::Listeners;
pub(crate) use listeners::Started;
use shutdown::Drain;
use signals::{Signals, supervised};
pub(crate) use start_error::StartError;
use start_line::StartLine;

/// The version, with the commit if the build provides it in `PILLION_VERSION`.
pub(crate) const VERSION: &str = match option_env!("PILLION_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// Maximum time that the shutdown waits for the trace receiver to accept the last spans.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// Runs the process until it is told to stop. `started` is called once every listener is bound.
pub(crate) fn run(source: Source, started: impl FnOnce(&Started)) -> Result<(), StartError> {
    let inherited = Inherited::take().map_err(StartError::Inherit)?;
    let (mut policy, kept) = config::load_and_keep(&source, &environment()).map_err(StartError::Config)?;
    let dropped = Counter::default();
    let start = |target| {
        Writer::start(target, dropped.clone())
            .map_err(|error| StartError::System("cannot start a log writer", error))
    };
    let (events, access) = (start(Target::Error)?, start(Target::Output)?);
    let queue = events.lines();
    let set_level = start_log(&policy, queue.clone());
    let _ = read_process();
    raise_file_limit();
    let lowered = reload::file_limit().and_then(|limit| descriptors::fit(&mut policy, limit));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .map_err(|error| StartError::System("cannot start a runtime", error))?;
    let metrics = Metrics::new(&policy.metrics.buckets, policy.metrics.max_routes, VERSION, dropped);
    let result = runtime.block_on(main(
        (source, kept),
        (policy, lowered),
        metrics,
        set_level,
        ([&access, &events], &queue),
        inherited,
        started,
    ));
    runtime.shutdown_background();
    drop(access);
    drop(events);
    result
}

/// Says what has started, in a form for the readers of the log.
fn announce(policy: &Policy, (source, digest): (&Source, &str), started: &Started, events: &LogQueue) {
    use std::io::IsTerminal as _;
    let line = StartLine::new(VERSION, policy, source, &started.data, started.admin);
    match policy.log.format {
        LogFormat::Json => line.log(digest),
        LogFormat::Pretty if policy.log.level < tracing::Level::INFO => {}
        LogFormat::Pretty => {
            let text = line.text(io::stderr().is_terminal() && shows_colors());
            events.append(|out| out.extend_from_slice(text.as_bytes()));
        }
    }
}

/// Starts the log of operational events on standard error; standard output is for the access log alone.
fn start_log(policy: &Policy, events: LogQueue) -> SetLevel {
    use std::io::IsTerminal as _;
    let (filter, handle) = tracing_subscriber::reload::Layer::new(LevelFilter::from_level(policy.log.level));
    let layer = fmt::layer().with_target(false).with_writer(events);
    let layer = match policy.log.format {
        LogFormat::Json => layer.event_format(JsonEvents).boxed(),
        LogFormat::Pretty => {
            let color = io::stderr().is_terminal() && shows_colors();
            layer.with_timer(LocalTime).with_ansi(color).boxed()
        }
    };
    let registry =
        tracing_subscriber::registry().with(layer.with_filter(filter)).with(library_refusals::listener());
    // A second run in one process, as in tests, keeps the logger of the first.
    drop(registry.try_init());
    Box::new(move |level| {
        let _ = handle.modify(|filter| *filter = LevelFilter::from_level(level));
    })
}

async fn main(
    (source, kept): (Source, Kept),
    (policy, lowered): (Policy, Option<String>),
    mut metrics: Metrics,
    set_level: SetLevel,
    (logs, events): ([&Writer; 2], &LogQueue),
    inherited: Inherited,
    started: impl FnOnce(&Started),
) -> Result<(), StartError> {
    let mut signals = Signals::listen()?;
    let listeners = Listeners::bind(&policy, inherited)?;
    let registry = Arc::new(Registry::default());
    let upstreams = registry.build(&policy.upstreams);
    let workers = policy.server.workers;
    let connections = Arc::new(Semaphore::new(policy.server.max_connections));
    // The collector reads the snapshot, which needs the metrics, so the cell is filled in below.
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

    // Comes after every step that can fail, so that a failed start logs only its error.
    for name in &source.stray_variables {
        tracing::warn!(variable = name, "the environment variable {name} is no option of `pillion run`");
    }
    reload::log_notices(&live.load().policy.notices);
    if let Some(lowered) = lowered {
        tracing::warn!("{lowered}");
    }
    let addresses = listeners.announce(live.load().policy.log.format);
    shared_state.metrics.set_config(kept.digest());
    announce(&live.load().policy, (&source, kept.digest()), &addresses, events);
    shared_state.maintenance.switch(live.load().policy.maintenance.enabled, "configuration");
    let shared = Shared {
        live: live.clone(),
        shared_state: shared_state.clone(),
        connections: connections.clone(),
        seats: Seats::new(live.load().policy.server.max_connections),
    };
    let seats = shared.seats.clone();
    tokio::task::spawn_local(background::tick(shared_state.cache.clone(), shared_state.recent.clone()));
    tokio::task::spawn_local(background::step(shared_state.performance.clone()));
    let receiver = {
        let live = live.clone();
        move || live.load().policy.tracing.receiver.clone()
    };
    let spans = shared_state.spans.clone();
    let tail = shared_state.tail.clone();
    let shared_fleet = shared_state.fleet.clone();
    let exporter = tokio::task::spawn_local(trace::run(receiver, registry.clone(), spans.clone()));
    let unattended = shared_state.cache.unattended.clone();
    fleet::start(&shared_state, &live.load().policy)?;
    let workers = Workers::start(workers, listeners.data, &shared, logs[0])
        .map_err(|error| StartError::System("cannot start a worker", error))?;
    let (orders, mut received) = unbounded_channel();
    let leaving = Arc::new(AtomicBool::new(false));
    let (changes, told) = tokio::sync::mpsc::channel(webhook::MAX_WAITING);
    tokio::task::spawn_local(webhook::run(
        live.clone(),
        registry.clone(),
        shared_state.metrics.clone(),
        told,
    ));
    tokio::task::spawn_local(background::look(live.clone(), shared_state.clone(), monitor.clone(), changes));
    let control = Control {
        live: live.clone(),
        shared_state: shared_state.clone(),
        monitor: monitor.clone(),
        watchers: Arc::default(),
        leaving: leaving.clone(),
        commands: orders,
    };
    for (listeners, access) in [(listeners.admin, Access::Admin), (listeners.probes, Access::Probes)] {
        for listener in listeners {
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
        kept: RefCell::new(kept),
        tried: RefCell::default(),
    });
    let watched = reloader.clone();
    tokio::task::spawn_local(reload::watch(reloader.clone(), leaving.clone(), move |cause| {
        let _ = supervised(&watched, cause);
    }));
    started(&addresses);
    systemd::ready(1);

    let metrics = reloader.shared_state.metrics.clone();
    let mut drain = Drain { workers, unattended, live, leaving, metrics, tail, announced: None };
    signals.until_stopped(&mut received, &reloader, &mut drain, logs).await;
    systemd::stopping();
    let fleet = shared_fleet;
    if drain.finish(signals.second(), &mut received).await {
        if let Some(fleet) = &fleet {
            fleet.leave().await;
        }
        spans.end();
        // A trace receiver that hangs must not delay the exit.
        let _ = tokio::time::timeout(LAST_SPANS, exporter).await;
    }
    Ok(())
}

/// Builds the state that outlives reloads, and registers its metrics.
fn shared_state(policy: &Policy, mut metrics: Metrics) -> SharedState {
    let represented: Arc<Counters> = Arc::default();
    metrics.collect(Box::new(counters::Collected(represented.clone())));
    let [a, b, c, d, e, f, g, h, ..] = secret();
    let seed = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let cache = Arc::new(Cache::new(seed, policy.cache.max_size, clock::now()));
    metrics.collect(Box::new(cached::Collected(cache.clone())));
    let buffers = Arc::new(BufferMemory::new(policy.server.buffer_memory));
    metrics.collect(Box::new(buffered::Collected(buffers.clone())));
    let performance = Arc::new(Performance::new(policy.metrics.max_routes));
    metrics.collect(Box::new(judged::Collected(performance.clone())));
    let (fleet, redis) =
        policy.fleet.as_ref().map(|policy| fleet::join(policy, VERSION, &cache, &mut metrics)).unzip();
    let copies = policy.fleet.as_ref().zip(fleet.as_ref().zip(redis.as_ref()));
    let copies =
        copies.and_then(|(policy, (fleet, links))| fleet::copies(policy, &cache, fleet, links, &mut metrics));
    let own_writes = fleet::own_writes(policy, fleet.as_ref());
    let shared = fleet::limits(policy, fleet.as_deref(), redis.as_ref());
    let limiter = Arc::new(Limiter::new(policy.limits.max_keys, clock::now()).with_shared(shared));
    metrics.collect(Box::new(limits::Collected(limiter.clone())));
    let warming: Arc<Warming> = Arc::default();
    metrics.collect(Box::new(warming::Collected(warming.clone())));
    metrics.generation.set(1);
    let maintenance = Arc::new(Maintenance::new(metrics.maintenance.clone()));
    let heartbeats = Arc::new(Heartbeats::new(policy.server.workers, clock::now()));
    let spans = Spans::new(metrics.spans_dropped.clone());
    let tail = Arc::new(Tail::new(clock::now()));
    metrics.collect(Box::new(tail::Collected(tail.clone())));
    let metrics = Arc::new(metrics);
    SharedState {
        metrics,
        represented,
        buffers,
        cache,
        fleet,
        redis,
        copies,
        own_writes,
        limiter,
        warming,
        performance,
        maintenance,
        heartbeats,
        spans,
        tail,
        recent: Arc::new(Recent::new()),
    }
}

/// Builds everything that decides about requests, without listeners or workers, for `pillion explain`, `pillion test`
/// and tests of the layers. `wall` replaces the present time by the wall clock.
pub(crate) fn rehearse(policy: Policy, wall: Option<SystemTime>) -> io::Result<(Arc<Snapshot>, Rc<Sink>)> {
    let metrics =
        Metrics::new(&policy.metrics.buckets, policy.metrics.max_routes, VERSION, Counter::default());
    let upstreams = Registry::default().build(&policy.upstreams);
    let shared_state = shared_state(&policy, metrics);
    let snapshot = Arc::new(Snapshot::new(1, policy, upstreams, &shared_state));
    let lines = Writer::start(Target::Error, Counter::default())?.lines();
    Ok((
        snapshot,
        Rc::new(Sink { shared_state, log: log::AccessLog::new(lines), failures: LogThrottle::new(1), wall }),
    ))
}
