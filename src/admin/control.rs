//! The admin side's handle on the process, and the commands that it passes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::monitor::Monitor;
use crate::state::live_policy::{LivePolicy, SharedState};

/// What an operator may order.
pub(crate) enum Command {
    /// Read the configuration again; the answer says what came of it.
    Reload(oneshot::Sender<Result<String, String>>),
    /// Begin to leave: not ready, and every answer says that its connection ends.
    Drain,
    Quit,
}

/// What the admin side knows of the process.
#[derive(Clone)]
pub(crate) struct Control {
    pub live: LivePolicy,
    pub shared_state: SharedState,
    /// Since when each check is as it is.
    pub monitor: Arc<Monitor>,
    /// How many watch the page.
    pub watchers: Arc<AtomicUsize>,
    /// Set once the process began to leave.
    pub leaving: Arc<AtomicBool>,
    /// To whoever runs the process.
    pub commands: mpsc::UnboundedSender<Command>,
}

impl Control {
    /// Whether the process began to leave.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }
}
