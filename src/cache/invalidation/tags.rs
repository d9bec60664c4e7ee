//! The tags of a response: those that the app sends of its own, and the groups that it names (RFC 9875 2).

use http::{HeaderMap, HeaderName};

use super::key::{InvalidationKey, KeyHasher, MAX_TAGS};
use crate::fields::{host, list, structured};

/// The response field with the cache groups of a response (RFC 9875 2).
pub(crate) const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// The field in which Fastly and others take tags, separated by spaces.
pub(crate) const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// The field in which Cloudflare and others take tags, separated by commas.
pub(crate) const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

/// The response has more tags than are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TooManyTags;

/// Adds the tags that the upstream sent, and the cache groups it assigned.
pub(crate) fn add_response_tags(
    key_hasher: KeyHasher,
    groups: bool,
    fields: &HeaderMap,
    request: &HeaderMap,
    invalidation_keys: &mut Vec<InvalidationKey>,
    tags: &mut Vec<Box<str>>,
) -> Result<(), TooManyTags> {
    let mut add = |tag: &[u8]| {
        let tag = String::from_utf8_lossy(tag);
        invalidation_keys.push(key_hasher.tag(&tag));
        tags.push(tag.into());
    };
    for line in fields.get_all(SURROGATE_KEY) {
        let words = line.as_bytes().split(|byte| matches!(byte, b' ' | b'\t'));
        words.filter(|word| !word.is_empty()).for_each(&mut add);
    }
    list::elements_in_field(fields, &CACHE_TAG).for_each(&mut add);
    if groups && let Some(groups) = structured::strings(fields, &CACHE_GROUPS) {
        let origin = host::from_headers(request).map_or(&b""[..], |host| host.as_bytes());
        for group in groups {
            invalidation_keys.push(key_hasher.group(origin, &group));
            tags.push(format!("group:{group}").into());
        }
    }
    if tags.len() > MAX_TAGS { Err(TooManyTags) } else { Ok(()) }
}
