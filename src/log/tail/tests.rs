//! The readers of live decisions: filters, bounds and ends, without a process around them.

use std::task::Waker;

use http::{HeaderValue, Method, StatusCode};

use super::super::line::Decision;
use super::super::mask::Secrets;
use super::*;
use crate::policy::secrets::NO_SECRET_SEGMENTS;
use crate::rendering::json_text::EscapedText;
use crate::runtime::clock;

fn with_line(test: impl FnOnce(Line<'_>)) {
    let (id, route) = (HeaderValue::from_static("an-id"), EscapedText::new("/api/{id}"));
    test(Line::bare(&id, &Method::GET, &route));
}

fn next(reader: &mut Subscription) -> Option<Option<Bytes>> {
    match reader.poll_line(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(line) => Some(line),
        Poll::Pending => None,
    }
}

#[test]
fn filter_takes_a_request_only_where_every_condition_holds() {
    with_line(|bare| {
        let names = ["token".to_owned()];
        let tier = EscapedText::new("free");
        let line = Line {
            status: StatusCode::BAD_GATEWAY,
            duration: Duration::from_millis(200),
            target: "/api/7?token=S3CRET",
            secrets: Secrets { names: &names, segments: &NO_SECRET_SEGMENTS },
            cache: Some("miss"),
            not_stored: Some("no-lifetime"),
            principal: Some(7),
            limited: Some(Decision { caller: ("ip", 8), tier: &tier, word: "limited", limits: &[] }),
            error: Some(("upstream", "it broke")),
            ..bare
        };
        let none = Filter::default();
        let text = |text: &str| vec![text.to_owned()];
        for (filter, taken) in [
            (none.clone(), true),
            (Filter { statuses: vec![500..=599], ..none.clone() }, true),
            (Filter { statuses: vec![200..=299, 502..=502], ..none.clone() }, true),
            (Filter { statuses: vec![400..=499], ..none.clone() }, false),
            (Filter { routes: text("/api/{id}"), ..none.clone() }, true),
            (Filter { routes: text("/api/*"), ..none.clone() }, true),
            (Filter { routes: text("/api"), ..none.clone() }, false),
            (Filter { methods: vec![Method::GET], ..none.clone() }, true),
            (Filter { methods: vec![Method::POST], ..none.clone() }, false),
            (Filter { paths: text("/api/*"), ..none.clone() }, true),
            (Filter { paths: text("/api/7"), ..none.clone() }, true),
            (Filter { paths: text("*S3CRET*"), ..none.clone() }, false),
            (Filter { users: vec![7], ..none.clone() }, true),
            (Filter { users: vec![8], ..none.clone() }, true),
            (Filter { users: vec![9], ..none.clone() }, false),
            (Filter { slow: Some(Duration::from_millis(200)), ..none.clone() }, true),
            (Filter { slow: Some(Duration::from_millis(201)), ..none.clone() }, false),
            (Filter { cache: text("miss"), ..none.clone() }, true),
            (Filter { cache: text("hit"), ..none.clone() }, false),
            (Filter { reasons: text("no-lifetime"), ..none.clone() }, true),
            (Filter { reasons: text("limited"), ..none.clone() }, true),
            (Filter { reasons: text("upstream"), ..none.clone() }, true),
            (Filter { reasons: text("private"), ..none.clone() }, false),
            (Filter { cache: text("miss"), statuses: vec![200..=200], ..none.clone() }, false),
        ] {
            assert_eq!(filter.takes(&line), taken, "{filter:?}");
        }
    });
}

#[test]
fn reader_beyond_the_maximum_is_refused_until_one_leaves() {
    let tail = Arc::new(Tail::new(clock::now()));
    let subscribe = || tail.subscribe(Filter::default(), false);
    assert!(!tail.is_open());
    let mut readers: Vec<_> = (0..MAX_READERS).filter_map(|_| subscribe().ok()).collect();
    assert!(tail.is_open() && readers.len() == MAX_READERS);
    assert_eq!(subscribe().err(), Some(Refused::Full));
    readers.pop();
    readers.push(subscribe().ok().unwrap());
    readers.clear();
    assert!(!tail.is_open() && tail.subscriptions() == 0);
}

#[test]
fn lines_beyond_a_bound_are_counted_and_told() {
    with_line(|line| {
        let origin = line.at;
        let tail = Arc::new(Tail::new(origin));
        let mut reader = tail.subscribe(Filter::default(), false).ok().unwrap();
        let offer = |at: Instant, length: usize| tail.offer(&Line { at, ..line }, |_| vec![b'x'; length]);
        // One span has more lines than a reader gets in it.
        (0..LINES_A_SPAN + 7).for_each(|_| offer(origin, 1));
        assert_eq!(reader.take_not_shown(), 7);
        // Lines of further spans fill the queue.
        let spans = (MAX_WAITING as u32).div_ceil(LINES_A_SPAN) + 1;
        (1..spans).for_each(|span| (0..LINES_A_SPAN).for_each(|_| offer(origin + SPAN * span, 1)));
        assert_eq!(reader.take_not_shown(), u64::from(spans * LINES_A_SPAN) - MAX_WAITING as u64);
        assert_eq!(std::iter::from_fn(|| next(&mut reader)).count(), MAX_WAITING);
        // Long lines fill it sooner.
        (0..4).for_each(|_| offer(origin + SPAN * spans, MAX_WAITING_BYTES / 3));
        assert_eq!(reader.take_not_shown(), 1);
        assert_eq!(std::iter::from_fn(|| next(&mut reader)).count(), 3);
        assert_eq!(reader.take_not_shown(), 0);
        offer(origin + SPAN * (spans + 1), 1);
        assert!(next(&mut reader).is_some());
    });
}

#[test]
fn line_is_rendered_once_for_each_form_and_only_where_a_filter_takes_it() {
    with_line(|line| {
        let tail = Arc::new(Tail::new(line.at));
        let errors = Filter { statuses: vec![500..=599], ..Filter::default() };
        let mut readers = [
            tail.subscribe(errors, true).ok().unwrap(),
            tail.subscribe(Filter::default(), false).ok().unwrap(),
            tail.subscribe(Filter::default(), false).ok().unwrap(),
        ];
        let mut forms = Vec::new();
        tail.offer(&line, |address| {
            forms.push(address);
            vec![b'x']
        });
        assert_eq!(forms, [false]);
        assert_eq!(readers.each_mut().map(|reader| next(reader).is_some()), [false, true, true]);
    });
}

#[test]
fn close_ends_every_stream_after_its_last_line_and_refuses_new_ones() {
    with_line(|line| {
        let tail = Arc::new(Tail::new(line.at));
        let mut reader = tail.subscribe(Filter::default(), false).ok().unwrap();
        tail.offer(&line, |_| vec![b'x']);
        tail.close();
        assert!(!tail.is_open());
        assert_eq!(next(&mut reader), Some(Some(Bytes::from_static(b"x"))));
        assert_eq!(next(&mut reader), Some(None));
        assert_eq!(tail.subscribe(Filter::default(), false).err(), Some(Refused::Closed));
        assert_eq!(tail.subscriptions(), 1);
        drop(reader);
        assert_eq!(tail.subscriptions(), 0);
    });
}
