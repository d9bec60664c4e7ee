//! Finds the tags and paths that a rehearsed request invalidates: those that the rules and the response name, as far as
//! the invalidation clock has stamped them.

use http::header;

use super::course::StandInResponse;
use crate::cache::Cache;
use crate::cache::invalidation::FetchEpoch;
use crate::cache::invalidation::key::InvalidationKey;
use crate::cache::invalidation::live_paths::WatchedPaths;
use crate::fields::structured;
use crate::layer::cache::GROUP_INVALIDATION;
use crate::layer::explain::facts::{Facts, Forwarded, RuleFacts};
use crate::policy::login_redirect::same_origin;
use crate::runtime::clock;

/// The mark of a tag or path of which only the sender's copies are invalidated.
const OF_PRINCIPAL: &str = " of the principal";
/// The name of all stored responses of the sender.
const ALL_OF_PRINCIPAL: &str = "everything of the principal";

/// The tags and paths that a request may invalidate, watched from before it is sent.
pub(super) struct Candidates {
    /// The names and the keys of each.
    named: Vec<(String, Vec<InvalidationKey>)>,
    begun: FetchEpoch,
    _watched: WatchedPaths,
}

impl Candidates {
    /// Watches the candidates of a request.
    pub(super) fn new(facts: &Facts, response: &StandInResponse, cache: &Cache) -> Candidates {
        let mut named = Vec::new();
        if let Some(forwarded) = facts.forwarded() {
            of_target(&mut named, facts, forwarded, cache);
            of_response(&mut named, facts, response, cache);
            let rules = forwarded.invalidation.iter().flat_map(|found| &found.rules);
            rules.for_each(|rule| of_rule(&mut named, rule, forwarded, cache));
            let credentials = credentials(forwarded);
            let keys = credentials.map(|hash| cache.invalidation.key_hasher.credential(hash)).collect();
            named.push((ALL_OF_PRINCIPAL.to_owned(), keys));
        }
        named.sort_by(|(one, _), (other, _)| one.cmp(other));
        named.dedup_by(|(later, _), (first, _)| later == first);
        let keys: Vec<InvalidationKey> = named.iter().flat_map(|(_, keys)| keys).copied().collect();
        let watched = cache.invalidation.watch(&keys);
        let begun = cache.invalidation.begin(&watched, clock::now());
        Candidates { named, begun, _watched: watched }
    }

    /// Returns the names of those that were invalidated since.
    pub(super) fn invalidated(self, cache: &Cache) -> Vec<String> {
        let Candidates { named, begun, .. } = self;
        let is_stamped = |keys: &[InvalidationKey]| cache.invalidation.is_stamped_since(keys, begun);
        named.into_iter().filter(|(_, keys)| is_stamped(keys)).map(|(name, _)| name).collect()
    }
}

type Named = Vec<(String, Vec<InvalidationKey>)>;

/// Adds the path of the request: as the client sent it, and as a rewrite made it. The tree below it, and the
/// destination, are those of WebDAV (RFC 4918 9). The readings of lenient upstreams are not told.
fn of_target(named: &mut Named, facts: &Facts, forwarded: &Forwarded, cache: &Cache) {
    let key_hasher = cache.invalidation.key_hasher;
    let sent = facts.path.as_ref().map(|path| &path.normal);
    let rewritten = forwarded.invalidation.as_ref().map(|found| &found.path);
    let paths = sent.into_iter().chain(rewritten).chain(&forwarded.destination);
    for path in paths {
        named.push((path.clone(), vec![key_hasher.path(path)]));
        named.push((format!("{path}/**"), vec![key_hasher.prefix(path)]));
    }
}

/// Adds the paths and groups that the response names (RFC 9111 4.4, RFC 9875 3).
fn of_response(named: &mut Named, facts: &Facts, response: &StandInResponse, cache: &Cache) {
    let key_hasher = cache.invalidation.key_hasher;
    let Some(forwarded) = facts.forwarded() else { return };
    let (host, fields) = (forwarded.host.as_str(), &response.fields);
    let target = forwarded.invalidation.as_ref().map_or("/", |found| &found.path);
    let references = [header::LOCATION, header::CONTENT_LOCATION].map(|name| fields.get(name));
    let references = references.into_iter().flatten().filter_map(|reference| reference.to_str().ok());
    for path in references.filter_map(|reference| same_origin(reference, target, host)) {
        named.push((path.clone(), vec![key_hasher.path(&path)]));
    }
    for group in structured::strings(fields, &GROUP_INVALIDATION).unwrap_or_default() {
        named.push((format!("group {group:?}"), vec![key_hasher.group(host.as_bytes(), &group)]));
    }
}

fn of_rule(named: &mut Named, rule: &RuleFacts, forwarded: &Forwarded, cache: &Cache) {
    let key_hasher = cache.invalidation.key_hasher;
    let tags = rule.tags.iter().map(|tag| (tag.clone(), key_hasher.tag(tag)));
    let paths = rule.paths.iter().map(|(path, below)| match below {
        true => (format!("{path}/**"), key_hasher.prefix(path)),
        false => (path.clone(), key_hasher.path(path)),
    });
    for (name, key) in tags.chain(paths) {
        named.push(match rule.of_principal {
            false => (name, vec![key]),
            true => {
                let keys = credentials(forwarded).map(|hash| key_hasher.of_credential(hash, key));
                (format!("{name}{OF_PRINCIPAL}"), keys.collect())
            }
        });
    }
}

/// Returns the hashes of the sender's credentials.
fn credentials(forwarded: &Forwarded) -> impl Iterator<Item = &[u8; 32]> {
    forwarded.principal.iter().flat_map(|principal| &principal.credentials)
}
