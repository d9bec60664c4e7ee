//! The admin side's handle on the process, and the commands that it passes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::monitor::Monitor;
use crate::state::live_policy::{LivePolicy, SharedState};

/// Commands that an operator can send to the process.
pub(crate) enum Command {
    /// Reload the configuration; the sender takes the outcome.
    Reload(oneshot::Sender<Result<String, String>>),
    /// Tell the effective settings.
    Settings {
        as_json: bool,
        /// Takes the document, or why there is none.
        reply: oneshot::Sender<Result<String, String>>,
    },
    /// Compare the configuration in force with another one by its marks.
    Compare {
        marks: String,
        /// Takes the document, or what is wrong with the marks.
        reply: oneshot::Sender<Result<String, String>>,
    },
    /// Start draining: `/ready` responds 503 and every response announces that its connection closes.
    Drain,
    Quit,
}

/// The state of the process that the admin side reads and acts on.
#[derive(Clone)]
pub(crate) struct Control {
    pub live: LivePolicy,
    pub shared_state: SharedState,
    /// The confirmed state of each check, and since when it holds.
    pub monitor: Arc<Monitor>,
    /// Number of open event streams of the admin page.
    pub watchers: Arc<AtomicUsize>,
    /// Set once the process has started to drain.
    pub leaving: Arc<AtomicBool>,
    /// Commands to the main task of the process.
    pub commands: mpsc::UnboundedSender<Command>,
}

impl Control {
    /// Returns whether the process has started to drain.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }
}
