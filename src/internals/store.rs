//! The cache store for the benchmark of hit ratios.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::cache::circulation::Circulation;
use crate::cache::invalidation::FetchEpoch;
use crate::cache::rules::freshness::{Freshness, Source};
use crate::cache::rules::storability::Audience;
use crate::cache::store::Store;
use crate::cache::store::stored::{Content, StoredHead, StoredHeadParts, StoredResponse};
use crate::cache::variant::Variant;
use crate::memory::chunked_bytes::ChunkedBytes;
use crate::runtime::clock;

/// The store of the cache with objects of equal size.
pub struct Objects {
    store: Store,
    content: ChunkedBytes,
}

impl Objects {
    /// Creates a store of at most `max` bytes, for objects of `length` bytes each.
    pub fn new(max: usize, length: usize) -> Objects {
        Objects { store: Store::new(1, max), content: ChunkedBytes::from(Bytes::from(vec![0; length])) }
    }

    /// Returns the bytes that an object with `length` bytes of content takes.
    pub fn weight(length: usize) -> usize {
        head().size() + length
    }

    /// Returns whether the object is stored at this second, and stores it if it is not.
    pub fn ask(&self, object: usize, second: u32) -> bool {
        let key = object.to_be_bytes();
        if self.store.get(&key, second).is_some() {
            return true;
        }
        let head = head();
        let place = self.store.budget.take_over(head.size() + self.content.len());
        let content = Arc::new(Content::new(self.content.clone(), None, place));
        self.store.insert(&key, StoredResponse { head: Arc::new(head), content });
        false
    }
}

fn head() -> StoredHead {
    StoredHead::new(StoredHeadParts {
        status: StatusCode::OK,
        fields: HeaderMap::new(),
        own: HeaderMap::new(),
        variant: Variant::default(),
        freshness: Freshness {
            lifetime: Duration::from_secs(1 << 20),
            source: Source::App,
            no_cache: false,
            must_revalidate: false,
            while_revalidate: Duration::default(),
            if_unreachable: Duration::default(),
            if_error: Duration::default(),
            error_500: false,
        },
        audience: Audience::Everyone,
        fetched_in: Duration::ZERO,
        initial_age: Duration::default(),
        received: clock::now(),
        fetch_epoch: FetchEpoch { number: 1, at: 1, order: 1 },
        invalidation_keys: Box::default(),
        _watched: Default::default(),
        tags: Box::default(),
        circulation: Circulation::default(),
    })
}
