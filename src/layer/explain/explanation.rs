//! The explanation of one request, line by line, and the questions to a running Pillion that go with it.

use crate::cache::key::{self, Partition};
use crate::policy::Policy;

/// The explanation, with the values that a running Pillion can be asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explanation {
    /// The parts of the text, each with a name and one or more lines.
    pub parts: Vec<(&'static str, Vec<String>)>,
    /// The caller, if limits apply to it.
    pub caller: Option<AskedAs>,
    /// The limits that apply, by tier and name.
    pub limits: Vec<(String, String)>,
    /// Number of quota units that the request costs.
    pub cost: u32,
    /// Whether the limits reject its API key.
    pub rejected: bool,
    /// Whether a limit on concurrent requests applies too.
    pub concurrency: bool,
    /// The cache key of the response; `None` if the request bypasses the cache.
    pub stored: Option<StoredView>,
}

/// The cache key of a response, in the form of cache lookups.
#[derive(Clone, Debug)]
pub(crate) struct StoredView {
    /// Whether the client uses https.
    pub https: bool,
    pub host: String,
    /// The host that a trusted proxy reported beside `host`.
    pub told_host: Option<String>,
    pub target: String,
    pub upstream: String,
    /// The audience of the stored response.
    pub whose: Whose,
}

/// The audience of the stored responses that a request may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Responses that are for everyone.
    All,
    /// Responses of one principal, with the hash that lookups and the access log show.
    Principal(String),
    /// Responses of one principal whose hash differs in each process.
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

/// The name under which a running Pillion knows a caller.
#[derive(Clone, Debug)]
pub(crate) enum AskedAs {
    /// A name in the key file, an address, or a partition key that is the same in all processes.
    Key(String),
    /// None, because the partition key differs in each process.
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
