//! Content on its way from the app to all who read it, and into the store.

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

/// See the head of the file.
pub(super) struct Pump {
    cache: Arc<Cache>,
    counters: Arc<RouteCounters>,
    fill: Arc<InFlightBody>,
    key: Vec<u8>,
    /// The key under which is remembered that it is not stored, where that is another one.
    memory_key: Option<Vec<u8>>,
    max: usize,
    /// Maximum number of reads that go on without their clients, and its place among them while nobody reads it.
    unattended: (usize, Option<BufferReservation>),
    /// While it is here, requests can join.
    leader: Option<Leader>,
    /// In the share of the client whose request began it: what was read and not taken, where it is not going to be stored.
    buffers: BufferReservation,
    /// Whether all that came so far is kept.
    keeps: bool,
}

impl Drop for Pump {
    /// However it ends, nobody waits for it afterwards.
    fn drop(&mut self) {
        self.fill.close();
    }
}

impl Pump {
    /// Of content that is stored under `key` unless it is longer than `max` bytes; at most `unattended` reads go on
    /// without their clients.
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

    /// Keeps what came, if there is room for it; false: the content is not going to be stored.
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

    /// It is not going to be stored: nobody is to join it any more, nor to wait for the next one in vain.
    fn tell_of_giving_up(&mut self) {
        self.counters.count(Event::TooLarge);
        let second = self.cache.second(clock::now());
        let key = self.memory_key.as_deref().unwrap_or(&self.key);
        self.cache.hit_for_miss.remember_too_long(key, hit_for_miss::RequesterClass::Any, second);
        self.leader = None;
    }

    /// The next of the body. Where its readers have all gone it takes a place among what goes on without clients; if
    /// there is none, it ends here.
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
        // What finds no room is read in small pieces: each such response holds one that its client did not take. Content
        // of known length has its room. Any other may be given up with this very read, whose buffer then stays.
        let is_certain = self.keeps && self.fill.expected.is_some() && self.cache.store.budget.excess() == 0;
        let pressed = !is_certain && !self.buffers.has_room();
        buffers::while_pressed(pressed, || Pin::new(body).poll_frame(cx))
    }

    /// Until the content has ended, or nobody wants it.
    pub(super) async fn run(mut self, mut body: Body) {
        let ended = loop {
            // Nobody reads it and it is not going to be stored: the app need not go on.
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
