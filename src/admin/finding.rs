//! The finding of one health check.

use serde::Serialize;

use crate::rendering::words::words;

words! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
    #[serde(rename_all = "lowercase")]
    pub(crate) enum State {
        Healthy => "healthy",
        /// The component works, but an operator should look at it.
        Degraded => "degraded",
        Unhealthy => "unhealthy",
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub status: State,
    pub detail: String,
}
