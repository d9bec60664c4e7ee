//! `[redis]`: the fleet that the process belongs to.

use std::time::Duration;

use crate::cache::invalidation::OnLost;
use crate::cache::outgoing;
use crate::limit::shared;
use crate::redis::settings::Settings;
use crate::rendering::secret::Secret;

/// The stored responses that the processes of a fleet share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copies {
    /// Those that all users share.
    Shared,
    /// Also those of which each principal has its own copy.
    All,
    Off,
}

/// The name of the cookie, and of the field, by which a client carries what it wrote.
pub(crate) const WRITTEN: &str = "pillion-written";

/// How clients carry what they wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Cookie,
    /// A response field, which the client sends back as a request field.
    Field,
}

/// How stored responses are shared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CopiesPolicy {
    /// Which are sent.
    pub outgoing: outgoing::Settings,
    /// Where they are, if it is not where the log is.
    pub elsewhere: Option<Settings>,
    /// How long a request waits for one.
    pub timeout: Duration,
}

/// The fleet of a process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FleetPolicy {
    pub settings: Settings,
    /// The settings of limits that the processes count together; `None`: each counts by itself.
    pub limits: Option<shared::Settings>,
    /// How clients carry what they wrote; `None`: they do not.
    pub own_writes: Option<Carrier>,
    /// How stored responses are shared; `None`: they are not.
    pub copies: Option<CopiesPolicy>,
    /// The use of stored responses while the log cannot be read.
    pub on_lost: OnLost,
    /// The secrets that seal all that is in Redis: the first seals, all open.
    pub hash_keys: Vec<Secret<String>>,
}
