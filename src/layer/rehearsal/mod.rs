//! Rehearses a request: it passes all layers between a client and an upstream, and a given response stands in for the
//! upstream's. Nothing is sent, counted or logged.

pub(crate) mod course;
mod invalidated;
mod upstream;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::task::LocalSet;
use tower::Service as _;

use super::explain::facts::CodingFacts;
use super::explain::head::SampleRequest;
use super::explain::{self, facts::Facts};
use super::record::{CacheHandling, HTTP_2, RequestRecord, Sink};
use super::stack;
use crate::represent::counters::Counters;
use crate::runtime::clock::{self, Instant};
use crate::state::live_policy::Snapshot;
use course::{NONE, OFF, Rehearsal, STORED, StandInResponse, StoredFacts};
use invalidated::Candidates;
use upstream::StandIn;

/// Maximum time that a rehearsal may take. It waits for nothing outside the process, so only a defect takes longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Rehearses a request `times` times in a row, and returns the course of the last one.
pub(crate) fn rehearse(
    sample: &SampleRequest,
    response: &StandInResponse,
    times: u32,
    (snapshot, sink): (&Arc<Snapshot>, &Rc<Sink>),
) -> io::Result<Rehearsal> {
    let facts = explain::explain(sample, snapshot, sink);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // All of them arrive at one moment, so that no quota refills between them.
    let now = clock::now();
    let rehearsed = async {
        for _ in 1..times {
            run(sample, response, &facts, now, (snapshot, sink)).await;
        }
        run(sample, response, &facts, now, (snapshot, sink)).await
    };
    let timed = async { tokio::time::timeout(TIMEOUT, rehearsed).await };
    LocalSet::new().block_on(&runtime, timed).map_err(io::Error::from)
}

async fn run(
    sample: &SampleRequest,
    response: &StandInResponse,
    facts: &Facts,
    now: Instant,
    (snapshot, sink): (&Arc<Snapshot>, &Rc<Sink>),
) -> Rehearsal {
    let shared_state = &sink.shared_state;
    let mut rehearsal = Rehearsal {
        facts: facts.clone(),
        status: StatusCode::OK,
        fields: HeaderMap::new(),
        error: None,
        sent: None,
        cache: NONE,
        stored: None,
        invalidated: Vec::new(),
        coding: NONE,
    };
    // Fields of an HTTP/2 response are all in one map.
    let observed = match explain::arrive(sample, (HTTP_2, now), snapshot, sink) {
        Ok(observed) => observed,
        Err(refused) => {
            (rehearsal.status, rehearsal.error) = (refused.status, Some(refused.to_string()));
            return rehearsal;
        }
    };
    let record = observed.record.clone();
    let candidates = Candidates::new(facts, response, &shared_state.cache);
    let before = chosen(&shared_state.represented);
    let sent = Rc::new(RefCell::new(None));
    let mut layers = stack::around(StandIn::new(response.clone(), sent.clone()), shared_state, None);
    let Ok(mut received) = layers.call(observed).await;
    record.add_own_fields(received.headers_mut());
    rehearsal.status = received.status();
    rehearsal.fields = std::mem::take(received.headers_mut());
    rehearsal.error = record.error.get().as_ref().map(|(_, error)| error.clone());
    rehearsal.sent = sent.take();
    rehearsal.stored = stored(facts, sink);
    rehearsal.cache = cache_word(&record, rehearsal.stored.is_some());
    rehearsal.invalidated = candidates.invalidated(&shared_state.cache);
    let after = chosen(&shared_state.represented);
    let grown = after.iter().zip(&before).find(|((_, after), (_, before))| after > before);
    rehearsal.coding = match (grown, facts.forwarded().map(|found| &found.coding)) {
        (Some(((word, _), _)), _) => word,
        (None, Some(CodingFacts::Off)) => OFF,
        (None, _) => NONE,
    };
    rehearsal
}

/// Returns the codings and the reasons for none, each with the number of responses so far.
fn chosen(counters: &Counters) -> Vec<(&'static str, u64)> {
    counters.chosen().collect()
}

fn cache_word(record: &RequestRecord, is_stored: bool) -> &'static str {
    match record.cache.handling() {
        Some(CacheHandling::Miss | CacheHandling::Expired | CacheHandling::Bypass) | None => {
            match record.cache.not_stored() {
                Some(reason) => reason,
                None if is_stored => STORED,
                None => NONE,
            }
        }
        Some(handling) => handling.as_str(),
    }
}

/// Returns the stored response that a request selects.
fn stored(facts: &Facts, sink: &Sink) -> Option<StoredFacts> {
    let read = facts.read()?;
    let cache = &sink.shared_state.cache;
    let entry = cache.store.get(&read.key, cache.second(clock::now()))?;
    let found = entry.variants().last()?;
    Some(StoredFacts {
        lifetime: found.head.freshness.lifetime,
        tags: found.head.tags.iter().map(ToString::to_string).collect(),
        variant: found.head.variant.clone(),
    })
}
