//! Keys of requests that differ, and of those that only look so.

use super::*;
use proptest::prelude::*;

fn parts<'a>(path: &'a str, query: Option<&'a str>, headers: &'a HeaderMap) -> Parts<'a> {
    Parts {
        upstream: "upstream",
        rules: 1,
        whens: 0,
        https: false,
        shared: false,
        host: b"a",
        path,
        query,
        only: None,
        ignored: &[],
        partition: None,
        fields: &[],
        headers,
        told: &[],
        forwarded: &[],
        content: None,
    }
}

fn key(parts: &Parts<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    write(parts, &mut key);
    key
}

/// Returns the CPU time in seconds of writing a key with this query, the best of five runs.
fn cost(query: &str) -> f64 {
    use rustix::time::{ClockId, clock_gettime};
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let (headers, ignored) = (HeaderMap::new(), ["utm_*".to_owned(), "*x*y".to_owned()]);
    let parts = Parts { ignored: &ignored, ..parts("/", Some(query), &headers) };
    let once = || {
        let since = now();
        std::hint::black_box(key(&parts));
        now() - since
    };
    (0..5).map(|_| once()).fold(f64::MAX, f64::min)
}

#[test]
fn n3_1_queries_are_read_in_linear_time() {
    for part in ["?*b&utm_a&", "a&utm_&", "%61&a[b]&utm_a.b&", "x*****y&*x&", "b=1&a=1&"] {
        let of = |length: usize| {
            // Names that differ, so that none is found at once.
            let numbered = (0..).flat_map(|n| [part.replace('&', &format!("{n}&"))]);
            let mut text = String::new();
            numbered
                .take_while(|piece| {
                    text.push_str(piece);
                    text.len() < length
                })
                .for_each(drop);
            text
        };
        let (small, large) = (cost(&of(8 * 1024)), cost(&of(64 * 1024)));
        assert!(large < 0.002 || large <= small * 12.0, "{part}: {small} s for 8 KiB, {large} s for 64 KiB");
    }
}

#[test]
fn queries() {
    let headers = HeaderMap::new();
    let ignored: Vec<String> = ["utm_*", "fbclid"].map(str::to_owned).to_vec();
    let only = ["page".to_owned()];
    for (one, other, wanted) in [
        (Some("a=1&b=2"), Some("b=2&a=1"), true),
        (Some("a=1&a=2"), Some("a=2&a=1"), false),
        (Some("a=1&utm_source=x"), Some("a=1"), true),
        (Some("fbclid=1"), None, true),
        (Some("a"), Some("a="), false),
        (Some("a=1&utm_x=1;b=2"), Some("a=1"), false),
        (Some("a=1&utm%5Fx=1"), Some("a=1"), false),
        (Some("a=1"), Some("a=1&b=2"), false),
        (Some(""), Some("a"), false),
    ] {
        let of = |query| key(&Parts { ignored: &ignored, ..parts("/", query, &headers) });
        assert_eq!(of(one) == of(other), wanted, "{one:?} {other:?}");
    }
    let of = |query| key(&Parts { only: Some(&only), ..parts("/", Some(query), &headers) });
    assert_eq!(of("page=1&x=2"), of("y=1&page=1"));
    assert_ne!(of("page=1"), of("page=2"));
    assert_ne!(of("p%61ge=1"), of(""));
}

#[test]
fn n2_1_parameters_that_do_not_count_are_told() {
    let ignored: Vec<String> = ["utm_*", "fbclid"].map(str::to_owned).to_vec();
    let only: Vec<String> = ["page", "f.*"].map(str::to_owned).to_vec();
    use Uncounted::{Confusable, None as No, Some as Yes};
    let headers = HeaderMap::new();
    for (query, by, wanted, left) in [
        ("a=1", None, No, Some("a=1")),
        ("a=1&utm_x=2&b", None, Yes, Some("a=1&b")),
        ("utm_x=2&fbclid", None, Yes, None),
        ("b=1&utm_x;y=1", None, No, Some("b=1&utm_x;y=1")),
        ("utm.x=1&utm_x=2", None, Confusable, Some("utm.x=1")),
        ("Fbclid=1&fbclid=2", None, Confusable, Some("Fbclid=1")),
        ("page=1", Some(&only[..]), No, Some("page=1")),
        ("page=1&x=2", Some(&only), Yes, Some("page=1")),
        ("page=1&pages=2", Some(&only), Yes, Some("page=1")),
        ("page=1&page[]=2", Some(&only), Confusable, Some("page=1")),
        ("PAGE=1", Some(&only), Confusable, None),
        ("page.x=1", Some(&only), Confusable, None),
        ("f_x=1", Some(&only), Confusable, None),
        ("f[x]=1", Some(&only), Confusable, None),
        ("p%61ge=1", Some(&only), No, Some("p%61ge=1")),
        ("page%5B%5D=1", Some(&only), Confusable, Some("page%5B%5D=1")),
        ("page=1&+page=2", Some(&only), Confusable, Some("page=1&+page=2")),
        ("page%00x=1", Some(&only), Confusable, Some("page%00x=1")),
        ("%50age=1", Some(&only), Confusable, Some("%50age=1")),
        ("p%2561ge=1", Some(&only), Confusable, Some("p%2561ge=1")),
        ("oth%65r=1", Some(&only), No, Some("oth%65r=1")),
        ("utm%5Fx=1&utm_y=2", None, Yes, Some("utm%5Fx=1")),
        ("x=1&", Some(&only), Yes, None),
    ] {
        let mut key = Vec::new();
        let parts = Parts { ignored: &ignored, only: by, ..parts("/", Some(query), &headers) };
        assert_eq!(write(&parts, &mut key), wanted, "{query}");
        assert_eq!(counted_query(query, by, &ignored).as_deref(), left, "{query}");
    }
}

#[test]
fn parts_that_count() {
    let mut headers = HeaderMap::new();
    headers.insert("x-a", "1".parse().unwrap());
    let none = HeaderMap::new();
    let plain = parts("/a", None, &none);
    let names = [HeaderName::from_static("x-a")];
    let (one, other) = ([1; 32], [2; 32]);
    let all = [
        key(&plain),
        key(&Parts { https: true, ..plain }),
        key(&Parts { shared: true, ..plain }),
        key(&Parts { upstream: "media", ..plain }),
        key(&Parts { rules: 2, ..plain }),
        key(&Parts { whens: 1, ..plain }),
        key(&Parts { whens: 2, ..plain }),
        key(&Parts { host: b"b", ..plain }),
        key(&Parts { host: b"A", ..plain }),
        key(&Parts { path: "/a/", ..plain }),
        key(&Parts { path: "/", query: Some("a"), ..plain }),
        key(&Parts { partition: Some(&one), ..plain }),
        key(&Parts { partition: Some(&other), ..plain }),
        key(&Parts { content: Some(&one), ..plain }),
        key(&Parts { fields: &names, ..plain }),
        key(&Parts { forwarded: b"proto=https", ..plain }),
        key(&Parts { forwarded: b"proto=http", ..plain }),
        key(&Parts { fields: &names, headers: &headers, ..plain }),
    ];
    for (at, one) in all.iter().enumerate() {
        assert!(!all[..at].contains(one), "{at}");
    }
}

#[test]
fn keys_can_be_shown() {
    let headers = HeaderMap::new();
    let partition = [7; 32];
    let written = key(&Parts { partition: Some(&partition), ..parts("/a", Some("c=1&b=2"), &headers) });
    let shown = read(&written).unwrap();
    let wanted = Shown {
        https: false,
        principal: Some(&[7; 32]),
        told_host: None,
        upstream: b"upstream",
        host: b"a",
        path: b"/a",
        query: b"b=2&c=1",
    };
    assert_eq!(shown, wanted);
    assert!(shown.is_query("c=1&b=2") && !shown.is_query("c=1") && shown.is_query("b=%32&%63=1"));
    let decided =
        key(&Parts { whens: 7, partition: Some(&partition), ..parts("/a", Some("c=1&b=2"), &headers) });
    assert_eq!(read(&decided), Some(wanted));
    assert_eq!(read(&written[..9]), None);
}

#[test]
fn contents() {
    let mut json = HeaderMap::new();
    json.insert("content-type", "application/json; charset=utf-8".parse().unwrap());
    let mut text = HeaderMap::new();
    text.insert("content-type", "text/plain".parse().unwrap());
    let (one, other) = (&b"{\"a\": 1, \"b\":[2]}"[..], &b"{\"b\":[2],\"a\":1}"[..]);
    assert_eq!(content(&Method::POST, &json, one, true), content(&Method::POST, &json, other, true));
    assert_ne!(content(&Method::POST, &json, one, false), content(&Method::POST, &json, other, false));
    assert_ne!(content(&Method::POST, &text, one, true), content(&Method::POST, &text, other, true));
    assert_ne!(content(&Method::POST, &text, one, true), content(&Method::POST, &json, one, true));
    assert_ne!(content(&Method::POST, &text, one, true), content(&Method::PUT, &text, one, true));
}

proptest! {
    #[test]
    fn different_requests_have_different_keys(
        one in ("(/[ab]{0,2}){1,3}", proptest::option::of("[ab]{1,2}")),
        other in ("(/[ab]{0,2}){1,3}", proptest::option::of("[ab]{1,2}")),
    ) {
        let headers = HeaderMap::new();
        let of = |(path, query): &(String, Option<String>)| key(&parts(path, query.as_deref(), &headers));
        prop_assert_eq!(of(&one) == of(&other), one == other);
    }
}
