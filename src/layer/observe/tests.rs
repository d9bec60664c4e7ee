//! Tests of the observe layer on a scripted service.

use std::sync::atomic::Ordering;
use std::task::Poll;

use futures_util::future::poll_fn;
use tower::Service;

use super::Observe;
use crate::layer::rescue::Rescue;
use crate::layer::testing::{Asking, Scripted, Stage, content, field, on_worker, response};

fn layer(stage: &Stage, below: &Scripted) -> Observe<Rescue<Scripted>> {
    Observe::new(Rescue(below.clone()), stage.view(), stage.sink.clone())
}

fn in_flight(stage: &Stage) -> i64 {
    stage.sink.shared_state.metrics.routes.in_flight.load(Ordering::Relaxed)
}

#[test]
fn every_response_names_its_request() {
    on_worker(async {
        let stage = Stage::new("[server]\ntrusted_proxies = ['10.0.0.0/8']");
        let below = Scripted::by(|_| Ok(response(200, &[("x-request-id", "of the upstream")], "")));
        let said = |name: &'static str, id: &'static str| {
            move |asking: Asking| asking.from([10, 0, 0, 1]).field(name, id)
        };
        let max_id = "a".repeat(128);
        let max_id: &'static str = max_id.leak();
        let stranger = |asking: Asking| asking.field("x-request-id", "made-up");
        let asked = stage.ask("GET /a");
        for (asking, wanted) in [
            (stage.ask("GET /a"), None),
            (stranger(asked), None),
            (said("x-request-id", "told")(stage.ask("GET /a")), Some("told")),
            (said("x-correlation-id", "told")(stage.ask("GET /a")), Some("told")),
            (said("x-request-id", max_id)(stage.ask("GET /a")), Some(max_id)),
            (said("x-request-id", "with \"quotes\"")(stage.ask("GET /a")), None),
            (said("x-request-id", "")(stage.ask("GET /a")), None),
        ] {
            let Ok(found) = layer(&stage, &below).call(asking.inbound()).await;
            let id = field(found.headers(), "x-request-id");
            match wanted {
                Some(wanted) => assert_eq!(id, wanted),
                None => assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}"),
            }
        }
    });
}

#[test]
fn fields_of_a_response_over_http1_stand_beside_its_map() {
    on_worker(async {
        let stage = Stage::new("");
        let below = Scripted::by(|_| Ok(response(200, &[], "")));
        let Ok(mut found) = layer(&stage, &below).call(stage.ask("GET /a").over_http1().inbound()).await;
        assert_eq!(field(found.headers(), "x-request-id"), "");
        let mut lines = bytes::BytesMut::new();
        found.body_mut().take_own_fields().unwrap().write(&mut lines);
        assert!(lines.starts_with(b"x-request-id: ") && lines.ends_with(b"\r\n"), "{lines:?}");
    });
}

#[test]
fn a_request_is_in_flight_until_its_response_has_ended_or_its_client_left() {
    on_worker(async {
        let stage = Stage::new("");
        let below = Scripted::by(|_| Ok(response(200, &[], "hello")));
        let Ok(found) = layer(&stage, &below).call(stage.ask("GET /a").inbound()).await;
        assert_eq!(in_flight(&stage), 1);
        assert_eq!(content(found).await.unwrap(), "hello");
        assert_eq!(in_flight(&stage), 0);
        let Ok(unread) = layer(&stage, &below).call(stage.ask("GET /a").inbound()).await;
        assert_eq!(in_flight(&stage), 1);
        drop(unread);
        assert_eq!(in_flight(&stage), 0);
        below.hold();
        let mut waits = layer(&stage, &below).call(stage.ask("GET /a").inbound());
        poll_fn(|cx| {
            assert!(std::pin::Pin::new(&mut waits).poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(in_flight(&stage), 1);
        drop(waits);
        assert_eq!(in_flight(&stage), 0);
    });
}
