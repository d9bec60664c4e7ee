//! The file of API keys: hashes, tiers, names, limits of their own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use super::Compiler;
use super::limits::{Known, MAX_LIMITS, MAX_TEXT_LENGTH};
use super::simple_keys;
use crate::config::diagnostic::Diagnostics;
use crate::config::file::{self, ApiKey};
use crate::config::secrecy::Level;
use crate::config::table_reader::{Spanned, nearest};
use crate::config::value;
use crate::fields::query;
use crate::identity::credential::Hasher;
use crate::limit::tier::{Limit, Tier};
use crate::policy::limits::ListedKey;

/// The keys of a file, by their hashes.
type Listed = HashMap<[u8; 32], Arc<ListedKey>>;

/// Keys of which there is a tree of values at once.
const AT_ONCE: usize = 1000;
/// Sets of limits that keys share.
const SHARED: usize = 64;

impl Compiler<'_> {
    pub(super) fn listed(
        &mut self,
        at: &Spanned<String>,
        tiers: &[Arc<Tier>],
        hasher: &Hasher,
        known: &mut Known,
    ) -> Listed {
        let mut listed = HashMap::new();
        if at.value.is_empty() {
            return listed;
        }
        let path = self.file(&at.value);
        let content = match std::fs::read_to_string(&path) {
            Ok(content) => content,
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                let help = match error.kind() {
                    std::io::ErrorKind::InvalidData => "expected text in UTF-8".to_owned(),
                    _ => self.unreadable(&path, &error, "`pillion keys add` makes it"),
                };
                self.fail(at.span.as_ref(), message, help);
                return listed;
            }
        };
        let mut names: Vec<Box<str>> = Vec::new();
        let rest = simple_keys::take(&content, |key| {
            let tier = tiers.iter().find(|known| known.name.as_str() == key.tier);
            let (Some(tier), Some(digest)) = (tier, digest(key.sha256)) else { return false };
            let fine = key.name.is_none_or(|name| !name.is_empty() && name.len() <= MAX_TEXT_LENGTH);
            // A key that is listed twice is reported at its second place.
            let Entry::Vacant(place) = listed.entry(digest) else { return false };
            if !fine {
                return false;
            }
            names.extend(key.name.map(Box::from));
            let partition = hasher.listed_key(&digest);
            let name = key.name.map(str::to_owned);
            place.insert(Arc::new(ListedKey { name, tier: tier.clone(), partition }));
            true
        });
        let rest = rest.unwrap_or_default();
        if self.read_parts(&path, &rest, (tiers, hasher), known, (&mut listed, &mut names)) {
            names.sort_unstable();
            if names.windows(2).all(|pair| pair[0] != pair[1]) {
                return listed;
            }
        }
        // Something is wrong, or somebody has a name twice: that is told by all that is known of the file.
        listed.clear();
        names.clear();
        // Its problems are shown with its own lines.
        let own = std::mem::replace(&mut self.problems, Diagnostics::new(&path, &content));
        let raw = value::parse(&content, &self.environment.variables, Level::Root, &mut self.problems)
            .map(|table| file::read_keys(&table, &mut self.problems))
            .unwrap_or_default();
        for key in &raw {
            let Some((digest, entry)) = self.listed_key(key, tiers, hasher, known) else { continue };
            if let Some(name) = &key.name {
                names.push(name.value.as_str().into());
            }
            if listed.insert(digest, Arc::new(entry)).is_some() {
                let span = key.sha256.as_ref().and_then(|at| at.span.as_ref());
                self.fail(span, "this key is listed twice", "remove one of them");
            }
        }
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let twice =
                raw.iter().rev().find(|key| key.name.as_ref().is_some_and(|at| *at.value == *pair[0]));
            let span = twice.and_then(|key| key.name.as_ref()).and_then(|at| at.span.as_ref());
            self.fail(span, format!("two keys have the name {:?}", pair[0]), "give each a name of its own");
        }
        let theirs = std::mem::replace(&mut self.problems, own);
        self.problems.include(theirs);
        listed
    }

    /// Reads keys some at a time: as one tree of values a hundred thousand of them take hundreds of megabytes. False where
    /// something is wrong: whoever reads all of it at once says what.
    fn read_parts(
        &mut self,
        path: &Path,
        content: &str,
        (tiers, hasher): (&[Arc<Tier>], &Hasher),
        known: &mut Known,
        (listed, names): (&mut Listed, &mut Vec<Box<str>>),
    ) -> bool {
        let mut shared: Vec<Arc<Tier>> = Vec::new();
        for part in simple_keys::parts(content, AT_ONCE) {
            let own = std::mem::replace(&mut self.problems, Diagnostics::new(path, part));
            let raw = value::parse(part, &self.environment.variables, Level::Root, &mut self.problems)
                .map(|table| file::read_keys(&table, &mut self.problems))
                .unwrap_or_default();
            for key in &raw {
                let Some((digest, mut entry)) = self.listed_key(key, tiers, hasher, known) else { continue };
                // Most keys with limits of their own have those of some plan.
                match shared.iter().find(|tier| **tier == entry.tier) {
                    Some(tier) => entry.tier = tier.clone(),
                    None if shared.len() < SHARED => shared.push(entry.tier.clone()),
                    None => {}
                }
                names.extend(entry.name.as_deref().map(Box::from));
                if listed.insert(digest, Arc::new(entry)).is_some() {
                    self.problems.nowhere("a key is listed twice");
                }
            }
            if !std::mem::replace(&mut self.problems, own).is_empty() {
                return false;
            }
        }
        true
    }

    fn listed_key(
        &mut self,
        key: &ApiKey,
        tiers: &[Arc<Tier>],
        hasher: &Hasher,
        known: &mut Known,
    ) -> Option<([u8; 32], ListedKey)> {
        let Some(written) = &key.sha256 else {
            self.fail(Some(&key.span), "the key has no sha256", "`pillion keys hash` makes it of a key");
            return None;
        };
        let Some(digest) = digest(&written.value) else {
            let help = "expected 64 hexadecimal digits; `pillion keys hash` makes them of a key";
            self.fail(written.span.as_ref(), "sha256 is not a SHA-256 hash", help);
            return None;
        };
        let Some(tier) = &key.tier else {
            self.fail(Some(&key.span), "the key has no tier", "tier = \"free\"");
            return None;
        };
        let names: Vec<&str> = tiers.iter().map(|tier| tier.name.as_str()).collect();
        let Some(of) = tiers.iter().find(|known| known.name.as_str() == tier.value) else {
            let help = match nearest(&tier.value, &names) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there are {}", names.join(", ")),
            };
            self.fail(tier.span.as_ref(), format!("there is no tier {:?}", tier.value), help);
            return None;
        };
        if let Some(name) = &key.name
            && (name.value.is_empty() || name.value.len() > MAX_TEXT_LENGTH)
        {
            self.fail(
                name.span.as_ref(),
                "the name is empty or too long",
                "expected a shorter name, of at least one character",
            );
        }
        let tier = match key.limits.is_empty() {
            true => of.clone(),
            false => {
                // Its own limits take the place of its tier's by the same names, and are counted with them.
                let own = self.tier_limits(&of.name, &key.limits, known);
                let theirs =
                    of.limits.iter().filter(|limit| own.iter().all(|other| other.name != limit.name));
                let limits: Vec<Limit> = theirs.cloned().chain(own.iter().cloned()).collect();
                if limits.len() > MAX_LIMITS {
                    let message = format!("a key with {} limits, those of its tier included", limits.len());
                    self.fail(Some(&key.span), message, format!("expected at most {MAX_LIMITS}"));
                }
                let upgrade = of.upgrade.clone();
                Arc::new(Tier::new(&of.name, of.rank, of.shadow, upgrade, limits, of.concurrency_series))
            }
        };
        let name = key.name.as_ref().map(|at| at.value.clone());
        Some((digest, ListedKey { name, tier, partition: hasher.listed_key(&digest) }))
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0u8; 32];
    if text.len() != 64 {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = query::octet(text.as_bytes().get(2 * at..2 * at + 2)?)?;
    }
    Some(digest)
}
