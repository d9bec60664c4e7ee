//! The explanation of one request, line by line, and the questions to a running Pillion that go with it.

use crate::cache::key::{self, Partition};
use crate::policy::Policy;

/// What is asked of a running Pillion beside, under the same names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explanation {
    /// Each with a name, and one line or several.
    pub parts: Vec<(&'static str, Vec<String>)>,
    /// Who its caller is to the limits, if they have any.
    pub caller: Option<AskedAs>,
    /// The limits that hold for it, by tier and name.
    pub limits: Vec<(String, String)>,
    /// As how many it counts with them.
    pub cost: u32,
    /// Whether its API key is refused.
    pub rejected: bool,
    /// Whether requests in flight are limited too.
    pub concurrency: bool,
    /// Under what an answer is stored; `None`: it passes the cache by.
    pub stored: Option<StoredView>,
}

/// The key of an answer, as lookups show it.
#[derive(Clone, Debug)]
pub(crate) struct StoredView {
    /// Whether the client comes by https.
    pub https: bool,
    pub host: String,
    /// The one that trusted proxies tell of beside it.
    pub told_host: Option<String>,
    pub target: String,
    pub upstream: String,
    /// Whose answers it may be given.
    pub whose: Whose,
}

/// Whose answers a request may be given from the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Those that are for all.
    All,
    /// Those of a principal, by the hash that lookups and the access log have.
    Principal(String),
    /// Those of a principal whose hash is another in each process.
    Unknown,
}

impl Whose {
    pub(super) fn new(principal: Option<&Partition>, policy: &Policy) -> Whose {
        match principal {
            None => Whose::All,
            Some(partition) if policy.hashes_are_shared => Whose::Principal(key::principal_hash(partition)),
            Some(_) => Whose::Unknown,
        }
    }
}

/// As what a running Pillion can be asked about a caller.
#[derive(Clone, Debug)]
pub(crate) enum AskedAs {
    /// A name of the file of keys, an address, or the partition key where all processes make the same.
    Key(String),
    /// Not at all: its partition key is another in each process.
    Unknown,
}

impl Explanation {
    pub(super) fn say(&mut self, part: &'static str, line: impl Into<String>) {
        match self.parts.last_mut() {
            Some((known, lines)) if *known == part => lines.push(line.into()),
            _ => self.parts.push((part, vec![line.into()])),
        }
    }
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (part, lines) in &self.parts {
            for (at, line) in lines.iter().enumerate() {
                writeln!(f, "{:<12} {line}", if at == 0 { part } else { "" })?;
            }
        }
        Ok(())
    }
}
