//! The laws of shared content, tested on random schedules of pieces, readers and ends: all memory in use is counted and
//! returned, a reservation suffices for its length, and no request waits for content that does not come.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Body as _;
use proptest::prelude::*;

use super::invalidation::Invalidation;
use crate::cache::in_flight_body::{InFlightBody, Pushed};
use crate::cache::store::stored::tests::head_with;
use crate::cache::store::stored::{Content, weight};
use crate::memory::memory_budget::MemoryBudget;
use crate::message::body::BodyError;
use crate::runtime::clock;

/// Maximum length of stored content in bytes.
const MAX: usize = 40_000;

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(usize),
    Read,
    GiveUp,
    Join,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1usize..9_000).prop_map(Step::Push),
        6 => Just(Step::Read),
        1 => Just(Step::GiveUp),
        3 => Just(Step::Join),
    ]
}

fn fill(held: &Arc<MemoryBudget>, expected: Option<u64>, reserved: usize) -> Arc<InFlightBody> {
    let now = clock::now();
    let invalidation = Invalidation::new(1, 1 << 20, now);
    let head = head_with(&[], invalidation.begin(&invalidation.watch(&[]), now), now);
    Arc::new(InFlightBody::new(Arc::new(head), expected, held.take_over(reserved), reserved))
}

proptest! {
    #[test]
    fn n3_4_content_without_a_length_has_one_reader_and_holds_what_it_counts(
        steps in proptest::collection::vec(step(), 1..40),
        fails in any::<bool>(),
    ) {
        let cx = &mut Context::from_waker(Waker::noop());
        let held = Arc::new(MemoryBudget::at_most(usize::MAX));
        let fill = fill(&held, None, 0);
        let mut reader = fill.reader().expect("the first reader");
        let (mut waiting, mut length, mut read, mut keeps) = (Vec::new(), 0, 0, true);
        for step in steps {
            match step {
                Step::Push(size) => {
                    let room = fill.poll_room(cx).is_ready();
                    prop_assert_eq!(room, keeps || read == length, "what is not kept is read before more comes");
                    if !room {
                        continue;
                    }
                    length += size;
                    keeps &= length <= MAX;
                    let pushed = fill.push(vec![b'x'; size].into(), MAX);
                    prop_assert_eq!(pushed, if keeps { Pushed::Grew } else { Pushed::NotKept });
                }
                Step::Read => {
                    if let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut reader).poll_frame(cx) {
                        read += frame.into_data().map_or(0, |data| data.len());
                    }
                }
                Step::GiveUp => {
                    fill.give_up();
                    keeps = false;
                }
                Step::Join => match fill.whole() {
                    Some(whole) => waiting.push(Box::pin(whole)),
                    None => prop_assert!(!keeps),
                },
            }
            let here = if keeps { length } else { length - read };
            prop_assert!(held.get() >= here, "{} bytes counted of {here}", held.get());
            for whole in &mut waiting {
                prop_assert_eq!(whole.as_mut().poll(cx).is_pending(), keeps);
            }
            if !keeps {
                waiting.clear();
            }
        }
        let ended = if fails { Err(BodyError::ClientGone) } else { Ok(None) };
        let finished = fill.finish(ended);
        prop_assert_eq!(finished.is_some(), keeps && !fails);
        if let Some((pieces, place)) = finished {
            fill.stored(&Arc::new(Content::new(pieces, None, place)));
        }
        fill.close();
        for mut whole in waiting {
            let Poll::Ready(content) = whole.as_mut().poll(cx) else {
                return Err(TestCaseError::fail("it waits for what does not come"));
            };
            prop_assert_eq!(content.map(|content| content.pieces().len()), (!fails).then_some(length));
        }
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut reader).poll_frame(cx) {
            read += frame.into_data().map_or(0, |data| data.len());
        }
        prop_assert_eq!(read, length, "the first reader has all of it, or an error after it");
        drop((reader, fill));
        prop_assert_eq!(held.get(), 0);
    }

    #[test]
    fn n3_4_content_with_a_length_never_outgrows_what_was_reserved(
        pieces in proptest::collection::vec(1024usize..20_000, 1..20),
    ) {
        let length: usize = pieces.iter().sum();
        let held = Arc::new(MemoryBudget::at_most(usize::MAX));
        let fill = fill(&held, Some(length as u64), InFlightBody::reservation(length));
        let readers = [fill.reader(), fill.reader()];
        for size in pieces {
            prop_assert_eq!(fill.push(Bytes::from(vec![b'x'; size]), length), Pushed::Kept);
            prop_assert_eq!(held.get(), InFlightBody::reservation(length));
        }
        let (content, place) = fill.finish(Ok(None)).expect("all of it");
        prop_assert_eq!(content.len(), length);
        prop_assert!(place.bytes() <= weight(length), "what is left of the reservation is given back");
        drop((readers, fill, place));
        prop_assert_eq!(held.get(), 0);
    }
}
