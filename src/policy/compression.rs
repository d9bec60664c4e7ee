//! `[compression]`.

use crate::represent::coding::{Coding, Effort};
use crate::represent::media::MediaPattern;

/// Settings of the table `[compression]`. The route decides whether a response may be compressed at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompressionPolicy {
    /// The codings to offer, most preferred first.
    pub codings: Vec<Coding>,
    /// Minimum bytes of content that is compressed.
    pub min_size: u64,
    pub types: Vec<MediaPattern>,
    pub effort: Effort,
    /// Whether the upstream is asked for content without a coding, instead of the codings that the client accepts.
    pub ask_identity: bool,
    /// Whether responses that set a cookie and echo the request stay uncompressed.
    pub breach_guard: bool,
}
