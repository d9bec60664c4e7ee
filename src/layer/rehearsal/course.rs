//! The course of a rehearsed request: the response that stands in for the upstream's, and all that came of it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};

use crate::cache::selecting_fields::SelectingFields;
use crate::cache::settings::CacheSettings;
use crate::cache::variant::Variant;
use crate::layer::explain::facts::Facts;

/// The word for a response that is stored.
pub(crate) const STORED: &str = "stored";
/// The word for a request that the cache does not handle, and for content to which no coding applies.
pub(crate) const NONE: &str = "none";
/// The word for content on a route without compression.
pub(crate) const OFF: &str = "off";

/// A response that stands in for an upstream's.
#[derive(Clone, Debug)]
pub(crate) struct StandInResponse {
    pub status: StatusCode,
    pub fields: HeaderMap,
    pub content: Bytes,
}

impl Default for StandInResponse {
    /// Creates an empty response with status 200.
    fn default() -> StandInResponse {
        StandInResponse { status: StatusCode::OK, fields: HeaderMap::new(), content: Bytes::new() }
    }
}

/// A request as its upstream gets it.
#[derive(Clone, Debug)]
pub(crate) struct SentRequest {
    pub upstream: String,
    /// Path and query.
    pub target: String,
    pub fields: HeaderMap,
}

/// A response in the cache.
#[derive(Clone, Debug)]
pub(crate) struct StoredFacts {
    /// Freshness lifetime.
    pub lifetime: Duration,
    pub tags: Vec<String>,
    pub(super) variant: Variant,
}

/// The course of a rehearsed request.
#[derive(Clone, Debug)]
pub(crate) struct Rehearsal {
    pub facts: Facts,
    /// The status of the response that the client gets.
    pub status: StatusCode,
    /// The fields of that response.
    pub fields: HeaderMap,
    /// The reason, if Pillion responds with an error.
    pub error: Option<String>,
    /// The request to the upstream; `None` if it got none.
    pub sent: Option<SentRequest>,
    /// One word for the outcome of the cache: how it served the request, that the response is stored, or the reason
    /// why not, as in the log.
    pub cache: &'static str,
    /// The stored response for the request.
    pub stored: Option<StoredFacts>,
    /// The tags and paths that were invalidated.
    pub invalidated: Vec<String>,
    /// The coding of the content, or the reason why it has none.
    pub coding: &'static str,
}

impl Rehearsal {
    /// Returns whether two requests share one stored response: their cache keys are equal, and so are the fields that
    /// their stored responses vary with.
    pub(crate) fn shares_with(&self, other: &Rehearsal, settings: &CacheSettings) -> bool {
        let (Some(one), Some(two)) = (self.facts.read(), other.facts.read()) else { return false };
        let fits = |stored: &Option<StoredFacts>, fields: &HeaderMap, fragments: &[HeaderName]| {
            let selecting =
                SelectingFields { fragments, ..SelectingFields::new(fields, &settings.ignore_cookies) };
            stored.as_ref().is_none_or(|stored| stored.variant.fits(selecting))
        };
        one.key == two.key
            && fits(&self.stored, &two.fields, &two.fragments)
            && fits(&other.stored, &one.fields, &one.fragments)
    }
}
