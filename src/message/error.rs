//! The vocabulary of failure: whose fault it is. Each module defines small error types; only `layer/rescue.rs`
//! turns them into statuses.

use std::error::Error;

use crate::rendering::words::words;

/// An error of any module on its way up the stack.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

words! {
    /// The party that has to change something for the failure to go away.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Fault {
        /// The client sent something invalid, or disconnected.
        Client => "client",
        /// The upstream failed or was silent.
        Upstream => "upstream",
        /// Pillion refused the request or failed by itself.
        Pillion => "pillion",
    }
}
