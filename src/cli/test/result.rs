//! The results of test cases.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::cases::Key;
use crate::layer::rehearsal::course::Rehearsal;
use crate::policy::notice::Place;
use crate::state::live_policy::Snapshot;

/// The results of one file.
pub(super) struct FileResult {
    pub file: PathBuf,
    /// The configuration that was tested.
    pub config: PathBuf,
    pub cases: Vec<CaseResult>,
}

/// The result of one case.
pub(super) struct CaseResult {
    pub name: String,
    pub line: usize,
    pub failures: Vec<Failure>,
}

/// A case that was run.
pub(super) struct Rehearsed {
    pub rehearsal: Rehearsal,
    pub snapshot: Arc<Snapshot>,
}

/// An expectation that was not met.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub key: Key,
    pub place: Place,
    pub expected: String,
    pub got: String,
    /// The reasons, as `pillion explain` gives them.
    pub because: Vec<String>,
}
