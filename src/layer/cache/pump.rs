//! The pump: moves content from the upstream to all its readers and into the store.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use crate::cache::Cache;
use crate::cache::collapse::Leader;
use crate::cache::counters::{Event, RouteCounters};
use crate::cache::hit_for_miss;
use crate::cache::in_flight_body::{InFlightBody, Pushed};
use crate::cache::store::stored::{Content, StoredResponse};
use crate::memory::buffers;
use crate::memory::buffers::BufferReservation;
use crate::message::body::{Body, BodyError};
use crate::runtime::clock;

/// Moves the content of one response; see the head of the file.
pub(super) struct Pump {
    cache: Arc<Cache>,
    counters: Arc<RouteCounters>,
    fill: Arc<InFlightBody>,
    key: Vec<u8>,
    /// The key for hit-for-miss, if it differs from the cache key.
    memory_key: Option<Vec<u8>>,
    max: usize,
    /// Maximum number of reads that continue without their clients, and the place among them while this has no reader.
    unattended: (usize, Option<BufferReservation>),
    /// The leader, while requests can join the fetch.
    leader: Option<Leader>,
    /// In the share of the client whose request began it: what was read and not taken, where it is not going to be stored.
    buffers: BufferReservation,
    /// Whether all content that arrived is kept.
    keeps: bool,
}

impl Drop for Pump {
    /// Ends the wait of all requests, however the pump ends.
    fn drop(&mut self) {
        self.fill.close();
    }
}

impl Pump {
    /// Creates a pump for content that is stored under `key` unless it is longer than `max` bytes; at most `unattended`
    /// reads continue without their clients.
    pub(super) fn new(
        cache: Arc<Cache>,
        counters: Arc<RouteCounters>,
        (key, memory_key, fill): (Vec<u8>, Option<Vec<u8>>, Arc<InFlightBody>),
        max: usize,
        unattended: usize,
        leader: Option<Leader>,
        buffers: BufferReservation,
    ) -> Pump {
        let unattended = (unattended, None);
        Pump { cache, counters, fill, key, memory_key, max, unattended, leader, buffers, keeps: true }
    }

    /// Keeps a piece of content if there is room; returns false if the content is not going to be stored.
    fn keep(&self, data: Bytes) -> bool {
        match self.fill.push(data, self.max) {
            Pushed::Kept => true,
            Pushed::NotKept => false,
            Pushed::Grew => {
                let fits = self.cache.make_room();
                if !fits {
                    self.fill.give_up();
                }
                fits
            }
        }
    }

    /// Reports that the content is not stored: requests cannot join any more, nor wait in vain for the next fetch.
    fn tell_of_giving_up(&mut self) {
        self.counters.count(Event::TooLarge);
        let second = self.cache.second(clock::now());
        let key = self.memory_key.as_deref().unwrap_or(&self.key);
        self.cache.hit_for_miss.remember_too_long(key, hit_for_miss::RequesterClass::Any, second);
        self.leader = None;
    }

    /// Polls the next frame of the body. When all readers have gone it takes a place among the reads without clients;
    /// without such a place the content ends here.
    fn poll_frame(
        &mut self,
        body: &mut Body,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (max, place) = &mut self.unattended;
        if self.fill.is_read(cx) {
            *place = None;
        } else if place.is_none() {
            *place = self.cache.unattended.read(self.buffers.client(), *max);
            if place.is_none() && self.fill.abandon() {
                return Poll::Ready(Some(Err(BodyError::ClientGone)));
            }
        }
        // Content that finds no room is read in small pieces: each such response holds one that its client did not take. Content
        // of known length has its room. Any other may be given up with this very read, whose buffer then stays.
        let is_certain = self.keeps && self.fill.expected.is_some() && self.cache.store.budget.excess() == 0;
        let pressed = !is_certain && !self.buffers.has_room();
        buffers::while_pressed(pressed, || Pin::new(body).poll_frame(cx))
    }

    /// Runs until the content has ended, or has no reader and is not going to be stored.
    pub(super) async fn run(mut self, mut body: Body) {
        let ended = loop {
            // Without readers and without storing, the upstream need not go on.
            if poll_fn(|cx| self.fill.poll_room(cx)).await.is_none() {
                break Err(BodyError::ClientGone);
            }
            self.buffers.resize(0);
            match poll_fn(|cx| self.poll_frame(&mut body, cx)).await {
                None => break Ok(None),
                Some(Err(error)) => break Err(error),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let bytes = data.len();
                        let kept = self.keep(data);
                        if !kept {
                            // The next one that asks for room sees it, also before the reader of this one had its turn.
                            self.buffers.resize(buffers::weight(bytes));
                        }
                        if self.keeps && !kept {
                            self.tell_of_giving_up();
                        }
                        self.keeps = kept;
                    }
                    Err(frame) => break Ok(frame.into_trailers().ok()),
                },
            }
        };
        self.buffers.resize(0);
        let trailers = ended.as_ref().ok().cloned().flatten();
        let Some((content, place)) = self.fill.finish(ended) else { return };
        let head = self.fill.head.clone();
        if self.fill.expected.is_some_and(|expected| expected != content.len() as u64)
            || self.cache.invalidation.is_stamped_since(&head.invalidation_keys, head.fetch_epoch)
        {
            return;
        }
        let content = Arc::new(Content::new(content, trailers, place));
        self.fill.stored(&content);
        if self.cache.keep(&self.key, &StoredResponse { head, content }) {
            self.counters.count(Event::Stored);
        }
    }
}
