//! Files that are saved in place: a save is taken once its writer has closed the file and nothing was written for a
//! while. Where that cannot be known, an operator is told once how to apply it.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use crate::policy::source_file::FileIdentity;
use crate::policy::{Action, Policy, SourceFile};
use crate::runtime::clock::Instant;

/// Quiet time after the last writer closed the file.
const QUIET: Duration = Duration::from_secs(2);
/// Room for the events of one look; what does not fit is read at the next.
const ROOM: usize = 16 * 1024;

/// One file, and what its writers did.
#[derive(Debug)]
struct Watched {
    identity: Option<FileIdentity>,
    /// The number of its watch; `None` if the system cannot watch it.
    watch: Option<i32>,
    save: Save,
    /// Time of the last change and size when the file was first seen with this identity, or was last taken.
    known: Option<(SystemTime, u64)>,
    /// Since when the file differs from that without a writer that is known.
    unknown_since: Option<Instant>,
}

/// The state of the last save of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Save {
    writing: bool,
    /// Time of the last event.
    last: Option<Instant>,
}

impl Save {
    fn written(&mut self, now: Instant) {
        *self = Save { writing: true, last: Some(now) };
    }

    fn closed(&mut self, now: Instant) {
        *self = Save { writing: false, last: Some(now) };
    }

    fn is_complete(self, now: Instant) -> bool {
        !self.writing && self.last.is_some_and(|last| now.saturating_duration_since(last) >= QUIET)
    }
}

/// The outcome of one look at the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Nothing,
    /// A save is complete.
    Saved,
    /// A file has changed, and it cannot be known whether its writer has finished.
    Unknown(PathBuf),
}

/// The files of the policy in force.
#[derive(Debug)]
pub(super) struct Saves {
    inotify: Option<OwnedFd>,
    files: HashMap<PathBuf, Watched>,
}

impl Saves {
    pub(super) fn new() -> Saves {
        Saves {
            inotify: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok(),
            files: HashMap::new(),
        }
    }

    /// Looks at `files`, in the state they are in now; `loaded` are the same files as they were loaded.
    pub(super) fn look(&mut self, files: &[SourceFile], loaded: &[SourceFile], now: Instant) -> Look {
        self.files.retain(|path, _| files.iter().any(|file| file.path == *path));
        for (file, loaded) in files.iter().zip(loaded) {
            let known = self.files.get(&file.path);
            if known.is_none_or(|known| known.identity != file.identity) {
                let watched = self.watch(file, loaded);
                self.files.insert(file.path.clone(), watched);
            }
        }
        self.events(now);
        let mut look = Look::Nothing;
        for (path, watched) in &mut self.files {
            let state = state(path);
            let differs = state.is_some() && state != watched.known;
            if watched.save.is_complete(now) {
                *watched = Watched { save: Save::default(), known: state, unknown_since: None, ..*watched };
                look = Look::Saved;
            } else if watched.save.last.is_none() && differs {
                // Two looks, as the event may come after the change.
                let since = *watched.unknown_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= QUIET {
                    *watched = Watched { known: state, unknown_since: None, ..*watched };
                    if look == Look::Nothing {
                        look = Look::Unknown(path.clone());
                    }
                }
            }
        }
        look
    }

    fn watch(&self, file: &SourceFile, loaded: &SourceFile) -> Watched {
        let events = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
        let watch = self.inotify.as_ref().and_then(|fd| inotify::add_watch(fd, &file.path, events).ok());
        // A save between the load and this watch has no event.
        let is_saved = file.is_same_file(loaded) && SourceFile::read(&file.path).content != loaded.content;
        let known = if is_saved { None } else { state(&file.path) };
        Watched { identity: file.identity, watch, save: Save::default(), known, unknown_since: None }
    }

    fn events(&mut self, now: Instant) {
        let Some(fd) = &self.inotify else { return };
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut reader = inotify::Reader::new(fd, &mut room);
        // Without an event to read, the next read fails; the descriptor does not block.
        while let Ok(event) = reader.next() {
            let watched = self.files.values_mut().filter(|watched| watched.watch == Some(event.wd()));
            for watched in watched {
                if event.events().contains(ReadFlags::CLOSE_WRITE) {
                    watched.save.closed(now);
                } else if event.events().contains(ReadFlags::MODIFY) {
                    watched.save.written(now);
                }
            }
        }
    }
}

/// The time of a file's last change, and its size.
fn state(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Returns what a policy lacks that protects the upstream, or why it looks like a part of one: such a version is taken
/// only when somebody asks for it.
pub(super) fn dropped(old: &Policy, new: &Policy) -> Option<String> {
    let routes = |policy: &Policy| policy.routes.routes.len() - 1;
    let (before, after) = (routes(old), routes(new));
    if after * 2 < before {
        return Some(format!("{after} of {before} routes are left"));
    }
    for route in old.routes.routes.iter().filter(|route| route.pattern.is_some()) {
        let label = route.label.as_str();
        let mut same = new.routes.routes.iter().filter(|other| other.pattern == route.pattern);
        let denies = |action: &Action| matches!(action, Action::Deny(_));
        if denies(&route.action) && !same.clone().any(|other| denies(&other.action)) {
            return Some(format!("the deny of {label} is gone"));
        }
        if route.allow.is_some() && !same.clone().any(|other| other.allow.is_some() || denies(&other.action))
        {
            return Some(format!("the allow of {label} is gone"));
        }
        let is_limited = !route.limits.named.is_empty() || route.limits.concurrency.is_some();
        let stays = same.any(|other| {
            other.limits.named.len() >= route.limits.named.len()
                && other.limits.concurrency.is_some() >= route.limits.concurrency.is_some()
        });
        if is_limited && !stays {
            return Some(format!("limits of {label} are gone"));
        }
    }
    if old.limits.enabled && !new.limits.enabled {
        return Some("no limit is applied any more".to_owned());
    }
    for tier in old.limits.tiers.iter().filter(|_| old.limits.enabled) {
        let Some(other) = new.limits.tier(tier.name.as_str()) else {
            return Some(format!("the tier {} is gone", tier.name));
        };
        let gone = tier.limits.iter().find(|limit| other.limits.iter().all(|known| known.name != limit.name));
        if let Some(limit) = gone {
            return Some(format!("the limit {} of tier {} is gone", limit.name, tier.name));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment, Source};
    use crate::runtime::clock;

    #[test]
    fn save_is_complete_two_seconds_after_its_last_writer_closed() {
        let begin = clock::now();
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        let mut save = Save::default();
        assert!(!save.is_complete(at(10_000)), "nothing was written");
        save.written(at(0));
        assert!(!save.is_complete(at(10_000)), "its writer has it open");
        save.closed(at(10_000));
        assert!(!save.is_complete(at(11_999)) && save.is_complete(at(12_000)));
        save.written(at(11_000));
        assert!(!save.is_complete(at(14_000)), "another writer");
        save.closed(at(14_000));
        assert!(save.is_complete(at(16_000)));
    }

    /// Returns what a file lacks that takes the place of another.
    fn lacks(old: &str, new: &str) -> Option<String> {
        let policy = |text: &str| {
            let text: &'static str = format!("[upstream]\nurl = \"3000\"\n{text}").leak();
            let source = Source { embedded: Some(("a.toml", text)), ..Source::default() };
            config::load(&source, &Environment::default()).unwrap()
        };
        dropped(&policy(old), &policy(new))
    }

    #[test]
    fn version_that_drops_a_guard_is_told() {
        const DENY: &str = "[[routes]]\nmatch = \"* /admin/**\"\ndeny = 404\n";
        const ALLOW: &str = "[[routes]]\nmatch = \"* /admin/**\"\nallow = [\"10.0.0.0/8\"]\n";
        const OTHER: &str = "[[routes]]\nmatch = \"GET /a\"\ntimeout = \"1s\"\n";
        const TIER: &str =
            "[rate_limit.tiers.free.limits]\na = { rate = \"1/s\" }\nb = { rate = \"9/min\" }\n";
        let (one, pro) = (TIER.split_once("b =").unwrap().0, TIER.replace("free", "pro"));
        let limited = format!("{OTHER}concurrency = 2\n{TIER}");
        let many: String =
            (0..5).map(|at| format!("[[routes]]\nmatch = \"GET /{at}\"\ntimeout = \"1s\"\n")).collect();
        let two: String = many.split_inclusive("\"1s\"\n").take(2).collect();
        let three: String = many.split_inclusive("\"1s\"\n").take(3).collect();
        for (old, new, wanted) in [
            (DENY, OTHER, Some("the deny of /admin/** is gone")),
            (DENY, &format!("{OTHER}{DENY}"), None),
            (DENY, "[[routes]]\nmatch = \"* /admin/**\"\ndeny = 410\n", None),
            (
                ALLOW,
                "[[routes]]\nmatch = \"* /admin/**\"\ntimeout = \"1s\"\n",
                Some("the allow of /admin/** is gone"),
            ),
            (ALLOW, DENY, None),
            (&many, &two, Some("2 of 5 routes are left")),
            (&many, &three, None),
            (TIER, "", Some("no limit is applied any more")),
            (TIER, one, Some("the limit b of tier free is gone")),
            (TIER, &format!("{TIER}{pro}"), None),
            (&format!("{TIER}{pro}"), TIER, Some("the tier pro is gone")),
            (&limited, &format!("{OTHER}{TIER}"), Some("limits of /a are gone")),
            (OTHER, OTHER, None),
        ] {
            assert_eq!(lacks(old, new).as_deref(), wanted, "{old}\nbecomes\n{new}");
        }
    }
}
