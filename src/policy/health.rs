//! The table `[health]`: checks, requirements for readiness, and the webhook for changes.

use http::uri::PathAndQuery;

use super::upstream::UpstreamPolicy;
use crate::rendering::secret::Secret;
use crate::rendering::words::words;

words! {
    /// A health check of Pillion or its surroundings.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub(crate) enum Check {
        Upstream => "upstream",
        Memory => "memory",
        Certificate => "certificate",
        FileDescriptors => "file_descriptors",
        /// Free space on the disks of log files.
        Disk => "disk",
        /// Time of the last heartbeat of every worker.
        Workers => "workers",
        /// The links to Redis, where there is one.
        Redis => "redis",
    }
}

/// A requirement for readiness, listed in `health.ready_requires`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// A check other than [`Check::Upstream`] must not be unhealthy.
    Check(Check),
    /// Some address of the upstream at this index must have responded and be reachable.
    Upstream(usize),
    /// Some address of the `url` of `[upstream]`, which takes writes, must have responded and be reachable.
    Primary,
}

impl Requirement {
    /// Returns the check that reports this requirement.
    pub(crate) fn check(self) -> Check {
        match self {
            Requirement::Check(check) => check,
            Requirement::Upstream(_) | Requirement::Primary => Check::Upstream,
        }
    }
}

/// The addresses of an upstream whose first response readiness waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Nothing,
    /// Any address of the upstream.
    AnyAddress,
    /// Any address of the upstream's `url`.
    Primary,
}

/// `[health]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HealthPolicy {
    /// Requirements for readiness. While one is not met, `/ready` responds 503.
    pub ready_requires: Vec<Requirement>,
    /// The memory limit in bytes; `None` if no limit is known.
    pub memory_limit: Option<u64>,
    /// The fraction of a limit at which a check is degraded.
    pub degraded_at: f64,
    /// The webhook that is notified when a check changes state.
    pub webhook: Option<Webhook>,
}

impl HealthPolicy {
    /// Returns whether readiness depends on a check.
    pub(crate) fn requires(&self, check: Check) -> bool {
        self.ready_requires.iter().any(|requirement| requirement.check() == check)
    }

    /// Returns the addresses of the upstream at `index` that readiness waits for.
    pub(crate) fn awaits(&self, index: usize) -> Awaited {
        let requires = |requirement| self.ready_requires.contains(&requirement);
        // Waiting for the primary includes waiting for any address.
        if index == 0 && requires(Requirement::Primary) {
            Awaited::Primary
        } else if requires(Requirement::Upstream(index)) {
            Awaited::AnyAddress
        } else {
            Awaited::Nothing
        }
    }
}

/// Settings of `health.webhook`: its URL and signing secret.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Webhook {
    pub upstream: UpstreamPolicy,
    pub target: PathAndQuery,
    pub secret: Option<Secret<String>>,
}
