//! Updates of a stored response by a 304 or a response to HEAD (RFC 9111 4.3.4, 4.3.5, 3.2).

use http::{HeaderMap, header};

use crate::fields::cache_status::X_CACHE;
use crate::fields::entity_tag::EntityTag;
use crate::fields::{cookie, date};

/// Returns whether a 304 is about another response than the stored one (RFC 9111 4.3.4).
pub(crate) fn is_about_other(stored: &HeaderMap, brought: &HeaderMap) -> bool {
    let tag = match (EntityTag::from_headers(stored), EntityTag::from_headers(brought)) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(ours), Some(theirs)) => !ours.weak_eq(&theirs) || (ours.weak && !theirs.weak),
    };
    let modified = (stored.get(header::LAST_MODIFIED), brought.get(header::LAST_MODIFIED));
    tag || matches!(modified, (Some(ours), Some(theirs)) if !date::is_same(ours, theirs))
}

/// Replaces stored fields by those of a 304, except for fields about the content (RFC 9111 3.2).
pub(crate) fn update(stored: &mut HeaderMap, brought: &HeaderMap) {
    static CONTENT: [http::HeaderName; 4] =
        [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE, header::TRANSFER_ENCODING];
    let is_kept = |name: &http::HeaderName| {
        CONTENT.contains(name) || cookie::SETTING.contains(name) || *name == X_CACHE
    };
    for name in brought.keys().filter(|name| !is_kept(name)) {
        stored.remove(name);
        for value in brought.get_all(name) {
            stored.append(name.clone(), value.clone());
        }
    }
}
