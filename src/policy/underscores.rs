//! The treatment of request fields with underscores in their names, which many apps read as hyphens.

/// The value of the setting `server.underscores`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Underscores {
    /// Drops a field if some apps would read it as another field that has a meaning.
    Twins,
    Drop,
    Pass,
}
