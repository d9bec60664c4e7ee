//! Which processes of a fleet may have a stored response.

/// Whether other processes may have a stored response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Circulation {
    /// It stays in this process.
    #[default]
    Own,
    /// It is to be sent to the others.
    Shared,
    /// It came from another process.
    Received,
}
