//! `[health]`: checks, what readiness requires of them, and who is told of changes.

use http::uri::PathAndQuery;

use super::UpstreamPolicy;
use crate::words::words;

words! {
    /// What makes a replica of Pillion not ready.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Check {
        /// The apps.
        Upstream => "upstream",
        /// Resident memory.
        Memory => "memory",
        /// Certificates about to expire.
        Certificate => "certificate",
        /// Open file descriptors.
        FileDescriptors => "file_descriptors",
        /// Room on the disks that logs go to.
        Disk => "disk",
        /// A sign of life of every worker.
        Workers => "workers",
    }
}

/// One of `health.ready_requires`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// A check, other than [`Check::Upstream`], is not unhealthy.
    Check(Check),
    /// One address of the upstream at this index has answered, and can be reached.
    Upstream(usize),
    /// One address of the `url` of `[upstream]`, which takes writes, has answered, and can be reached.
    Primary,
}

impl Requirement {
    /// The check that tells of it.
    pub fn check(self) -> Check {
        match self {
            Requirement::Check(check) => check,
            Requirement::Upstream(_) | Requirement::Primary => Check::Upstream,
        }
    }
}

/// The addresses of an upstream whose first answer readiness waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// None.
    Nothing,
    /// One of all its addresses.
    AnyAddress,
    /// One of its `url`.
    Primary,
}

/// `[health]`.
#[derive(Clone, Debug)]
pub struct HealthPolicy {
    /// Conditions of /ready; without one of them it is 503.
    pub ready_requires: Vec<Requirement>,
    /// Bytes; `None` where there is no limit to be seen.
    pub memory_limit: Option<u64>,
    /// The share of a limit that degrades.
    pub degraded_at: f64,
    /// Who is told when a check changes state.
    pub webhook: Option<Webhook>,
}

impl HealthPolicy {
    /// Whether readiness depends on a check.
    pub fn requires(&self, check: Check) -> bool {
        self.ready_requires.iter().any(|requirement| requirement.check() == check)
    }

    /// What readiness waits for of the upstream at `index`.
    pub fn awaits(&self, index: usize) -> Awaited {
        let requires = |requirement| self.ready_requires.contains(&requirement);
        // The primary is one of all: where it has answered, one has.
        if index == 0 && requires(Requirement::Primary) {
            Awaited::Primary
        } else if requires(Requirement::Upstream(index)) {
            Awaited::AnyAddress
        } else {
            Awaited::Nothing
        }
    }
}

/// `health.webhook`.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Who is asked.
    pub upstream: UpstreamPolicy,
    /// For what.
    pub target: PathAndQuery,
    /// What signs.
    pub secret: Option<String>,
}
