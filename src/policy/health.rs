//! `[health]`: checks, what readiness requires of them, and who is told of changes.

use http::uri::PathAndQuery;

use super::upstream::UpstreamPolicy;
use crate::rendering::secret::Secret;
use crate::rendering::words::words;

words! {
    /// What makes a replica of Pillion not ready.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub(crate) enum Check {
        Upstream => "upstream",
        Memory => "memory",
        Certificate => "certificate",
        FileDescriptors => "file_descriptors",
        /// Room on the disks that logs go to.
        Disk => "disk",
        /// A sign of life of every worker.
        Workers => "workers",
    }
}

/// One of `health.ready_requires`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// A check, other than [`Check::Upstream`], is not unhealthy.
    Check(Check),
    /// One address of the upstream at this index has answered, and can be reached.
    Upstream(usize),
    /// One address of the `url` of `[upstream]`, which takes writes, has answered, and can be reached.
    Primary,
}

impl Requirement {
    /// The check that tells of it.
    pub(crate) fn check(self) -> Check {
        match self {
            Requirement::Check(check) => check,
            Requirement::Upstream(_) | Requirement::Primary => Check::Upstream,
        }
    }
}

/// The addresses of an upstream whose first answer readiness waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Nothing,
    /// One of all its addresses.
    AnyAddress,
    /// One of its `url`.
    Primary,
}

/// `[health]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HealthPolicy {
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
    pub(crate) fn requires(&self, check: Check) -> bool {
        self.ready_requires.iter().any(|requirement| requirement.check() == check)
    }

    /// What readiness waits for of the upstream at `index`.
    pub(crate) fn awaits(&self, index: usize) -> Awaited {
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
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Webhook {
    pub upstream: UpstreamPolicy,
    pub target: PathAndQuery,
    pub secret: Option<Secret<String>>,
}
