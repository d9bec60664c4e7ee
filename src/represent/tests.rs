//! Content passing through encoders, in every coding and in pieces of every size.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_compression::codecs::{BrotliDecoder, DecodeV2, GzipDecoder, ZstdDecoder};
use async_compression::core::util::{PartialBuffer, WriteBuffer};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame};
use proptest::prelude::*;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::coding::{Coding, Effort};
use super::counters::Counters;
use crate::memory::buffers::{BufferMemory, BufferReservation, ClientSlot};
use crate::memory::memory_budget::MemoryBudget;
use crate::message::body::{Body, BodyError};
use crate::represent::buffered_prefix::{BufferGoal, BufferedPrefix};
use crate::represent::encoded_body::Encoding;
use crate::represent::encoder;
use crate::represent::encoder::Encoder;
use crate::runtime::clock;

const EFFORTS: [Effort; 3] = [Effort::Fast, Effort::Balanced, Effort::Best];

type Step = Result<Frame<Bytes>, BodyError>;

/// A body whose frames a test sends.
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

/// A client that decodes the content as it arrives.
struct Client {
    codec: Box<dyn DecodeV2>,
    ended: bool,
}

impl Client {
    fn with_coding(coding: Coding) -> Client {
        let codec: Box<dyn DecodeV2> = match coding {
            Coding::Gzip => Box::new(GzipDecoder::new()),
            Coding::Brotli => Box::new(BrotliDecoder::new()),
            Coding::Zstd => Box::new(ZstdDecoder::new()),
        };
        Client { codec, ended: false }
    }

    /// Returns everything that can be decoded of the bytes so far.
    fn takes(&mut self, encoded: &[u8]) -> Vec<u8> {
        let (mut input, mut decoded, mut room) = (PartialBuffer::new(encoded), Vec::new(), vec![0; 4096]);
        while !self.ended {
            let mut output = WriteBuffer::new_initialized(&mut room);
            self.ended = self.codec.decode(&mut input, &mut output).unwrap();
            decoded.extend_from_slice(output.written());
            if input.unwritten().is_empty() && output.written_len() < 4096 {
                break;
            }
        }
        decoded
    }
}

fn decoded(coding: Coding, encoded: &[u8]) -> Vec<u8> {
    let mut client = Client::with_coding(coding);
    let content = client.takes(encoded);
    assert!(client.ended || encoded.is_empty(), "it has an end");
    content
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

/// Content like that of upstreams: words that repeat, and numbers that do not.
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
        content in content(), size in 1usize..100_000, at in 0usize..9,
    ) {
        let (coding, effort) = (Coding::ALL[at / 3], EFFORTS[at % 3]);
        let whole = encoder::encode(coding, effort, &content).unwrap();
        let (streamed, _) = run(read(encoding(pieces(&content, size), coding, effort))).unwrap();
        for encoded in [&whole[..], &streamed] {
            prop_assert_eq!(&decoded(coding, encoded), &content, "{:?} {:?}", coding, effort);
        }
    }
}

#[test]
fn what_the_app_says_is_not_held_back() {
    run(async {
        for coding in Coding::ALL {
            for effort in EFFORTS {
                let (sender, body) = handed();
                let mut encoded = encoding(body, coding, effort);
                let mut client = Client::with_coding(coding);
                for word in ["first", "second", "third"] {
                    let since = clock::now();
                    sender.send(data(word)).unwrap();
                    let mut seen = Vec::new();
                    while seen.len() < word.len() {
                        let frame = next(&mut encoded).await.unwrap().unwrap();
                        seen.extend_from_slice(&client.takes(&frame.into_data().unwrap()));
                    }
                    assert_eq!(seen, word.as_bytes(), "{coding:?} {effort:?}");
                    assert!(since.elapsed() < Duration::from_secs(5));
                }
                drop(sender);
                while let Some(frame) = next(&mut encoded).await {
                    assert!(client.takes(&frame.unwrap().into_data().unwrap()).is_empty());
                }
                assert!(client.ended);
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
        let (content, found) = read(coded).await.unwrap();
        assert_eq!((decoded(Coding::Gzip, &content), found), (b"content".to_vec(), Some(trailers)));

        let (sender, body) = handed();
        sender.send(data("content")).unwrap();
        sender.send(Err(BodyError::UpstreamGone)).unwrap();
        let coded = encoding(body, Coding::Gzip, Effort::Fast);
        assert_eq!(read(coded).await, Err(BodyError::UpstreamGone));
    });
}

/// Between slices the worker serves others: another task runs while an encoder works on a large body.
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
            // Far fewer turns than slices that take their time, and far more than without pauses.
            let min = since.elapsed().as_millis() / 10;
            assert!(turns.get() > min.max(3), "{coding:?}: {} turns in {:?}", turns.get(), since.elapsed());
        }
    });
}

const SOON: Duration = Duration::from_millis(20);

fn all(length: usize) -> BufferGoal {
    BufferGoal { min: length, max: length, end: true }
}

#[test]
fn gathering_ends_with_the_content_enough_of_it_or_a_pause() {
    run(async {
        let (sender, body) = handed();
        sender.send(data("abc")).unwrap();
        sender.send(data("def")).unwrap();
        drop(sender);
        let mut whole = BufferedPrefix::read(body, all(100), SOON, None, None).await;
        assert!(whole.is_whole() && whole.len() == 6);
        assert_eq!(whole.content().as_deref(), Some(&b"abcdef"[..]));
        assert_eq!(read(whole.into_body()).await.unwrap().0, b"abcdef");

        let (sender, body) = handed();
        sender.send(data("abc")).unwrap();
        sender.send(data("def")).unwrap();
        let prefix =
            BufferedPrefix::read(body, BufferGoal { min: 2, max: 2, end: false }, SOON, None, None).await;
        assert!(prefix.has_more() && prefix.len() == 3);
        drop(sender);
        assert_eq!(read(prefix.into_body()).await.unwrap().0, b"abcdef");

        // More arrived before the end than is taken.
        let (sender, body) = handed();
        sender.send(data("abcdef")).unwrap();
        let prefix = BufferedPrefix::read(body, all(5), SOON, None, None).await;
        assert!(prefix.has_more() && prefix.len() == 6);
        drop(sender);

        // Many requests that buffer at once see one another.
        let memory = Arc::new(BufferMemory::new(800));
        let reserve = || Some(BufferReservation::new(memory.clone(), ClientSlot::default()));
        let mut senders = Vec::new();
        let mut gathering: Vec<_> = (0..100)
            .map(|_| {
                let (sender, body) = handed();
                sender.send(data(vec![0; 100])).unwrap();
                senders.push(sender);
                Box::pin(BufferedPrefix::read(body, all(1000), Duration::from_secs(60), None, reserve()))
            })
            .collect();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let gathered = gathering.iter_mut().filter_map(|one| match one.as_mut().poll(&mut cx) {
            Poll::Ready(gathered) => Some(gathered),
            Poll::Pending => None,
        });
        let gathered: Vec<BufferedPrefix> = gathered.collect();
        let nothing = gathered.iter().filter(|gathered| gathered.is_empty()).count();
        assert_eq!(nothing, 93, "seven of 100 bytes fit in 7/8 of 800");
        drop((gathered, gathering, senders));
        assert_eq!(memory.bytes(), 0);

        // Available content is taken without waiting for more.
        let (sender, body) = handed();
        sender.send(data("abc")).unwrap();
        sender.send(data("def")).unwrap();
        let there =
            BufferedPrefix::read(body, BufferGoal { min: 0, max: 100, end: false }, SOON, None, None).await;
        assert!(there.has_more() && there.len() == 6);

        // The end may come after the last byte.
        let (sender, body) = handed();
        sender.send(data("abcdef")).unwrap();
        tokio::task::spawn_local(async move {
            tokio::task::yield_now().await;
            drop(sender);
        });
        assert!(BufferedPrefix::read(body, all(6), SOON, None, None).await.is_whole());

        let (sender, body) = handed();
        sender.send(data("abc")).unwrap();
        let mut paused = BufferedPrefix::read(body, all(100), SOON, None, None).await;
        assert!(paused.has_more() && paused.len() == 3 && paused.content().is_none());
        sender.send(Err(BodyError::UpstreamGone)).unwrap();
        assert_eq!(read(paused.into_body()).await, Err(BodyError::UpstreamGone));
    });
}

#[test]
fn no_more_is_held_than_may_be() {
    let held = Arc::new(MemoryBudget::at_most(64 << 20));
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
