//! Errors of the cache layer, and the result that all its parts give.

use std::fmt;
use std::sync::Arc;

use http::Response;

use crate::message::body::Body;
use crate::message::error::BoxError;

/// Reasons why there is no response.
#[derive(Clone, Debug)]
pub(crate) enum CacheError {
    /// 504: the request accepts only a stored response (RFC 9111 5.2.1.7).
    OnlyIfCached,
    /// The fetch that several requests waited for failed.
    Shared(Arc<BoxError>),
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheError::OnlyIfCached => f.write_str(
                "no stored response can be used, and the request allows no other (only-if-cached)",
            ),
            CacheError::Shared(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CacheError {}

pub(super) type CacheResult = Result<Response<Body>, BoxError>;
