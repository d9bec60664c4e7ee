//! Reads the configuration again and swaps the policy: the only writer of the live policy. Everything that can fail
//! happens before the single swap, so a rejected configuration changes nothing.

mod in_place;
mod jwks;
#[cfg(test)]
mod route_digests;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use self::in_place::{Look, Saves};
use crate::config::changes::{Compared, Marks};
use crate::config::{self, Environment, Kept, Source};
use crate::connection::seats::Seats;
use crate::performance::Warning;
use crate::policy::notice::{Notice, Severity};
use crate::policy::{Policy, RoutePolicy, SourceFile, descriptors};
use crate::runtime::clock;
use crate::state::live_policy::{LivePolicy, SharedState, Snapshot};
use crate::upstream::{self, Registry};

/// Interval between checks of the watched files.
const LOOK: Duration = Duration::from_millis(500);

/// Sets the log level of operational events.
pub(crate) type SetLevel = Box<dyn Fn(tracing::Level)>;

/// Why the configuration is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Somebody asked for it.
    Asked,
    /// A file was replaced by another, which is whole.
    Replaced,
    /// A file was saved in place.
    Saved,
}

/// Reloads the configuration of the running process.
pub(crate) struct Reloader {
    /// The source of the configuration.
    pub source: Source,
    /// Collects the facts of the machine and the process again.
    pub environment: fn() -> Environment,
    pub live: LivePolicy,
    pub registry: Arc<Registry>,
    /// The state that outlives reloads.
    pub shared_state: SharedState,
    /// The limit on client connections.
    pub connections: Arc<Semaphore>,
    /// The share of client connections that each client may use.
    pub seats: Arc<Seats>,
    /// Sets the log level of operational events.
    pub set_level: SetLevel,
    /// The configuration in force as it was loaded, for its effective settings.
    pub kept: RefCell<Kept>,
    /// The files as they were at the last reload, whether it was applied or rejected.
    pub tried: RefCell<Contents>,
}

impl Reloader {
    /// Reads, compiles and swaps the policy. Returns what changed, or why the policy was rejected.
    pub(crate) fn reload(&self, cause: Cause) -> Result<String, String> {
        let result = self.attempt(cause);
        match &result {
            Ok(changed) => {
                self.shared_state.metrics.reloaded("applied");
                let (generation, kept) = (self.live.load().generation, self.kept.borrow());
                tracing::info!(generation, changed, digest = kept.digest(), "configuration reloaded");
            }
            Err(problem) => {
                self.shared_state.metrics.reloaded("refused");
                let text = "configuration rejected; keeping the current one".to_owned();
                self.shared_state.performance.warn(Warning { at: clock::wall(), text, recovered: false });
                tracing::error!("configuration rejected; keeping the current one:\n{problem}");
            }
        }
        result
    }

    /// Returns the effective settings of the configuration in force, as TOML or as JSON. The error says why not.
    pub(crate) fn settings(&self, as_json: bool) -> Result<String, String> {
        let settings = self.kept.borrow().settings().map_err(|error| error.to_string())?;
        Ok(if as_json { format!("{}\n", settings.json()) } else { settings.toml() })
    }

    /// Compares the configuration in force with another one, of which there are only marks, in JSON. The error says what
    /// is wrong with them.
    pub(crate) fn compare(&self, marks: &str) -> Result<String, String> {
        let marks: Marks = serde_json::from_str(marks).map_err(|error| format!("the marks: {error}"))?;
        let settings = self.kept.borrow().settings().map_err(|error| error.to_string())?;
        let snapshot = self.live.load();
        let rules = |place: usize| snapshot.rules(u32::try_from(place).ok());
        let differing = marks.compare(&settings, &snapshot.policy, &rules)?;
        let compared = Compared { digest: settings.digest(), differing };
        serde_json::to_string(&compared).map_err(|error| error.to_string())
    }

    /// Returns the generation of the current policy.
    pub(crate) fn generation(&self) -> u64 {
        self.live.load().generation
    }

    fn attempt(&self, cause: Cause) -> Result<String, String> {
        *self.tried.borrow_mut() = contents(&self.live.load().policy.sources);
        let (mut policy, kept) =
            config::load_and_keep(&self.source, &(self.environment)()).map_err(|error| error.to_string())?;
        if let Some(limit) = file_limit() {
            descriptors::fit(&mut policy, limit);
        }
        let old = self.live.load_full();
        let fixed = needs_restart(&old.policy, &policy);
        if !fixed.is_empty() {
            return Err(format!("a change of {} takes effect only after a restart", fixed.join(", ")));
        }
        if let Some(lack) = in_place::dropped(&old.policy, &policy).filter(|_| cause == Cause::Saved) {
            return Err(format!("the file was saved in place, and {lack}; `pillion reload` applies it"));
        }
        let changed = difference(&old.policy, &policy);
        self.forget_edited(&old.policy, &policy);
        // A hint is about where the process runs, and was logged at the start.
        log_notices(policy.notices.iter().filter(|notice| notice.severity != Severity::Hint));
        self.resize(old.policy.server.max_connections, policy.server.max_connections);
        (self.set_level)(policy.log.level);
        // A reload keeps what the command switched, unless the file says something new.
        if policy.maintenance.enabled != old.policy.maintenance.enabled {
            self.shared_state.maintenance.switch(policy.maintenance.enabled, "configuration");
        }
        self.shared_state.cache.store.budget.set_max(policy.cache.max_size);
        self.shared_state.cache.make_room();
        self.shared_state.buffers.set_max(policy.server.buffer_memory);
        self.shared_state.limiter.cells.set_max(policy.limits.max_keys);
        let upstreams = self.registry.build(&policy.upstreams);
        carry_over(&old, &upstreams);
        if let (Some(new), Some(old)) = (&policy.keys, &old.policy.keys)
            && new.url == old.url
        {
            // Fetched keys stay valid until the next fetch.
            new.put(old.fetched.load().to_vec());
        }
        let generation = old.generation + 1;
        self.shared_state.metrics.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        let snapshot = Arc::new(Snapshot::new(generation, policy, upstreams, &self.shared_state));
        self.live.store(snapshot.clone());
        watch_snapshot(&snapshot, &self.registry);
        self.shared_state.metrics.set_config(kept.digest());
        *self.kept.borrow_mut() = kept;
        Ok(changed)
    }

    /// Resumes caching for changed routes on which it was stopped. Responses stored for the old version of such a route
    /// are not found any more, because the rules of a route are part of the cache key.
    fn forget_edited(&self, old: &Policy, new: &Policy) {
        let stays = |route: &&Arc<RoutePolicy>| {
            let same = |other: &&Arc<RoutePolicy>| {
                other.label == route.label && other.cache == route.cache && other.upstream == route.upstream
            };
            new.routes.routes.iter().any(|other| same(&other))
        };
        let edited: Vec<&Arc<RoutePolicy>> = old.routes.routes.iter().filter(|route| !stays(route)).collect();
        if !edited.is_empty() {
            self.shared_state.cache.resume(edited.iter().map(|route| route.label.as_str()));
        }
    }

    fn resize(&self, old: usize, new: usize) {
        self.seats.set_max(new);
        if new > old {
            self.connections.add_permits(new - old);
        } else if new < old {
            // Open connections stay; their permits are removed as they close.
            let connections = self.connections.clone();
            let fewer = u32::try_from(old - new).unwrap_or(u32::MAX);
            tokio::task::spawn_local(async move {
                if let Ok(permits) = connections.acquire_many_owned(fewer).await {
                    permits.forget();
                }
            });
        }
    }
}

/// Logs the warnings and hints about a configuration, each with its place.
pub(crate) fn log_notices<'a>(notices: impl IntoIterator<Item = &'a Notice>) {
    for notice in notices {
        let (line, place) = (notice.line(), notice.at());
        match notice.severity {
            Severity::Hint => tracing::info!(place, "hint: {line}"),
            _ => tracing::warn!(place, "{line}"),
        }
    }
}

/// Returns the limit of open files, if there is one.
pub(crate) fn file_limit() -> Option<usize> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.and_then(|limit| usize::try_from(limit).ok())
}

/// Takes over resolved names and health of upstreams that exist in both snapshots.
fn carry_over(old: &Snapshot, new: &[Arc<upstream::Upstream>]) {
    for upstream in new {
        if let Some(before) = old.upstreams.iter().find(|before| before.policy.name == upstream.policy.name) {
            upstream.carry_over(before);
        }
    }
}

/// Starts the health checks of a snapshot's upstreams, and the fetching of its keys. Both end with the snapshot.
pub(crate) fn watch_snapshot(snapshot: &Arc<Snapshot>, registry: &Registry) {
    for (index, upstream) in snapshot.upstreams.iter().enumerate() {
        let awaited = snapshot.policy.health.awaits(index);
        tokio::task::spawn_local(upstream::watch(Arc::downgrade(upstream), awaited));
    }
    if let Some(source) = &snapshot.policy.keys {
        let mut built = registry.build(std::slice::from_ref(&source.upstream));
        if let Some(upstream) = built.pop() {
            tokio::task::spawn_local(jwks::watch(Arc::downgrade(snapshot), upstream));
        }
    }
}

/// The same of both policies.
type IsSame = fn(&Policy, &Policy) -> bool;

/// Keys, or a whole section, whose change a reload refuses. `config::keys` declares the same.
const FIXED: [(&str, IsSame); 8] = [
    ("server.listen", |old, new| old.server.listen == new.server.listen),
    ("server.tls.listen", |old, new| tls_listen(old) == tls_listen(new)),
    ("server.admin", |old, new| old.server.admin == new.server.admin),
    ("server.probes", |old, new| old.server.probes == new.server.probes),
    ("server.workers", |old, new| old.server.workers == new.server.workers),
    ("log.format", |old, new| old.log.format == new.log.format),
    ("metrics", |old, new| old.metrics == new.metrics),
    ("redis", |old, new| old.fleet == new.fleet),
];

fn tls_listen(policy: &Policy) -> Option<&[SocketAddr]> {
    policy.server.tls.as_ref().map(|tls| tls.listen.as_slice())
}

fn needs_restart(old: &Policy, new: &Policy) -> Vec<&'static str> {
    FIXED.iter().filter(|(_, is_same)| !is_same(old, new)).map(|(name, _)| *name).collect()
}

/// Lists the changed sections, for the log.
fn difference(old: &Policy, new: &Policy) -> String {
    let mut changed = Vec::new();
    let mut compare = |name: &str, same: bool| {
        if !same {
            changed.push(name.to_owned());
        }
    };
    let server = |policy: &Policy| {
        let server = &policy.server;
        (
            server.settings,
            (server.max_connections, server.max_body_size, server.h2_max_streams),
            (server.buffer_request, server.buffer_memory, server.min_body_rate),
            server.trusted_proxies.clone(),
            (server.proxy_protocol, server.redirect_https, server.watch),
            (server.drain_delay, server.drain_timeout),
            (server.admin_token.clone(), server.admin_hosts.clone()),
            server.underscores,
        )
    };
    compare("server", server(old) == server(new));
    compare("upstreams", old.upstreams == new.upstreams);
    compare("routes", old.routes.routes == new.routes.routes);
    compare("health", old.health == new.health);
    compare("maintenance", old.maintenance == new.maintenance);
    compare("compression", old.compression == new.compression);
    compare("etag", old.etag == new.etag);
    compare("cache", old.cache == new.cache && old.purge_from == new.purge_from);
    compare("invalidate", old.invalidate == new.invalidate);
    compare("warm", old.warm == new.warm);
    // The keys are compared below, with the other files.
    compare("rate_limit", old.limits.is_as_but_for_keys(&new.limits));
    compare("log", old.log == new.log);
    compare("tracing", old.tracing == new.tracing);
    let url = |policy: &Policy| policy.keys.as_ref().map(|keys| keys.url.clone());
    let identity = |policy: &Policy| (policy.identity.settings(), url(policy));
    compare("identity", identity(old) == identity(new));
    // Compares certificates, keys and other files by content. The first source is the configuration file itself.
    let files = |policy: &Policy| -> Vec<(PathBuf, Option<u128>)> {
        policy.sources.iter().skip(1).map(|file| (file.path.clone(), file.content)).collect()
    };
    let (before, after) = (files(old), files(new));
    let both = before
        .iter()
        .filter(|file| !after.contains(file))
        .chain(after.iter().filter(|file| !before.contains(file)));
    let mut names: Vec<String> = both.map(|(path, _)| path.display().to_string()).collect();
    names.sort();
    names.dedup();
    changed.extend(names);
    if changed.is_empty() { "nothing".to_owned() } else { changed.join(", ") }
}

/// Calls `reload` whenever one of the current files was replaced or saved. The files are compared with their state just
/// before the current policy was read, so no change between a load and a check is lost. A rejected configuration is not
/// tried again until the files change.
///
/// A save in place is taken once it is complete, unless its content was loaded or rejected before.
pub(crate) async fn watch(reloader: Rc<Reloader>, stopping: Arc<AtomicBool>, reload: impl Fn(Cause)) {
    let mut before: Vec<SourceFile> = Vec::new();
    let mut tried: Vec<SourceFile> = Vec::new();
    let mut saves = Saves::new();
    let first = reloader.live.load_full();
    if first.policy.server.watch {
        // Watches the files from the start on.
        saves.look(&first.policy.sources, &first.policy.sources, clock::now());
    }
    while !stopping.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK).await;
        let snapshot = reloader.live.load_full();
        if !snapshot.policy.server.watch {
            continue;
        }
        let loaded = &snapshot.policy.sources;
        let now: Vec<SourceFile> = loaded.iter().map(|source| SourceFile::now(&source.path)).collect();
        // Waits until two checks see the same state, because several files may be replaced one after the other.
        let settled = now == before && now.iter().all(|source| source.identity.is_some());
        before.clone_from(&now);
        let is_loaded = now.iter().zip(loaded).all(|(now, loaded)| now.is_same_file(loaded));
        if !is_loaded && now != tried {
            if settled {
                tried = now;
                reload(Cause::Replaced);
            }
            continue;
        }
        match saves.look(&now, loaded, clock::now()) {
            Look::Nothing => {}
            Look::Saved => {
                let saved = contents(loaded);
                let known = loaded.iter().map(|file| (file.path.clone(), file.content)).collect::<Vec<_>>();
                if saved != known && saved != *reloader.tried.borrow() {
                    reload(Cause::Saved);
                }
            }
            Look::Unknown(path) => tracing::warn!(
                file = %path.display(),
                "the file was changed in place by a writer that cannot be watched; `pillion reload` applies the change"
            ),
        }
    }
}

/// Each file with a hash of its present content.
type Contents = Vec<(PathBuf, Option<u128>)>;

fn contents(files: &[SourceFile]) -> Contents {
    let read = |file: &SourceFile| (file.path.clone(), SourceFile::read(&file.path).content);
    files.iter().map(read).collect()
}
