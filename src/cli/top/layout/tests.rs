//! Tables of cases of the layout and the keys.

use super::super::screen::{Act, key};
use super::*;

fn route(label: &str, rate: f64, p95_ms: f64, errors: f64, hits: Option<f64>) -> Route {
    let errors = Some(errors);
    Route { label: label.to_owned(), rate, errors, p95_ms: Some(p95_ms), hits, ..Route::default() }
}

fn snapshot() -> Snapshot {
    Snapshot {
        ready: "ready".to_owned(),
        health: "degraded".to_owned(),
        unhealthy: vec![("disk".to_owned(), "full".to_owned())],
        version: "1.2.3".to_owned(),
        generation: 2,
        uptime_seconds: 7_500.0,
        resident_bytes: 20 << 20,
        total: route("", 12.5, 80.0, 0.015, Some(0.75)),
        routes: vec![
            route("/a/{id}", 10.0, 5.0, 0.0, Some(0.9)),
            route("/b", 2.0, 80.0, 0.5, None),
            route("/c", 0.5, 1.0, 0.1, Some(0.2)),
        ],
        lookups: vec![("hit".to_owned(), 7), ("miss".to_owned(), 3)],
        limited: vec![("acme".to_owned(), "free".to_owned(), 4, 9)],
        addresses: vec![("app".to_owned(), "127.0.0.1:3000".to_owned(), "failing", 2, 1)],
        processes: vec![("one".to_owned(), "1.2.3".to_owned(), "live", 1.2)],
        ..Snapshot::default()
    }
}

#[test]
fn routes_are_sorted_and_filtered() {
    let snapshot = snapshot();
    for (sort, filter, expected) in [
        (Sort::Load, "", &["/a/{id}", "/b", "/c"][..]),
        (Sort::Time, "", &["/b", "/a/{id}", "/c"]),
        (Sort::Errors, "", &["/b", "/c", "/a/{id}"]),
        (Sort::Hit, "", &["/c", "/a/{id}", "/b"]),
        (Sort::Load, "/a", &["/a/{id}"]),
        (Sort::Load, "none", &[]),
    ] {
        let labels: Vec<&str> =
            chosen(&snapshot.routes, sort, filter).iter().map(|route| &*route.label).collect();
        assert_eq!(labels, expected, "{sort:?} {filter}");
    }
}

#[test]
fn screen_has_its_size_and_its_columns_by_weight() {
    for (size, has, lacks) in [
        (
            (80, 24),
            &["req/s", "p95", "hits", "p50", "processes of the fleet", "acme"][..],
            &["bytes", "     p99"][..],
        ),
        ((160, 50), &["req/s", "     p99", "state", "bytes", "failing, 2 in flight, 1 waiting"], &[]),
        ((80, 12), &["/a/{id}", "/c", "upstream addresses"], &["limited callers"]),
        ((32, 6), &["     req/s"], &["   errors", "upstream addresses"]),
        ((10, 2), &["by load"], &["req/s"]),
        ((1, 1), &[], &["req/s"]),
    ] {
        let lines = View::default().lines(&snapshot(), None, size);
        let text = lines.join("\n");
        assert_eq!(lines.len(), size.1, "{size:?}\n{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= size.0), "{size:?}\n{text}");
        assert!(has.iter().all(|has| text.contains(has)), "{size:?}\n{text}");
        assert!(!lacks.iter().any(|lacks| text.contains(lacks)), "{size:?}\n{text}");
    }
}

#[test]
fn table_has_state_then_figures_then_every_section() {
    let lines = whole(&snapshot(), Sort::Load, "", 120);
    assert_eq!(lines[0], "pillion 1.2.3: ready, degraded; up 2 h 5 min, configuration 2");
    assert!(lines[1].starts_with("12.50 req/s, errors 1.5 %, p50 -, p95 80"), "{}", lines[1]);
    assert_eq!(lines[3], "! disk: full");
    assert!(lines.contains(&"hit 7, miss 3".to_owned()), "{lines:#?}");
    let empty = whole(&Snapshot::default(), Sort::Load, "", 120);
    assert!(empty.contains(&"no requests yet".to_owned()), "{empty:#?}");
    let filtered = whole(&snapshot(), Sort::Load, "none", 120);
    assert!(filtered.contains(&"no route fits the filter".to_owned()), "{filtered:#?}");
}

#[test]
fn keys_change_the_view() {
    let mut view = View::default();
    for (bytes, status) in [
        (&b"s"[..], "by time; h help"),
        (b"p", "by time, paused; h help"),
        (b"/", "filter: _  (Enter takes it, Escape clears it)"),
        (b"qx", "filter: qx_  (Enter takes it, Escape clears it)"),
        (b"\x7f", "filter: q_  (Enter takes it, Escape clears it)"),
        (b"\x1b[Z", "filter: q_  (Enter takes it, Escape clears it)"),
        (b"\r", "by time, filter q, paused; h help"),
        (b"/\r/", "filter: q_  (Enter takes it, Escape clears it)"),
        (b"\x1b", "by time, paused; h help"),
        (b"h", "q quit  p pause  s sort  / filter  arrows or j k scroll  h close this line"),
        (b"h", "by time, paused; h help"),
    ] {
        assert_eq!(key(&mut view, bytes), Act::Repaint);
        assert_eq!(view.status(None), status, "{bytes:?}");
    }
    key(&mut view, b"jj");
    key(&mut view, b"\x1b[A");
    assert_eq!(view.scroll, 1);
    view.lines(&snapshot(), None, (80, 24));
    assert_eq!(view.scroll, 0, "all routes have room");
    assert_eq!(key(&mut view, b"q"), Act::Quit);
    assert_eq!(key(&mut View { typing: true, ..View::default() }, b"\x03"), Act::Quit);
}

#[test]
fn lost_process_is_told_in_the_status() {
    assert_eq!(View::default().status(Some("gone")), "by load, disconnected: gone; h help");
}
