//! `[redis]`: the fleet that the process belongs to.

use crate::cache::invalidation::OnLost;
use crate::redis::settings::Settings;
use crate::rendering::secret::Secret;

/// The fleet of a process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FleetPolicy {
    pub settings: Settings,
    /// The use of stored responses while the log cannot be read.
    pub on_lost: OnLost,
    /// The secrets that seal all that is in Redis: the first seals, all open.
    pub hash_keys: Vec<Secret<String>>,
}
