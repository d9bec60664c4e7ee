//! What becomes of request fields with underscores in their names, which many apps take for hyphens.

/// `server.underscores`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Underscores {
    /// What some apps take for a field that means something is dropped.
    Twins,
    Drop,
    Pass,
}
