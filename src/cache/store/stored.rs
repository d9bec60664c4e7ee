//! A stored response: its head, its content, and the codings and tags made of the content.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::cache::circulation::Circulation;
use crate::cache::invalidation::key::InvalidationKey;
use crate::cache::invalidation::live_paths::WatchedPaths;
use crate::cache::invalidation::{FetchEpoch, Invalidation, Validity};
use crate::cache::rules::freshness::Freshness;
use crate::cache::rules::reuse::Age;
use crate::cache::rules::storability::Audience;
use crate::cache::variant::Variant;
use crate::fields::cache_status::{CACHE_STATUS, X_CACHE};
use crate::fields::reason::ReasonPhrase;
use crate::fields::request_id::X_REQUEST_ID;
use crate::memory::chunked_bytes::ChunkedBytes;
use crate::memory::memory_budget::Reservation;
use crate::message::body::Kept;
use crate::rendering::rendered_head::{RenderedHead, RenderedHeads};
use crate::runtime::clock::Instant;

const AGE: HeaderName = http::header::AGE;

/// Bytes that a stored response takes beside its fields and content, as measured (benches/README.md).
const BOOKKEEPING: usize = 1024;
/// Bytes that a field takes beside its text.
const FIELD: usize = 128;
/// Bytes that a coding or tag takes beside its content.
const MADE: usize = 128;

/// Returns the memory that an allocation of `bytes` takes. Allocators round up, and memory freed in one size is not
/// usable for another at once. Measured by `benches/churn`.
pub(crate) const fn weight(bytes: usize) -> usize {
    bytes + bytes / 7
}

/// The members that a response brings to its [`StoredHead`], which can be read as members of that.
#[derive(Clone, Debug)]
pub(crate) struct StoredHeadParts {
    pub status: StatusCode,
    /// The stored fields; in a [`StoredHead`] with placeholders for those that each response gets anew.
    pub fields: HeaderMap,
    /// The fields that decided about storing and that clients do not receive.
    pub own: HeaderMap,
    pub variant: Variant,
    pub freshness: Freshness,
    /// The requests that may get it, on routes where one copy serves all.
    pub audience: Audience,
    /// Its age on arrival (RFC 9111 4.2.3).
    pub initial_age: Duration,
    /// How long its fetch or last revalidation took until the head arrived; part of that age.
    pub fetched_in: Duration,
    pub received: Instant,
    /// The start of its fetch or last revalidation, by the invalidation clock.
    pub fetch_epoch: FetchEpoch,
    /// The keys that can invalidate it.
    pub invalidation_keys: Box<[InvalidationKey]>,
    /// Its path keys, which are watched for as long as it exists.
    pub _watched: WatchedPaths,
    pub tags: Box<[Box<str>]>,
    /// Whether other processes may have it.
    pub circulation: Circulation,
}

/// The head of a stored response, which all responses made from it share.
#[derive(Debug)]
pub(crate) struct StoredHead {
    parts: StoredHeadParts,
    /// The reason phrase, if the upstream sent one of its own.
    pub phrase: Option<ReasonPhrase>,
    /// Whether Cache-Status is a placeholder, and not the value of a cache closer to the upstream.
    pub keeps_place: bool,
    /// The heads rendered from it.
    pub rendered_heads: RenderedHeads,
    /// The number of the invalidation clock up to which it is known to be valid.
    checked: AtomicU64,
    /// Whether it was sent to the other processes.
    sent: AtomicBool,
}

impl Deref for StoredHead {
    type Target = StoredHeadParts;

    fn deref(&self) -> &StoredHeadParts {
        &self.parts
    }
}

impl StoredHead {
    /// Creates the head of a response that has just arrived.
    pub(crate) fn new(mut parts: StoredHeadParts) -> StoredHead {
        let keeps_place = !parts.fields.contains_key(CACHE_STATUS);
        // Cloning a map that need not grow takes one allocation less for each response.
        for name in [AGE, CACHE_STATUS, X_CACHE, X_REQUEST_ID] {
            parts.fields.entry(name).or_insert(HeaderValue::from_static(""));
        }
        let checked = AtomicU64::new(parts.fetch_epoch.number);
        let (rendered_heads, sent) = (RenderedHeads::default(), AtomicBool::new(false));
        StoredHead { parts, phrase: None, keeps_place, rendered_heads, checked, sent }
    }

    /// Returns the fields without the placeholders.
    pub(crate) fn stored_fields(&self) -> HeaderMap {
        let mut fields = self.fields.clone();
        fields.remove(AGE);
        fields.remove(X_REQUEST_ID);
        fields.remove(X_CACHE);
        if self.keeps_place {
            fields.remove(CACHE_STATUS);
        }
        fields
    }

    /// Returns a copy with other fields, for a response that is not stored.
    pub(crate) fn with_fields(&self, fields: HeaderMap) -> StoredHead {
        StoredHead::new(StoredHeadParts { fields, own: HeaderMap::new(), ..self.parts.clone() })
            .with_phrase(self.phrase.as_ref())
    }

    /// Sets the reason phrase that the upstream sent.
    pub(crate) fn with_phrase(self, phrase: Option<&ReasonPhrase>) -> StoredHead {
        StoredHead { phrase: phrase.cloned(), ..self }
    }

    /// Returns whether it was sent to the other processes.
    #[inline]
    pub(crate) fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn set_sent(&self) {
        self.sent.store(true, Ordering::Relaxed);
    }

    /// Returns the current age (RFC 9111 4.2.3).
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.initial_age + now.saturating_duration_since(self.received)
    }

    /// Returns what invalidations have left of it.
    pub(crate) fn validity(&self, invalidation: &Invalidation, now: Instant) -> Validity {
        invalidation.validity(&self.invalidation_keys, self.fetch_epoch, now)
    }

    /// Returns its age for reuse decisions; `None` if an invalidation removed it.
    pub(crate) fn age_if_valid(&self, invalidation: &Invalidation, now: Instant) -> Option<Age> {
        let number = invalidation.number();
        let settled = invalidation.is_settled();
        let current = self.age(now);
        // The keys are looked up only if there was an invalidation since the last lookup.
        if self.checked.load(Ordering::Relaxed) == number && !invalidation.has_soft_since(self.fetch_epoch) {
            return Some(Age { current, invalidated: None });
        }
        match self.validity(invalidation, now) {
            Validity::Gone => None,
            Validity::Valid => {
                if settled {
                    self.checked.store(number, Ordering::Relaxed);
                }
                Some(Age { current, invalidated: None })
            }
            Validity::Stale(since) => Some(Age { current, invalidated: Some(since) }),
        }
    }

    /// Returns the estimated memory of the head in bytes.
    pub(crate) fn size(&self) -> usize {
        let fields = size_of_fields(&self.fields) + size_of_fields(&self.own);
        let tags: usize = self.tags.iter().map(|tag| tag.len() + 16).sum();
        let prepared = self.rendered_heads.size() + self.phrase.as_ref().map_or(0, ReasonPhrase::size);
        weight(
            fields + tags + prepared + self.invalidation_keys.len() * 8 + self.variant.size() + BOOKKEEPING,
        )
    }
}

/// Returns the estimated memory of fields in bytes.
fn size_of_fields(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum()
}

/// The content of a stored response, with the codings and tags made of it; shared by all responses it is sent in.
#[derive(Debug)]
pub(crate) struct Content {
    pieces: ChunkedBytes,
    trailers: Option<HeaderMap>,
    made: RwLock<Vec<(&'static str, ChunkedBytes)>>,
    place: Mutex<Reservation>,
    /// Number of responses it was sent in.
    pub hits: AtomicU32,
    claimed: Mutex<Vec<&'static str>>,
    /// Names of what is being made of the content.
    making: Mutex<Vec<&'static str>>,
}

impl Content {
    /// Creates stored content. `place` covers its pieces and its head. Trailers are copied, because they arrived in the
    /// buffer of a connection, and counted.
    pub(crate) fn new(pieces: ChunkedBytes, trailers: Option<HeaderMap>, mut place: Reservation) -> Content {
        let trailers = trailers.map(|trailers| compact(&trailers, &[]));
        place.grow_over(weight(trailers.as_ref().map_or(0, size_of_fields)));
        let (made, place) = (RwLock::default(), Mutex::new(place));
        Content {
            pieces,
            trailers,
            made,
            place,
            hits: AtomicU32::new(0),
            claimed: Mutex::default(),
            making: Mutex::default(),
        }
    }

    pub(crate) fn pieces(&self) -> &ChunkedBytes {
        &self.pieces
    }

    /// Returns the trailers (RFC 9110 6.5), which are kept apart from the fields of the head.
    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// Returns the codings and tags made of it, each with its length in bytes.
    pub(crate) fn made(&self) -> Vec<(&'static str, usize)> {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        made.iter().map(|(name, pieces)| (*name, pieces.len())).collect()
    }

    /// Adjusts the reservation after its head changed size, from `before` to `after` bytes.
    pub(crate) fn reweigh(&self, before: usize, after: usize) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.grow_over(after.saturating_sub(before));
        let smaller = place.bytes().saturating_sub(before.saturating_sub(after));
        place.shrink(smaller);
    }

    /// Returns its memory in bytes, including everything made of it.
    pub(crate) fn size(&self) -> usize {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).bytes()
    }
}

impl Kept for Content {
    fn content(&self) -> Option<ChunkedBytes> {
        Some(self.pieces.clone())
    }

    fn made(&self, name: &'static str) -> Option<ChunkedBytes> {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        made.iter().find(|(known, _)| *known == name).map(|(_, pieces)| pieces.clone())
    }

    fn keep(&self, name: &'static str, pieces: ChunkedBytes) {
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let before = made.iter().position(|(known, _)| *known == name);
        let before_size = before.and_then(|at| made.get(at)).map_or(0, |(_, pieces)| pieces.len());
        let entry = if before.is_none() { MADE } else { 0 };
        let more = weight(entry + pieces.len().saturating_sub(before_size));
        // The next store or tick makes room for it.
        place.grow_over(more);
        match before.and_then(|at| made.get_mut(at)) {
            Some(slot) => slot.1 = pieces,
            None => {
                // Most content has one such entry, and none has more than a few.
                made.reserve_exact(1);
                made.push((name, pieces));
            }
        }
    }

    fn begin(&self, name: &'static str) -> bool {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !making.contains(&name);
        if new {
            making.push(name);
        }
        new
    }

    fn end(&self, name: &'static str) {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.retain(|known| *known != name);
        if making.is_empty() {
            *making = Vec::new();
        }
    }

    fn given(&self) -> u32 {
        self.hits.load(Ordering::Relaxed)
    }

    fn claim(&self, name: &'static str) -> bool {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !claimed.contains(&name);
        if new {
            claimed.push(name);
        }
        new
    }
}

/// A stored response, as the store holds it.
#[derive(Clone, Debug)]
pub(crate) struct StoredResponse {
    /// Its head; a revalidation replaces it.
    pub head: Arc<StoredHead>,
    pub content: Arc<Content>,
}

impl StoredResponse {
    /// Keeps a rendered head for later responses, and counts its memory.
    pub(crate) fn prepare(&self, prepared: RenderedHead) {
        let before = self.head.size();
        self.head.rendered_heads.keep(prepared);
        self.content.reweigh(before, self.head.size());
    }
}

/// Copies fields without the excluded ones, with all values in one buffer: a value from the wire is a slice of the
/// whole buffer it arrived in.
pub(crate) fn compact(fields: &HeaderMap, excluded: &[HeaderName]) -> HeaderMap {
    let kept = || fields.iter().filter(|(name, _)| !excluded.contains(name));
    let mut text = BytesMut::with_capacity(kept().map(|(_, value)| value.len()).sum());
    kept().for_each(|(_, value)| text.extend_from_slice(value.as_bytes()));
    let mut text = text.freeze();
    let mut compact = HeaderMap::with_capacity(kept().count());
    for (name, value) in kept() {
        let slice = text.split_to(value.len());
        if let Ok(mut copied) = HeaderValue::from_maybe_shared(slice) {
            copied.set_sensitive(value.is_sensitive());
            // Names that are not well-known are slices of that buffer too.
            let name = HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or_else(|_| name.clone());
            compact.append(name, copied);
        }
    }
    compact
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cache::rules::freshness::Source;

    pub(crate) fn head_with(
        invalidation_keys: &[InvalidationKey],
        begun: FetchEpoch,
        received: Instant,
    ) -> StoredHead {
        StoredHead::new(parts_with(invalidation_keys, begun, received))
    }

    /// Returns the parts of a head without fields that is fresh for an hour.
    pub(crate) fn parts_with(
        invalidation_keys: &[InvalidationKey],
        begun: FetchEpoch,
        received: Instant,
    ) -> StoredHeadParts {
        StoredHeadParts {
            status: StatusCode::OK,
            fields: HeaderMap::new(),
            own: HeaderMap::new(),
            variant: Variant::default(),
            freshness: Freshness {
                lifetime: Duration::from_secs(3600),
                source: Source::App,
                no_cache: false,
                must_revalidate: false,
                while_revalidate: Duration::ZERO,
                if_unreachable: Duration::ZERO,
                if_error: Duration::ZERO,
                error_500: false,
            },
            audience: Audience::Everyone,
            initial_age: Duration::ZERO,
            fetched_in: Duration::ZERO,
            received,
            fetch_epoch: begun,
            invalidation_keys: invalidation_keys.into(),
            _watched: WatchedPaths::default(),
            tags: Box::default(),
            circulation: Circulation::default(),
        }
    }
}
