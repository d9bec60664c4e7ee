//! The changes from one configuration to another, setting by setting: routes are told apart by what they match, further
//! upstreams, tiers and limits by their names.

mod listing;
mod marks;
mod order;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use serde::Serialize;
use serde_json::Value as Json;

pub(crate) use self::listing::Listing;
use self::listing::{Item, Named};
pub(crate) use self::marks::{Compared, Differing, Marks};
use super::address;
use super::key_list::declared_keys;

/// Keys whose values are addresses to listen on.
const LISTENERS: [&str; 4] = ["server.listen", "server.tls.listen", "server.admin", "server.probes"];

/// The subject of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    /// A setting outside of arrays of tables, or a file.
    File,
    /// A route, by what it matches.
    Route(String),
    /// A rule of `[[invalidate]]`, by its `on`.
    Invalidate(String),
    /// One of `[[warm]]`, by its paths.
    Warm(String),
    /// Requests that match no route.
    Unmatched,
}

/// The kind of a change.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The route or rule is new, with the settings that are written.
    Added {
        settings: BTreeMap<String, Json>,
    },
    Removed,
    /// It stands elsewhere among the others; places count from 1.
    Moved {
        from: usize,
        to: usize,
    },
    /// A setting has another value; `None`: it is not set.
    Set {
        setting: String,
        old: Option<Json>,
        new: Option<Json>,
    },
    /// A secret has another value, which is not shown.
    Secret {
        setting: String,
    },
    /// A file that the configuration names has other content, or is not read any more, or was not read before.
    Content {
        file: String,
    },
    /// The settings of the route are the same, and its responses are stored under other rules.
    Rules,
}

/// An effect of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    /// A reload refuses the file; the change needs a restart.
    Restart,
    /// Stored responses of the route are not found any more.
    Unreachable,
    /// Each client of the limit begins with a full burst.
    LimitRestarts,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Change {
    pub subject: Subject,
    #[serde(flatten)]
    pub kind: Kind,
    pub effects: Vec<Effect>,
}

/// The routes and rules that are in both configurations: pairs of their places, counted from 0.
#[derive(Debug)]
pub(crate) struct Pairing {
    routes: Vec<(usize, usize)>,
    invalidate: Vec<(usize, usize)>,
    /// Nothing tells these apart, so they are compared in their order.
    warm: Vec<(usize, usize)>,
    /// The places of requests that match no route.
    unmatched: (usize, usize),
}

impl Pairing {
    pub(crate) fn new(old: &Listing, new: &Listing) -> Pairing {
        let identities = |items: &[Item<'_>]| items.iter().map(Item::identity).collect::<Vec<_>>();
        let (before, after) = (old.items("routes"), new.items("routes"));
        let rules = |listing: &Listing| identities(&listing.items("invalidate"));
        Pairing {
            routes: order::pairs(&identities(&before), &identities(&after)),
            invalidate: order::pairs(&rules(old), &rules(new)),
            warm: (0..old.items("warm").len().min(new.items("warm").len())).map(|at| (at, at)).collect(),
            unmatched: (before.len(), after.len()),
        }
    }

    /// The pairs of places whose rules are compared.
    fn of_rules(&self) -> impl Iterator<Item = (usize, usize)> {
        self.routes.iter().copied().chain([self.unmatched])
    }

    /// The places in the old configuration by those in the new one.
    fn old_places(&self) -> HashMap<usize, usize> {
        self.routes.iter().map(|(old, new)| (*new, *old)).collect()
    }
}

/// Lists the changes from `old` to `new`; `differing` is the answer of the marks.
pub(crate) fn changes(old: &Listing, new: &Listing, pairing: &Pairing, differing: &Differing) -> Vec<Change> {
    let restarts = declared_keys().into_iter().filter(|key| key.restart).map(|key| key.path).collect();
    let mut lister = Lister { restarts, differing, changes: Vec::new() };
    lister.settings(&Subject::File, "", &old.outside(), &new.outside());
    lister.content();
    lister.array("routes", old, new, &pairing.routes, Subject::Route);
    lister.unmatched(pairing.unmatched.0);
    lister.array("invalidate", old, new, &pairing.invalidate, Subject::Invalidate);
    lister.array("warm", old, new, &pairing.warm, Subject::Warm);
    lister.changes
}

struct Lister<'a> {
    /// The full names of keys whose change needs a restart.
    restarts: BTreeSet<String>,
    differing: &'a Differing,
    changes: Vec<Change>,
}

impl Lister<'_> {
    fn note(&mut self, subject: &Subject, kind: Kind, effects: Vec<Effect>) {
        self.changes.push(Change { subject: subject.clone(), kind, effects });
    }

    /// Compares the settings of one table, whose full names begin with `full` in the old file.
    fn settings(&mut self, subject: &Subject, full: &str, old: &Named<'_>, new: &Named<'_>) {
        let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
        let has_redis = old.contains_key("redis.url") && new.contains_key("redis.url");
        for name in names {
            let (before, after) = (old.get(name), new.get(name));
            if before.is_some_and(|before| before.is_overridden()) {
                continue;
            }
            let is_secret = before.zip(after).is_some_and(|(before, after)| before.secret && after.secret);
            let other_secret = || self.differing.secrets.iter().any(|key| *key == format!("{full}{name}"));
            let value = |listed: Option<&&listing::Listed>| listed.map(|listed| listed.value.clone());
            let (was, is) = (value(before), value(after));
            let kind = if was != is && !is_same_listeners(name, was.as_ref(), is.as_ref()) {
                // A table that is there or not has its defaults with it.
                if before.or(after).is_some_and(|listed| listed.is_default())
                    && (was.is_none() || is.is_none())
                {
                    continue;
                }
                Kind::Set { setting: name.to_owned(), old: was, new: is }
            } else if is_secret && other_secret() {
                Kind::Secret { setting: name.to_owned() }
            } else {
                continue;
            };
            let mut effects = Vec::new();
            // The key seals what is in Redis.
            let seals = has_redis && name == "identity.hash_key";
            if seals || *subject == Subject::File && self.restarts.contains(name) {
                effects.push(Effect::Restart);
            }
            if is_of_limit(name) && matches!(&kind, Kind::Set { old: Some(_), new: Some(_), .. }) {
                effects.push(Effect::LimitRestarts);
            }
            self.note(subject, kind, effects);
        }
    }

    fn content(&mut self) {
        for file in &self.differing.files {
            let change = Change {
                subject: Subject::File,
                kind: Kind::Content { file: file.clone() },
                effects: Vec::new(),
            };
            self.changes.push(change);
        }
    }

    fn array(
        &mut self,
        array: &str,
        old: &Listing,
        new: &Listing,
        pairs: &[(usize, usize)],
        subject: fn(String) -> Subject,
    ) {
        let is_routes = array == "routes";
        let (before, after) = (old.items(array), new.items(array));
        let moved: HashSet<(usize, usize)> = order::moved(pairs).into_iter().collect();
        let stay: HashSet<usize> = pairs.iter().map(|(old, _)| *old).collect();
        let places: HashMap<usize, usize> = pairs.iter().map(|(old, new)| (*new, *old)).collect();
        let other_rules: HashSet<usize> = self.differing.routes.iter().copied().collect();
        for (at, item) in before.iter().enumerate() {
            if !stay.contains(&at) {
                let effects = if is_routes { vec![Effect::Unreachable] } else { Vec::new() };
                self.note(&subject(item.name()), Kind::Removed, effects);
            }
        }
        for (at, item) in after.iter().enumerate() {
            let subject = subject(item.name());
            let Some(place) = places.get(&at) else {
                self.note(&subject, Kind::Added { settings: item.written() }, Vec::new());
                continue;
            };
            let first = self.changes.len();
            if moved.contains(&(*place, at)) {
                self.note(&subject, Kind::Moved { from: place + 1, to: at + 1 }, Vec::new());
            }
            if let Some(old) = before.get(*place) {
                self.settings(&subject, &format!("{array}[{place}]."), &old.settings, &item.settings);
            }
            if is_routes && other_rules.contains(place) {
                if self.changes.len() == first {
                    self.note(&subject, Kind::Rules, Vec::new());
                }
                if let Some(last) = self.changes.last_mut() {
                    last.effects.push(Effect::Unreachable);
                }
            }
        }
    }

    fn unmatched(&mut self, place: usize) {
        if self.differing.routes.contains(&place) {
            self.note(&Subject::Unmatched, Kind::Rules, vec![Effect::Unreachable]);
        }
    }
}

/// Whether both values are the same addresses, written in two ways.
fn is_same_listeners(key: &str, one: Option<&Json>, other: Option<&Json>) -> bool {
    let listeners = |value: &Json| -> Option<Vec<SocketAddr>> {
        let written = match value {
            Json::Array(all) => all.iter().filter_map(Json::as_str).collect(),
            Json::String(one) => vec![one.as_str()],
            _ => return None,
        };
        Some(written.into_iter().map(address::listeners).collect::<Option<Vec<_>>>()?.concat())
    };
    let same = || Some(listeners(one?)? == listeners(other?)?);
    LISTENERS.contains(&key) && same() == Some(true)
}

/// Whether a key is a rate of a limit, whose clients are counted by it.
fn is_of_limit(key: &str) -> bool {
    key.starts_with("rate_limit.tiers.") && (key.ends_with(".rate") || key.ends_with(".burst"))
}
