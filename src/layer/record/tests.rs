//! The record as a whole: a request is counted once, whatever ends it, and a background request never.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderValue, Method};

use super::*;
use crate::app;
use crate::config::{self, Environment, Source};
use crate::limit::cells::{Key, Kind};
use crate::limit::tier::{Concurrency, Tier};
use crate::limit::{Ask, Decision, Permit};
use crate::message::body::{BodyError, Observer};
use crate::message::error::Fault;
use crate::metrics::Exposition;
use crate::state::live_policy::Snapshot;

const CONFIG: &str = r#"
    [upstream]
    url = "http://127.0.0.1:1"
    [[routes]]
    match = "* /old/{rest}"
    rewrite = "/items/{rest}"
    set_response = { x-old = "yes" }
    [[routes]]
    match = "* /items/{id}"
    set_response = { x-items = "yes" }
    [log]
    access = "all"
"#;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// The parts of a worker that a record needs.
struct Worker {
    snapshot: Arc<Snapshot>,
    sink: Rc<Sink>,
}

impl Worker {
    fn new() -> Worker {
        let source = Source { embedded: Some(("test", CONFIG)), ..Source::default() };
        let policy = config::load(&source, &Environment::default()).unwrap();
        let (snapshot, sink) = app::rehearse(policy, None).unwrap();
        Worker { snapshot, sink }
    }

    fn info(&self) -> RequestInfo {
        RequestInfo {
            started: clock::now(),
            id: HeaderValue::from_static("the-id"),
            id_is_ours: true,
            method: Method::GET,
            target: Some("/items/7?a=b".parse().unwrap()),
            client: CLIENT,
            tls: true,
            protocol: "HTTP/1.1",
            grpc: true,
            trace: None,
            trace_state: Some("a=b".into()),
            snapshot: self.snapshot.clone(),
        }
    }

    fn start(&self) -> Rc<RequestRecord> {
        Rc::new(RequestRecord::start(self.info(), self.sink.clone()))
    }

    fn in_flight(&self) -> i64 {
        self.sink.shared_state.metrics.routes.in_flight.load(Ordering::Relaxed)
    }

    fn counted(&self) -> u64 {
        self.sink.shared_state.metrics.routes.total()
    }

    /// The lines of a metric in a scrape.
    fn scraped(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8(self.sink.shared_state.metrics.render(Exposition::Text)).unwrap();
        text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    }
}

#[test]
fn request_with_two_ends_is_counted_once() {
    let worker = Worker::new();
    let record = worker.start();
    record.route.set_route(Some(1));
    record.response_started(StatusCode::OK);
    assert_eq!((worker.in_flight(), worker.counted()), (1, 0));
    record.finish();
    assert_eq!((worker.in_flight(), worker.counted()), (0, 1));
    record.finish();
    record.client_left();
    report_completed();
    drop(record);
    assert_eq!((worker.in_flight(), worker.counted()), (0, 1));
    let labels = r#"pillion_http_requests_total{method="GET",route="/items/{id}",status="200"} 1"#;
    assert_eq!(worker.scraped("pillion_http_requests_total"), [labels]);
}

#[test]
fn request_whose_client_left_is_counted_as_499_with_its_upstream_time() {
    let worker = Worker::new();
    let record = worker.start();
    record.upstream_started(record.info.started);
    drop(record);
    assert_eq!((worker.in_flight(), worker.counted()), (0, 1));
    let labels = r#"pillion_http_requests_total{method="GET",route="refused",status="499"} 1"#;
    assert_eq!(worker.scraped("pillion_http_requests_total"), [labels]);
    let upstream = worker.scraped("pillion_http_upstream_duration_seconds_count");
    assert!(upstream.len() == 1 && upstream[0].ends_with(" 1"), "{upstream:?}");
}

#[test]
fn status_of_response_is_the_first_that_was_recorded() {
    let worker = Worker::new();
    let record = worker.start();
    record.response_started(StatusCode::BAD_GATEWAY);
    // As the status of a gRPC response, whose error is in a field.
    record.response_started(StatusCode::OK);
    record.finish();
    assert!(worker.scraped("pillion_http_requests_total")[0].contains("status=\"502\""));
}

#[test]
fn completed_request_is_reported_later_but_at_once_where_it_holds_a_permit() {
    let worker = Worker::new();
    let record = worker.start();
    record.finish();
    assert_eq!(Rc::strong_count(&record), 2, "it waits for its report");
    report_completed();
    assert_eq!(Rc::strong_count(&record), 1);

    let record = worker.start();
    record.limit.decided(None, None, Some(permit(&worker)));
    record.finish();
    assert_eq!(Rc::strong_count(&record), 1, "its permit is free as soon as it ends");
}

/// A permit of a limit of requests in flight.
fn permit(worker: &Worker) -> Permit {
    let tier = Tier::new("tier", 0, false, None, Vec::new(), 0);
    let key = Key { hash: 77 << 64, kind: Kind::Ip };
    let concurrency = Some(Concurrency::new("/items/{id}", 1));
    let ask = Ask { key, tier: &tier, named: None, cost: NonZeroU32::MIN, concurrency };
    match worker.sink.shared_state.limiter.ask(&ask, clock::now()) {
        Decision::Decided(verdict) => verdict.permit.unwrap(),
        Decision::Undecided(_) => panic!("nobody is asked"),
    }
}

#[test]
fn background_request_is_neither_counted_nor_reported() {
    let worker = Worker::new();
    let record = worker.start();
    record.route.set_route(Some(1));
    let uncounted = Rc::new(RequestRecord::uncounted(worker.info(), worker.sink.clone()));
    let background = Rc::new(record.for_background(clock::now()));
    for other in [uncounted, background] {
        other.response_started(StatusCode::BAD_GATEWAY);
        other.error.set(Fault::Upstream, "it failed".to_owned());
        other.finish();
        assert_eq!(Rc::strong_count(&other), 1, "nothing waits for a report");
        other.client_left();
    }
    assert_eq!((worker.in_flight(), worker.counted()), (1, 0));
    assert!(worker.sink.shared_state.performance.failed().is_empty());
}

#[test]
fn background_request_has_the_facts_the_route_and_the_rank_but_no_outcome() {
    let worker = Worker::new();
    let record = worker.start();
    record.route.set_route(Some(0));
    record.route.set_route(Some(1));
    record.route.set_rewritten_by(0);
    record.route.set_edits_response();
    record.limit.set_rank(3);
    record.limit.decided(None, None, Some(permit(&worker)));
    record.cache.set_handling(CacheHandling::Stale);
    record.cache.set_not_stored("a reason");
    record.cache.set_status_member(Member::default());
    record.represent.set_coding("gzip", Rc::default());
    record.upstream.set_status(StatusCode::OK);
    record.upstream_started(record.info.started);
    record.upstream_ended();
    record.error.set(Fault::Client, "it failed".to_owned());
    record.head_sent(true);
    record.timeline.add_sent(5);
    record.timeline.add_received(6);

    let now = record.info.started + Duration::from_secs(9);
    let background = record.for_background(now);
    let info = &background.info;
    assert_eq!(info.started, now);
    assert_eq!((&info.id, &info.method, info.client), (&record.info.id, &Method::GET, CLIENT));
    assert_eq!((&info.target, info.protocol, info.tls), (&record.info.target, "HTTP/1.1", true));
    assert!(Arc::ptr_eq(&info.snapshot, &record.info.snapshot) && info.id_is_ours);
    assert!(!info.grpc && info.trace.is_none() && info.trace_state.is_none());

    assert!(std::ptr::eq(background.route_policy(), record.route_policy()));
    assert_eq!(background.sharing_rules(), record.sharing_rules());
    assert!(background.route.rewriting_policy(&worker.snapshot).is_some());
    assert_eq!(background.limit.rank(), 3);

    assert!(!background.route.edits_response() && !background.limit.holds_permit());
    let cache = &background.cache;
    assert!(cache.handling().is_none() && cache.not_stored().is_none() && cache.status_member().is_none());
    assert!(background.represent.coding().is_none() && background.error.get().is_none());
    assert!(background.upstream.status().is_none() && background.timeline.upstream_time().is_none());
    assert!(background.timeline.until_head().is_none());
    assert_eq!((background.timeline.sent(), background.timeline.received()), (0, 0));
}

#[test]
fn upstream_time_ends_with_the_head_of_the_response_not_with_its_processing() {
    let worker = Worker::new();
    let record = worker.start();
    let started = record.info.started;
    record.upstream_started(started);
    record.upstream.progress.responded.set(Some(started + Duration::from_millis(3)));
    record.upstream_ended();
    assert_eq!(record.timeline.upstream_time(), Some(Duration::from_millis(3)));
    // Another upstream request of the same record forgets the progress of the first.
    record.upstream_started(started);
    assert!(record.upstream.progress.responded.get().is_none());
}

#[test]
fn response_body_that_fails_names_the_side_that_caused_it() {
    let worker = Worker::new();
    let cases = [
        (BodyError::UpstreamGone, Fault::Upstream),
        (BodyError::UpstreamMalformed("a chunk"), Fault::Upstream),
        (BodyError::UpstreamSilent, Fault::Upstream),
        (BodyError::Http2("reset".to_owned()), Fault::Upstream),
        (BodyError::Draining, Fault::Pillion),
        (BodyError::ClientGone, Fault::Client),
        (BodyError::ClientBehind, Fault::Client),
    ];
    for (error, expected) in cases {
        let record = worker.start();
        let mut observer = ResponseBodyObserver(record.clone());
        observer.data(10);
        observer.data(20);
        observer.end(Err(&error));
        assert!(record.timeline.is_done());
        assert_eq!(record.timeline.sent(), 30);
        let (fault, text) = record.error.get().clone().unwrap();
        assert_eq!((fault, text), (expected, error.to_string()));
    }
}

#[test]
fn request_body_after_the_end_of_its_request_is_not_counted() {
    let worker = Worker::new();
    let record = worker.start();
    let mut observer = RequestBodyObserver(Rc::downgrade(&record));
    observer.data(5);
    observer.data(6);
    assert_eq!(record.timeline.received(), 11);
    drop(record);
    observer.data(7);
    let received = worker.scraped("pillion_http_request_content_bytes_total");
    assert!(received.len() == 1 && received[0].ends_with(" 11"), "{received:?}");
}

#[test]
fn cache_status_stands_beside_the_fields_only_of_unedited_http1_responses() {
    let worker = Worker::new();
    for (protocol, edited, expected) in [
        ("HTTP/1.1", false, true),
        ("HTTP/1.0", false, true),
        ("HTTP/1.1", true, false),
        (HTTP_2, false, false),
    ] {
        let info = RequestInfo { protocol, ..worker.info() };
        let record = RequestRecord::uncounted(info, worker.sink.clone());
        if edited {
            record.route.set_edits_response();
        }
        assert_eq!(record.set_cache_status(Member::default()), expected, "{protocol} {edited}");
        assert_eq!(record.cache.status_member().is_some(), expected, "{protocol} {edited}");
    }
}

#[test]
fn own_response_of_rewritten_request_is_edited_by_both_routes() {
    let worker = Worker::new();
    let record = worker.start();
    record.route.set_route(Some(0));
    record.route.set_route(Some(1));
    record.route.set_rewritten_by(0);
    let mut headers = HeaderMap::new();
    record.edit_own_response(&mut headers);
    assert!(headers.contains_key("x-old") && headers.contains_key("x-items"), "{headers:?}");
}

#[test]
fn request_outside_all_routes_is_told_from_a_refused_message() {
    let worker = Worker::new();
    let record = worker.start();
    let snapshot = &worker.snapshot;
    assert_eq!(record.route.label(snapshot).to_string(), "refused");
    assert!(record.route.times(snapshot).is_none());
    assert!(Arc::ptr_eq(record.route.series(snapshot), snapshot.refused()));
    record.route.set_route(None);
    assert!(std::ptr::eq(record.route.label(snapshot), &snapshot.policy.routes.unmatched().label));
    assert!(record.route.times(snapshot).is_some());
    assert!(!Arc::ptr_eq(record.route.series(snapshot), snapshot.refused()));
    assert!(record.route.matched_label(snapshot).is_none());
    record.route.set_route(Some(1));
    assert_eq!(record.route.matched_label(snapshot).unwrap().to_string(), "/items/{id}");
}

#[test]
fn memory_of_request_is_held_until_its_record_is_gone() {
    let worker = Worker::new();
    let buffers = worker.sink.shared_state.buffers.clone();
    let record = worker.start();
    let target = record.info.target_text().len();
    let reserved = record.reserve_request(1000, 100, None).unwrap();
    assert_eq!((buffers.bytes(), reserved.bytes()), (1000, 1000 - 100 - target));
    drop(reserved);
    assert_eq!(buffers.bytes(), 100 + target);
    let mut more = record.reserve_buffer();
    more.resize(50);
    record.memory.hold(more);
    assert_eq!(buffers.bytes(), 150 + target);
    drop(record);
    assert_eq!(buffers.bytes(), 0);
}
