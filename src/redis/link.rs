//! A connection that is made again whenever it fails. A request that runs a command never waits for that: without a
//! connection the command fails at once.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;

use super::command::{Command, CommandError, Value};
use super::connect::Connection;
pub(crate) use super::connect::Identity;
use super::settings::Settings;
use crate::runtime::clock;

/// Interval at which a connection is tried.
const PING: Duration = Duration::from_secs(1);
/// Number of commands in a row without a response after which a connection is made anew.
const MAX_TIMEOUTS: u32 = 3;
/// Pause before the first attempt to connect again, doubled with each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Time after which a connection counts as one that works. One that ended before is followed by the longer pause.
const WORKS: Duration = Duration::from_secs(5);
/// Maximum pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The use of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It writes to the log, and reads and writes all other small things.
    Log,
    /// It waits for entries of the log, so it is not tried by commands of its own.
    Reader,
    /// It reads and writes stored responses, which may be large.
    Copies,
}

impl Role {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Role::Log => "log",
            Role::Reader => "reader",
            Role::Copies => "copies",
        }
    }
}

/// The state of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Down {
        /// The reason why the last attempt failed; empty before the first has ended.
        reason: String,
    },
    Up {
        /// Grows with each connection.
        number: u64,
        identity: Identity,
    },
}

/// The counters of a link.
#[derive(Debug, Default)]
pub(crate) struct LinkCounters {
    pub connects: AtomicU64,
    pub failed_connects: AtomicU64,
    pub succeeded: AtomicU64,
    pub failed: AtomicU64,
    pub timed_out: AtomicU64,
    /// The time of the last PING that was answered, in microseconds.
    pub ping: AtomicU64,
}

/// A link; see the head of the file.
#[derive(Debug)]
pub(crate) struct Link {
    pub role: Role,
    pub counters: Arc<LinkCounters>,
    settings: Settings,
    /// The key by which the node of a cluster is chosen.
    key: String,
    /// Whether it is one of several for one use, of which another tells.
    quiet: bool,
    /// The connection with its number.
    connection: Mutex<Option<(u64, MultiplexedConnection)>>,
    status: watch::Sender<Status>,
    timeouts: AtomicU32,
    /// The number of the last connection that is of no use any more.
    failed: watch::Sender<u64>,
}

impl Link {
    /// Creates a link to the server that has `key`. It connects once [`Link::run`] runs.
    pub(super) fn new(role: Role, settings: Settings, key: String) -> Link {
        Link {
            role,
            counters: Arc::default(),
            settings,
            key,
            quiet: false,
            connection: Mutex::new(None),
            status: watch::Sender::new(Status::Down { reason: String::new() }),
            timeouts: AtomicU32::new(0),
            failed: watch::Sender::new(0),
        }
    }

    /// Creates a link for the same use, whose commands count with those of this one: a thread that runs a link of its own
    /// waits for no other thread.
    pub(crate) fn another(&self) -> Link {
        let another = Link::new(self.role, self.settings.clone(), self.key.clone());
        Link { counters: self.counters.clone(), quiet: true, ..another }
    }

    /// Returns the state, to be read and watched.
    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Returns whether there is a connection.
    pub(crate) fn is_up(&self) -> bool {
        matches!(&*self.status.borrow(), Status::Up { .. })
    }

    /// Returns how long one command may take by the configuration.
    pub(crate) fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// Runs a command; waits for at most `timeout`.
    pub(crate) async fn query(&self, command: &Command, timeout: Duration) -> Result<Value, CommandError> {
        let run = async |mut connection: MultiplexedConnection| {
            let value = connection.send_packed_command(&command.0).await;
            value.map_err(|error| CommandError::new(&error)).and_then(Value::new)
        };
        self.run_on(run, timeout).await
    }

    /// Runs two commands at once; waits for at most `timeout`.
    pub(crate) async fn query_both(
        &self,
        commands: [Command; 2],
        timeout: Duration,
    ) -> Result<[Value; 2], CommandError> {
        let [one, other] = commands;
        let mut both = redis::Pipeline::with_capacity(2);
        both.add_command(one.0).add_command(other.0);
        let run = async |mut connection: MultiplexedConnection| {
            let values = connection.send_packed_commands(&both, 0, 2).await;
            let values = values.map_err(|error| CommandError::new(&error))?;
            let values: Vec<Value> = values.into_iter().map(Value::new).collect::<Result<_, _>>()?;
            values.try_into().map_err(|values| CommandError::Unexpected(format!("{values:?}")))
        };
        self.run_on(run, timeout).await
    }

    async fn run_on<T>(
        &self,
        run: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, CommandError>,
        timeout: Duration,
    ) -> Result<T, CommandError> {
        let Some((number, connection)) = self.get() else { return Err(CommandError::Down) };
        let ran = tokio::time::timeout(timeout, run(connection)).await;
        let result = ran.unwrap_or(Err(CommandError::Timeout));
        let counter = match &result {
            Ok(_) => &self.counters.succeeded,
            Err(CommandError::Timeout) => &self.counters.timed_out,
            Err(_) => &self.counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        match &result {
            Err(CommandError::Timeout) => {
                if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_TIMEOUTS {
                    self.give_up(number);
                }
            }
            Err(error) if error.ends_connection() => self.give_up(number),
            _ => self.timeouts.store(0, Ordering::Relaxed),
        }
        result
    }

    /// Drops the connection, and makes another.
    pub(crate) fn reconnect(&self) {
        if let Some((number, _)) = self.get() {
            self.give_up(number);
        }
    }

    /// Gives one connection up. A command that fails late says nothing about the connection after its own.
    fn give_up(&self, number: u64) {
        self.failed.send_if_modified(|failed| std::mem::replace(failed, number.max(*failed)) < number);
    }

    fn get(&self) -> Option<(u64, MultiplexedConnection)> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the link connected for as long as it is polled.
    pub(crate) async fn run(&self) {
        let mut number = 0;
        let mut pause = FIRST_PAUSE;
        loop {
            let name = format!("pillion-{}", self.role.as_str());
            let connection = match Connection::new(&self.settings, &self.key, &name).await {
                Ok(connection) => connection,
                Err(reason) => {
                    self.counters.failed_connects.fetch_add(1, Ordering::Relaxed);
                    self.set_down(reason);
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                    continue;
                }
            };
            number += 1;
            let since = clock::now();
            self.counters.connects.fetch_add(1, Ordering::Relaxed);
            self.timeouts.store(0, Ordering::Relaxed);
            self.set(Some((number, connection.multiplexed.clone())));
            self.set_up(number, connection.identity.clone());
            let reason = self.watch(number).await;
            self.set(None);
            self.set_down(reason);
            drop(connection);
            // A server that accepts and then fails is not asked again and again.
            pause = match clock::now().saturating_duration_since(since) >= WORKS {
                true => FIRST_PAUSE,
                false => (pause * 2).min(MAX_PAUSE),
            };
            tokio::time::sleep(pause.mul_f64(fastrand::f64())).await;
        }
    }

    /// Returns when the connection is of no use any more, with the reason.
    async fn watch(&self, number: u64) -> String {
        let mut failed = self.failed.subscribe();
        let ping = async {
            if self.role == Role::Reader {
                return std::future::pending().await;
            }
            loop {
                tokio::time::sleep(PING).await;
                let since = clock::now();
                if self.query(&Command::new("PING"), self.settings.timeout).await.is_ok() {
                    let time = clock::now().saturating_duration_since(since);
                    let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                    self.counters.ping.store(time, Ordering::Relaxed);
                }
            }
        };
        tokio::select! {
            () = ping => String::new(),
            _ = failed.wait_for(|failed| *failed >= number) => "the connection failed or did not respond".to_owned(),
        }
    }

    fn set(&self, connection: Option<(u64, MultiplexedConnection)>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    fn set_up(&self, number: u64, identity: Identity) {
        if self.role == Role::Log {
            let (address, version) = (&identity.address, &identity.version);
            tracing::info!(%address, %version, "connected to Redis");
            for warning in identity.warnings.iter().filter(|_| number == 1) {
                tracing::warn!(%address, "Redis: {warning}");
            }
        }
        if self.role == Role::Copies && !self.quiet && number == 1 {
            let address = &identity.address;
            for warning in &identity.warnings_of_copies {
                tracing::warn!(%address, "Redis: {warning}");
            }
        }
        self.status.send_replace(Status::Up { number, identity });
    }

    fn set_down(&self, reason: String) {
        let was_down = matches!(&*self.status.borrow(), Status::Down { reason } if !reason.is_empty());
        if !was_down && self.role == Role::Log {
            tracing::warn!(reason, "Redis cannot be reached; each process goes on by itself");
        }
        self.status.send_replace(Status::Down { reason });
    }
}

/// Connects once as the links of a fleet do, and tries a script under its prefix. The error says what failed, with the
/// address.
pub(crate) async fn try_once(settings: &Settings) -> Result<Identity, String> {
    let key = log_key(&settings.prefix);
    let mut connection = Connection::new(settings, &key, "pillion-check").await?;
    let script = Command::new("EVAL").arg("return redis.call('TIME')[1]").number(1).arg(&key);
    let tried = connection.query(&script).await;
    tried.map_err(|error| format!("{}: {error}", connection.identity.address))?;
    Ok(connection.identity.clone())
}

/// The name of the log. The braces keep all that is written together in one slot of a cluster.
pub(crate) fn log_key(prefix: &str) -> String {
    format!("{{{prefix}}}:log")
}
