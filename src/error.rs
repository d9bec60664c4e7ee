//! The vocabulary of failure: whose fault it is. The causes themselves are small types in the rooms
//! that know them; `layer/rescue.rs` alone turns them into statuses.

use std::error::Error;

/// An error of any room on its way up the stack.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Who has to change something for the failure to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client sent what it should not have, or left.
    Client,
    /// The app behind us failed or was silent.
    Upstream,
    /// Pillion refused or failed by itself.
    Pillion,
}

impl Fault {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Client => "client",
            Fault::Upstream => "upstream",
            Fault::Pillion => "pillion",
        }
    }
}
