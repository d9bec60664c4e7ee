//! The vocabulary of failure: whose fault it is. The causes themselves are small types in the rooms
//! that know them; `layer/rescue.rs` alone turns them into statuses.

use std::error::Error;

use crate::rendering::words::words;

/// An error of any room on its way up the stack.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

words! {
    /// Who has to change something for the failure to go away.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Fault {
        /// The client sent what it should not have, or left.
        Client => "client",
        /// The app behind us failed or was silent.
        Upstream => "upstream",
        /// Pillion refused or failed by itself.
        Pillion => "pillion",
    }
}
