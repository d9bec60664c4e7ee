//! `[etag]`.

/// `[etag]`. Whether a request's answer gets a tag is its route's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EtagPolicy {
    /// The longest content that gets one; bytes.
    pub max_size: u64,
}
