//! Conditions of requests to the upstream: those of clients are taken off, those of stored validators are written.

use http::{HeaderMap, header};

use crate::cache::store::stored::StoredResponse;
use crate::fields::entity_tag::EntityTag;

/// The conditions a fetch that may be stored goes without; what they ask is answered from what it brings.
pub(super) static CONDITIONS: [http::HeaderName; 5] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

/// Writes the validators of something stored as conditions. What an invalidation has taken away may still be
/// what the app has, but only its own strong tag says so.
pub(super) fn validators(stored: &StoredResponse, gone: bool, headers: &mut HeaderMap) -> bool {
    let fields = &stored.head.fields;
    let tag = EntityTag::from_headers(fields);
    if let Some(tag) = tag
        && !(gone && tag.weak)
    {
        headers.insert(header::IF_NONE_MATCH, tag.to_value());
        if let (false, Some(modified)) = (gone, fields.get(header::LAST_MODIFIED)) {
            headers.insert(header::IF_MODIFIED_SINCE, modified.clone());
        }
        return true;
    }
    match fields.get(header::LAST_MODIFIED) {
        Some(modified) if !gone => {
            headers.insert(header::IF_MODIFIED_SINCE, modified.clone());
            true
        }
        _ => false,
    }
}

pub(super) fn has_validator(stored: &StoredResponse, gone: bool) -> bool {
    validators(stored, gone, &mut HeaderMap::new())
}
