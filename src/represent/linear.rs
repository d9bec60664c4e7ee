//! Every parser of field values takes linear time: 64 KiB of a value cost at most 12 times as much as 8 KiB (8 times,
//! plus some for caches). Quadratic parsers took 60 times as long, and blocked a worker.

use std::hint::black_box;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use rustix::time::{ClockId, clock_gettime};

use super::coding::{Coding, negotiate};
use super::precondition::{Conditions, for_app};
use super::{media, range};
use crate::fields::accept_encoding::{self, AcceptEncoding};
use crate::fields::cache_control::{self, RequestDirectives, ResponseDirectives};
use crate::fields::entity_tag::{EntityTag, TagList};
use crate::fields::media_type::MediaKind;
use crate::fields::{
    connection_auth, cookie, date, forwarded, glob, list, query, rate_limit, signature, structured, vary,
};
use crate::represent::breach_guard;

/// Maximum ratio of the cost of 64 KiB to the cost of 8 KiB.
const MAX_TIMES: f64 = 12.0;
const SMALL: usize = 8 * 1024;
const LARGE: usize = 64 * 1024;
/// Costs below this are too small to compare.
const NOTHING: Duration = Duration::from_micros(200);

/// A prefix, and a text that is repeated after it to the length of a value.
const SHAPES: [(&str, &str); 25] = [
    ("", "\"\\"),
    ("", "\\\""),
    ("\"", "\\\""),
    ("a=", "\"\\"),
    ("", ",\"\\\""),
    ("", "a=\"\\\","),
    ("", "\""),
    ("", "\"a\","),
    ("", "W/\"a\","),
    ("", "W/\"a\",\"\\"),
    ("", ","),
    ("", ";"),
    ("", " "),
    ("", "a,"),
    ("", "a;q=0.5,"),
    ("", "gzip;q=0.1;q=\"\\\","),
    ("", "a=b; "),
    ("", "(a \"\\\\"),
    ("bytes=", "0-0,"),
    ("bytes=", "\"\\"),
    ("", "for=\"[::1]:80\";proto=http, "),
    ("", "a&b=%41%"),
    ("", "SignedHeaders=a;"),
    ("a;", "stream=\"watch"),
    ("", "headers=\"a b\" "),
];

type Use = (&'static str, fn(&HeaderMap, &HeaderName));

fn value(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    headers.get(name).map(|value| value.as_bytes().to_vec()).unwrap_or_default()
}

/// Returns fields with the text under every name that one of the parsers reads.
fn headers_with(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in NAMES {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(text).unwrap());
    }
    headers
}

const NAMES: [&str; 19] = [
    "accept-encoding",
    "cache-control",
    "content-encoding",
    "content-type",
    "cookie",
    "cdn-cache-control",
    "etag",
    "forwarded",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "last-modified",
    "pragma",
    "range",
    "ratelimit",
    "vary",
    "x-forwarded-for",
    "x-forwarded-proto",
];

const USES: &[Use] = &[
    ("list", |headers, _| {
        black_box(list::elements_in_field(headers, &header::CACHE_CONTROL).count());
    }),
    ("list of tags", |headers, _| {
        black_box(list::of_unescaped(headers, &header::IF_NONE_MATCH).count());
    }),
    ("parameters", |headers, name| {
        black_box(list::split(&value(headers, name), b';').count());
    }),
    ("Cache-Control of responses", |headers, _| {
        black_box(ResponseDirectives::from_headers(headers, &[]));
    }),
    ("a targeted field", |headers, _| {
        black_box(ResponseDirectives::from_headers(headers, &[HeaderName::from_static("cdn-cache-control")]));
    }),
    ("Cache-Control of requests", |headers, _| {
        black_box(RequestDirectives::from_headers(headers));
    }),
    ("Pragma", |headers, name| {
        let mut only = HeaderMap::new();
        only.insert(header::PRAGMA, headers[name].clone());
        black_box(RequestDirectives::from_headers(&only));
    }),
    ("a directive", |headers, _| {
        black_box(cache_control::has(headers, "no-transform"));
    }),
    ("Accept-Encoding", |headers, _| {
        black_box(negotiate(&AcceptEncoding::from_headers(headers), &Coding::ALL));
    }),
    ("Content-Encoding", |headers, _| {
        black_box(AcceptEncoding::from_headers(headers).takes(&accept_encoding::content_encoding(headers)));
    }),
    ("tags", |headers, _| {
        black_box(TagList::from_headers(headers, &header::IF_MATCH));
        black_box(EntityTag::from_headers(headers));
    }),
    ("conditions", |headers, _| {
        let conditions = Conditions::from_headers(headers);
        black_box((
            conditions.evaluate(headers),
            conditions.range_holds(headers),
            conditions.range_is_void(),
        ));
    }),
    ("one condition", |headers, _| {
        let mut only = HeaderMap::new();
        only.insert(header::IF_NONE_MATCH, headers[header::IF_NONE_MATCH].clone());
        black_box(Conditions::from_headers(&only).evaluate(headers));
    }),
    ("conditions for the app", |headers, _| {
        black_box(for_app(headers, &header::IF_NONE_MATCH));
    }),
    ("Range", |headers, name| {
        black_box(range::select(&value(headers, name), 1 << 20));
    }),
    ("dates", |headers, _| {
        black_box(date::from_headers(headers, &header::LAST_MODIFIED));
    }),
    ("cookies", |headers, _| {
        black_box(cookie::counts(
            headers,
            &cookie::Ignored::new(
                ["_ga*", "*a*b*"].map(str::to_owned).to_vec(),
                |_| false,
                vec!["*_session".to_owned()],
            ),
        ));
    }),
    ("a glob", |headers, name| {
        black_box(glob::matches(b"*a*a*b", &value(headers, name)));
    }),
    ("Vary", |headers, _| {
        vary::add(&mut headers.clone(), &header::ACCEPT_ENCODING);
    }),
    ("media types", |headers, name| {
        let patterns = [media::MediaPattern::parse("application/*+json").unwrap()];
        black_box(media::matches(&patterns, &value(headers, name)));
    }),
    ("a stream or not", |headers, _| {
        black_box(MediaKind::from_headers(headers));
    }),
    ("authentication of connections", |headers, name| {
        let mut only = HeaderMap::new();
        only.insert(header::AUTHORIZATION, headers[name].clone());
        black_box(connection_auth::is_tried(&only));
    }),
    ("signatures", |headers, name| {
        let mut only = HeaderMap::new();
        only.insert(header::AUTHORIZATION, headers[name].clone());
        only.insert("signature-input", headers[name].clone());
        only.insert("signature", headers[name].clone());
        let query = only["signature"].to_str().ok();
        black_box(signature::covers(&only, query, &header::RANGE));
    }),
    ("Forwarded", |headers, _| {
        let mut only = HeaderMap::new();
        only.insert(header::FORWARDED, headers[header::FORWARDED].clone());
        let peer = "10.0.0.1".parse().unwrap();
        black_box((
            forwarded::client_ip(&only, peer, |_| true),
            forwarded::told_https(&only, peer, |_| true),
        ));
        black_box(forwarded::in_older_words(&only));
        forwarded::keep_believed(&mut only, peer, |_| true);
    }),
    ("X-Forwarded-For", |headers, _| {
        let peer = "10.0.0.1".parse().unwrap();
        black_box((
            forwarded::client_ip(headers, peer, |_| true),
            forwarded::told_https(headers, peer, |_| true),
        ));
        forwarded::keep_believed(&mut headers.clone(), peer, |_| true);
    }),
    ("a structured dictionary", |headers, name| {
        black_box(structured::dictionary(headers, name));
    }),
    ("a structured list", |headers, name| {
        black_box(structured::strings(headers, name));
    }),
    ("RateLimit", |headers, _| {
        let told =
            rate_limit::RateLimitState { name: "a", quota: 1, remaining: 1, reset: None, refused: false };
        rate_limit::insert_into(&mut headers.clone(), &HeaderValue::from_static("\"a\";q=1;w=1"), &told);
        rate_limit::insert_legacy_into(&mut headers.clone(), &told, 0);
    }),
    ("a query", |headers, name| {
        let text = String::from_utf8(value(headers, name)).unwrap();
        black_box(query::parameters(&text));
        black_box(breach_guard::values(Some(&text), Some(b"")).echo_in(Some(b"nothing of it")));
    }),
];

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// Returns the CPU time of one run.
fn cost(headers: &HeaderMap, parse: fn(&HeaderMap, &HeaderName)) -> Duration {
    let since = cpu_time();
    parse(black_box(headers), &header::CACHE_CONTROL);
    cpu_time() - since
}

/// Compares the best of `runs` for a small and a large value; stops as soon as they are in proportion.
fn best(small: &str, large: &str, parse: fn(&HeaderMap, &HeaderName), runs: usize) -> Result<(), String> {
    let (small, large) = (headers_with(small), headers_with(large));
    let (mut little, mut much) = (Duration::MAX, Duration::MAX);
    for _ in 0..runs {
        (little, much) = (little.min(cost(&small, parse)), much.min(cost(&large, parse)));
        if much < NOTHING || much.as_secs_f64() <= little.as_secs_f64() * MAX_TIMES {
            return Ok(());
        }
    }
    Err(format!("{little:?} for 8 KiB, {much:?} for 64 KiB"))
}

fn of_length(start: &str, text: &str, length: usize) -> String {
    let mut value = start.to_owned();
    while value.len() < length {
        value.push_str(text);
    }
    value.truncate(length);
    value
}

#[test]
fn n3_1_header_values_are_read_in_linear_time() {
    for (name, parse) in USES {
        for (start, text) in SHAPES {
            let (small, large) = (of_length(start, text, SMALL), of_length(start, text, LARGE));
            // Other processes on a busy machine use the caches too, so there are more than five runs.
            if let Err(costs) = best(&small, &large, *parse, 20) {
                panic!("{name} of {start}{text}...: {costs}");
            }
        }
    }
}
