//! `[compression]`.

use crate::represent::coding::{Coding, Effort};
use crate::represent::media::MediaPattern;

/// `[compression]`. Whether a request's answer may be coded is its route's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompressionPolicy {
    /// The codings made, the most liked first.
    pub codings: Vec<Coding>,
    /// Less content than this is not worth it; bytes.
    pub min_size: u64,
    pub types: Vec<MediaPattern>,
    pub effort: Effort,
    /// Whether the app is asked for its content as it is, and not for what the client takes.
    pub ask_identity: bool,
    /// Whether answers that set a cookie and echo the request are left as they are.
    pub breach_guard: bool,
}
