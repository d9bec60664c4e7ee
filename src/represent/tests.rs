//! Content on its way through encoders and decoders, in every coding and in pieces of every size.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame};
use proptest::prelude::*;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::coding::{Coding, Effort};
use super::counters::Counters;
use super::decode::Decoder;
use super::decoding::Decoding;
use super::encode::{self, Encoder};
use super::encoding::Encoding;
use super::gather::{Gathered, Wanted};
use crate::body::{Body, BodyError};
use crate::clock;
use crate::held::Held;

const EFFORTS: [Effort; 3] = [Effort::Fast, Effort::Balanced, Effort::Best];

type Step = Result<Frame<Bytes>, BodyError>;

/// A body whose frames a test hands out.
struct Handed(UnboundedReceiver<Step>);

impl http_body::Body for Handed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        self.0.poll_recv(cx)
    }
}

fn handed() -> (UnboundedSender<Step>, Body) {
    let (sender, receiver) = unbounded_channel();
    (sender, Body::streaming(Handed(receiver)))
}

fn data(content: impl Into<Bytes>) -> Step {
    Ok(Frame::data(content.into()))
}

fn pieces(content: &[u8], size: usize) -> Body {
    let (sender, body) = handed();
    content.chunks(size.max(1)).for_each(|piece| sender.send(data(piece.to_vec())).unwrap());
    body
}

fn encoding(content: Body, coding: Coding, effort: Effort) -> Body {
    let counters = Counters::default().coding(coding).clone();
    let encoder = Encoder::new(coding, effort, None);
    Body::streaming(Encoding::new(content, encoder, counters, Rc::new(Cell::new(0)), None))
}

fn decoding(content: Body, coding: &str) -> Body {
    Body::streaming(Decoding::new(content, Decoder::new(coding).unwrap()))
}

async fn next(body: &mut Body) -> Option<Step> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

async fn read(mut body: Body) -> Result<(Vec<u8>, Option<HeaderMap>), BodyError> {
    let (mut content, mut trailers) = (Vec::new(), None);
    while let Some(frame) = next(&mut body).await {
        match frame?.into_data() {
            Ok(data) => content.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((content, trailers))
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.unwrap().block_on(test)
}

/// Content like that of apps: words that come again, and numbers that do not.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(b"\"patient\":".to_vec()),
        Just(b"No known allergies. ".to_vec()),
        proptest::collection::vec(any::<u8>(), 1..20),
        (any::<u8>(), 1usize..5000).prop_map(|(byte, count)| vec![byte; count]),
    ];
    proptest::collection::vec(word, 0..200).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_decodes_to_itself(
        content in content(), size in 1usize..100_000, again in 1usize..100_000, at in 0usize..9,
    ) {
        let (coding, effort) = (Coding::ALL[at / 3], EFFORTS[at % 3]);
        let whole = encode::encode(coding, effort, &content).unwrap();
        let (streamed, _) = run(read(encoding(pieces(&content, size), coding, effort))).unwrap();
        for encoded in [&whole[..], &streamed] {
            let (decoded, _) = run(read(decoding(pieces(encoded, again), coding.as_str()))).unwrap();
            prop_assert_eq!(&decoded, &content, "{:?} {:?}", coding, effort);
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(
        content in proptest::collection::vec(any::<u8>(), 0..500), size in 1usize..100, at in 0usize..4,
    ) {
        let coding = ["gzip", "br", "zstd", "deflate"][at];
        let _ = run(read(decoding(pieces(&content, size), coding)));
    }

    #[test]
    fn what_is_cut_short_never_looks_complete(content in content(), cut in 1usize..100, at in 0usize..3) {
        let coding = Coding::ALL[at];
        let encoded = encode::encode(coding, Effort::Fast, &content).unwrap();
        let short = &encoded[..encoded.len().saturating_sub(cut)];
        let read = run(read(decoding(pieces(short, 1000), coding.as_str())));
        prop_assert!(short.is_empty() || read.is_err(), "{:?}", coding);
    }
}

#[test]
fn what_the_app_says_is_not_held_back() {
    run(async {
        for coding in Coding::ALL {
            for effort in EFFORTS {
                let (sender, body) = handed();
                let mut decoded = decoding(encoding(body, coding, effort), coding.as_str());
                for word in ["first", "second", "third"] {
                    let since = clock::now();
                    sender.send(data(word)).unwrap();
                    let mut seen = Vec::new();
                    while seen.len() < word.len() {
                        seen.extend_from_slice(
                            &next(&mut decoded).await.unwrap().unwrap().into_data().unwrap(),
                        );
                    }
                    assert_eq!(seen, word.as_bytes(), "{coding:?} {effort:?}");
                    assert!(since.elapsed() < Duration::from_secs(5));
                }
                drop(sender);
                assert!(next(&mut decoded).await.is_none());
            }
        }
    });
}

#[test]
fn trailers_come_after_the_content_and_failures_end_it() {
    run(async {
        let (sender, body) = handed();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        sender.send(data("content")).unwrap();
        sender.send(Ok(Frame::trailers(trailers.clone()))).unwrap();
        let coded = encoding(body, Coding::Gzip, Effort::Fast);
        let (content, found) = read(decoding(coded, "gzip")).await.unwrap();
        assert_eq!((content, found), (b"content".to_vec(), Some(trailers)));

        let (sender, body) = handed();
        sender.send(data("content")).unwrap();
        sender.send(Err(BodyError::UpstreamGone)).unwrap();
        let coded = encoding(body, Coding::Gzip, Effort::Fast);
        assert_eq!(read(coded).await, Err(BodyError::UpstreamGone));
    });
}

/// Between slices the worker serves others: another task gets its turn while one encodes a large body.
#[test]
fn an_encoder_takes_breath() {
    run(async {
        let large: Vec<u8> =
            (0u32..2_000_000).flat_map(|at| (at.wrapping_mul(2_654_435_761) >> 20).to_le_bytes()).collect();
        for coding in Coding::ALL {
            let turns = Rc::new(Cell::new(0u128));
            let count = turns.clone();
            let other = tokio::task::spawn_local(async move {
                loop {
                    count.set(count.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
            let since = clock::now();
            let mut body = encoding(Body::full(large.clone()), coding, Effort::Balanced);
            while next(&mut body).await.is_some() {}
            other.abort();
            // Far fewer than there are slices that take their time, far more than without a pause.
            let least = since.elapsed().as_millis() / 10;
            assert!(turns.get() > least.max(3), "{coding:?}: {} turns in {:?}", turns.get(), since.elapsed());
        }
    });
}

#[test]
fn several_members_are_one_content() {
    run(async {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let one = encode::encode(coding, Effort::Fast, b"one, ").unwrap();
            let two = encode::encode(coding, Effort::Fast, b"two").unwrap();
            let both = [one, two].concat();
            let (content, _) = read(decoding(pieces(&both, 7), coding.as_str())).await.unwrap();
            assert_eq!(content, b"one, two", "{coding:?}");
        }
        assert_eq!(read(decoding(Body::empty(), "gzip")).await, Ok((Vec::new(), None)), "no content at all");
    });
}

/// 1 GiB of zeros in a few bytes does not become 1 GiB of memory: it is decoded as it is read.
#[test]
fn a_bomb_is_decoded_piece_by_piece() {
    run(async {
        let zeros = pieces(&vec![0; 1 << 20], 1 << 20);
        let (bomb, _) = read(encoding(zeros, Coding::Brotli, Effort::Balanced)).await.unwrap();
        let mut body = decoding(Body::full(bomb), "br");
        let frame = next(&mut body).await.unwrap().unwrap().into_data().unwrap();
        assert!(frame.len() <= 64 * 1024, "{}", frame.len());
    });
}

fn all(length: usize) -> Wanted {
    Wanted { least: length, most: length, end: true }
}

#[test]
fn gathering_ends_with_the_content_enough_of_it_or_a_pause() {
    run(async {
        let (sender, body) = handed();
        sender.send(data("abc")).unwrap();
        sender.send(data("def")).unwrap();
        drop(sender);
        let mut whole = Gathered::of(body, all(100), None).await;
        assert!(whole.is_whole() && whole.len() == 6);
        assert_eq!(whole.content().as_deref(), Some(&b"abcdef"[..]));
        assert_eq!(read(whole.into_body()).await.unwrap().0, b"abcdef");

        let (sender, body) = handed();
        sender.send(data("abc")).unwrap();
        sender.send(data("def")).unwrap();
        let enough = Gathered::of(body, Wanted { least: 2, most: 2, end: false }, None).await;
        assert!(enough.has_more() && enough.len() == 3);
        drop(sender);
        assert_eq!(read(enough.into_body()).await.unwrap().0, b"abcdef");

        // What is there is taken, and nothing waited for.
        let (sender, body) = handed();
        sender.send(data("abc")).unwrap();
        sender.send(data("def")).unwrap();
        let there = Gathered::of(body, Wanted { least: 0, most: 100, end: false }, None).await;
        assert!(there.has_more() && there.len() == 6);

        // The end may come after the last byte.
        let (sender, body) = handed();
        sender.send(data("abcdef")).unwrap();
        tokio::task::spawn_local(async move {
            tokio::task::yield_now().await;
            drop(sender);
        });
        assert!(Gathered::of(body, all(6), None).await.is_whole());

        let (sender, body) = handed();
        sender.send(data("abc")).unwrap();
        let mut paused = Gathered::of(body, all(100), None).await;
        assert!(paused.has_more() && paused.len() == 3 && paused.content().is_none());
        sender.send(Err(BodyError::UpstreamGone)).unwrap();
        assert_eq!(read(paused.into_body()).await, Err(BodyError::UpstreamGone));
    });
}

#[test]
fn no_more_is_held_than_may_be() {
    let held = Arc::new(Held::at_most(64 << 20));
    let place = held.take(60 << 20).unwrap();
    assert!(held.take(10 << 20).is_none());
    assert_eq!(held.get(), 60 << 20);
    let mut place = place;
    place.shrink(1 << 20);
    assert_eq!(held.get(), 1 << 20);
    drop(place);
    assert!(held.take(10 << 20).is_some());
    assert_eq!(held.get(), 0);
}
