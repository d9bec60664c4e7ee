//! Conditions of requests to the upstream: those of clients are taken off, those of stored validators are written.

use http::{HeaderMap, header};

use crate::cache::store::stored::StoredResponse;
use crate::fields::entity_tag::EntityTag;

/// Conditions that are removed from a fetch whose response may be stored; they are evaluated on its response.
pub(super) static CONDITIONS: [http::HeaderName; 5] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

/// Writes the validators of a stored response as conditions; returns false if it has none. An invalidated response may
/// still be current, but only a strong entity tag confirms that.
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
