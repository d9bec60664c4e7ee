//! `[etag]`.

/// Settings of the table `[etag]`. The route decides whether a response gets an entity tag at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EtagPolicy {
    /// Maximum bytes of content that gets an entity tag.
    pub max_size: u64,
}
