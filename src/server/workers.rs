//! The workers: each has one thread, one runtime and one pool of connections. A connection is served by the worker with
//! the fewest connections, and never leaves it.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::Cache;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::handoff::{Command, WorkerHandle, serve};
use super::listener::{Acceptor, Bound};
use super::worker::{Shared, Worker};
use crate::layer::record::{self, Sink};
use crate::layer::{stack, warm};
use crate::log::{AccessLog, Writer};
use crate::metrics::WORKER;
use crate::runtime::clock;
use crate::runtime::lifecycle::{Lifecycle, Phase, PhaseWatcher};
use crate::runtime::log_throttle::LogThrottle;
use crate::upstream::Pool;

/// Interval of the search for idle upstream connections to close.
const SWEEP: Duration = Duration::from_secs(1);
/// Maximum log events about failed requests per worker and second. The rest are counted, and each is in the access log.
const FAILURES: u32 = 10;

/// All workers of the process.
pub(crate) struct Workers {
    handles: Vec<WorkerHandle>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` workers, which all accept from all of `bound`.
    pub(crate) fn start(
        count: usize,
        bound: Vec<Bound>,
        shared: &Shared,
        log: &Writer,
    ) -> io::Result<Workers> {
        let (handles, receivers): (Vec<WorkerHandle>, Vec<UnboundedReceiver<Command>>) = (0..count)
            .map(|_| {
                let (commands, receiver) = unbounded_channel();
                (WorkerHandle { commands, connections: Arc::default() }, receiver)
            })
            .unzip();
        let mut threads = Vec::with_capacity(count);
        for (index, commands) in receivers.into_iter().enumerate() {
            let bound: io::Result<Vec<Bound>> = bound
                .iter()
                .map(|bound| Ok(Bound { listener: bound.listener.try_clone()?, tls: bound.tls }))
                .collect();
            let (bound, shared, log, handles) =
                (bound?, shared.clone(), AccessLog::new(log.lines()), handles.clone());
            let runtime = move || {
                tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())
            };
            let thread =
                std::thread::Builder::new().name(format!("{WORKER}{index}")).spawn(
                    move || match runtime() {
                        Ok(runtime) => {
                            runtime.block_on(run(index, bound, shared, log, handles, commands));
                            // A hanging resolver thread does not delay the shutdown.
                            runtime.shutdown_background();
                            record::report_completed();
                        }
                        Err(error) => tracing::error!(%error, "a worker could not start"),
                    },
                )?;
            threads.push(thread);
        }
        Ok(Workers { handles, threads })
    }

    /// Sends the phase of the shutdown to every worker.
    pub(crate) fn advance(&self, phase: Phase) {
        for handle in &self.handles {
            // A worker that has ended has nothing to drain.
            let _ = handle.commands.send(Command::Advance(phase));
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.handles.iter().map(|handle| handle.connections.load(Ordering::Relaxed)).sum()
    }

    /// Ends every worker, even with work in progress.
    pub(crate) fn stop(self) {
        for handle in &self.handles {
            let _ = handle.commands.send(Command::Stop);
        }
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

async fn run(
    index: usize,
    bound: Vec<Bound>,
    shared: Shared,
    log: AccessLog,
    handles: Vec<WorkerHandle>,
    mut commands: UnboundedReceiver<Command>,
) {
    let view = Cache::new(shared.live.clone());
    let pool = Rc::new(Pool::default());
    let shared_state = shared.shared_state.clone();
    let sink = Rc::new(Sink {
        shared_state: shared_state.clone(),
        log,
        failures: LogThrottle::new(FAILURES),
        wall: None,
    });
    let copies_link = shared_state.copies.as_ref().map(|copies| copies.link_of_worker());
    if let Some(link) = copies_link.clone() {
        tokio::task::spawn_local(async move { link.run().await });
    }
    let parts = stack::Parts { view: view.clone(), sink, pool: pool.clone(), shared_state, copies_link };
    let lifecycle = Rc::new(Lifecycle::default());
    if index == 0 {
        // One worker keeps what all have.
        tokio::task::spawn_local(warm::run(parts.clone(), lifecycle.clone()));
    }
    let worker = Rc::new(Worker {
        view: RefCell::new(view),
        parts,
        refusals: LogThrottle::new(1),
        lifecycle: lifecycle.clone(),
    });
    let own = handles[index].connections.clone();
    for bound in bound {
        let acceptor = Acceptor {
            worker: worker.clone(),
            index,
            shared: shared.clone(),
            handles: handles.clone(),
            phase_watcher: PhaseWatcher::new(lifecycle.clone()),
            newcomers: Cell::new(0),
        };
        tokio::task::spawn_local(Rc::new(acceptor).run(bound));
    }
    tokio::task::spawn_local(record::report_until_stopped());
    let (sweeping, heartbeats) = (pool.clone(), shared.shared_state.heartbeats.clone());
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            sweeping.sweep(clock::now());
            heartbeats.beat(index, clock::now());
        }
    });
    while let Some(command) = commands.recv().await {
        match command {
            Command::Serve(handed) => match tokio::net::TcpStream::from_std(handed.tcp) {
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
                    tracing::warn!(%error, "a connection could not be handed to another worker");
                }
            },
            Command::Advance(phase) => lifecycle.advance(phase),
            Command::Stop => return,
        }
    }
}
