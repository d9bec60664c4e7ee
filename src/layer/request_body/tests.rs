//! Tests of the buffering of request bodies.

use std::time::Duration;

use http::Response;

use super::{BodyRate, Buffered, buffer, hold_to_rate, is_stream};
use crate::layer::testing::{Sender, Stage, arriving, content, on_worker};
use crate::memory::buffers::BufferReservation;
use crate::message::body::{Body, BodyError};
use crate::runtime::clock;

#[test]
fn n3_4_a_body_is_too_slow_by_the_time_it_was_waited_for() {
    let start = clock::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let mut rate = BodyRate::new(240);
    assert_eq!(rate.wait(start), at(10), "nothing came: the grace");
    assert_eq!(rate.wait(at(3)), at(10), "waiting goes on");
    rate.came(100, || at(4));
    assert_eq!(rate.wait(at(1000)), at(1006), "time in which nobody waited does not count");
    rate.came(4700, || at(1001));
    // 4800 bytes earn 20 s, of which 5 s have passed.
    assert_eq!(rate.wait(at(2000)), at(2015));
    rate.came(0, || at(2015));
    assert_eq!(rate.wait(at(3000)), at(3000), "no time is left");
}

fn reservation(configuration: &str) -> BufferReservation {
    Stage::new(configuration).ask("POST /a").routed().record.reserve_buffer()
}

fn pieces(length: Option<u64>, pieces: &[&'static str]) -> (Sender, Body) {
    let (sender, body) = arriving(length);
    pieces.iter().for_each(|piece| sender.send(Ok((*piece).into())).unwrap());
    (sender, body)
}

#[test]
fn a_body_is_buffered_to_its_end_if_it_is_within_the_limit() {
    on_worker(async {
        for (length, limit, whole) in
            [(Some(5), 5, true), (Some(5), 4, false), (None, 6, true), (None, 4, false)]
        {
            let (sender, body) = pieces(length, &["hel", "lo"]);
            drop(sender);
            let Buffered { body, memory } = buffer(body, limit, reservation("")).await.unwrap();
            assert_eq!((body.is_here(), memory.is_some()), (whole, whole), "{length:?} {limit}");
            assert_eq!(content(Response::new(body)).await.unwrap(), "hello", "{length:?} {limit}");
        }
    });
}

#[test]
fn a_body_of_unknown_length_that_pauses_is_forwarded_as_it_arrives() {
    on_worker(async {
        let (sender, body) = pieces(None, &["hel"]);
        let Buffered { body, memory } = buffer(body, 100, reservation("")).await.unwrap();
        assert!(!body.is_here() && memory.is_none());
        sender.send(Ok("lo".into())).unwrap();
        drop(sender);
        assert_eq!(content(Response::new(body)).await.unwrap(), "hello");
    });
}

#[test]
fn a_body_that_fails_while_it_is_buffered_fails_its_request() {
    on_worker(async {
        let (sender, body) = pieces(Some(5), &["hel"]);
        sender.send(Err(BodyError::ClientGone)).unwrap();
        let failed = buffer(body, 100, reservation("")).await.err();
        assert_eq!(failed, Some(BodyError::ClientGone));
    });
}

#[test]
fn a_route_with_stream_is_never_buffered_or_held_to_a_rate() {
    on_worker(async {
        let stage = Stage::new("[[routes]]\nmatch = '* /live'\nstream = true");
        for (target, streams) in [("/live", true), ("/a", false)] {
            let (_sender, body) = arriving(None);
            let mut routed = stage.ask(&format!("POST {target}")).body(body).routed();
            assert_eq!(is_stream(&routed), streams, "{target}");
            hold_to_rate(&mut routed);
            assert!(routed.request.body().is_streaming(), "{target}");
        }
    });
}
