//! `[redis]`: the fleet that the process belongs to.

use crate::cache::invalidation::OnLost;
use crate::limit::shared;
use crate::redis::settings::Settings;
use crate::rendering::secret::Secret;

/// The fleet of a process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FleetPolicy {
    pub settings: Settings,
    /// The settings of limits that the processes count together; `None`: each counts by itself.
    pub limits: Option<shared::Settings>,
    /// The use of stored responses while the log cannot be read.
    pub on_lost: OnLost,
    /// The secrets that seal all that is in Redis: the first seals, all open.
    pub hash_keys: Vec<Secret<String>>,
}
