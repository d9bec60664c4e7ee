//! `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11), and the older `X-RateLimit-*` fields.
//! The draft may still change, so no other file knows the format.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, FieldType as _, List, ListEntry, Parser};

use super::fresh;

/// The field of section 4 of the draft: the state of a limit.
pub(crate) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The field of section 3 of the draft: the configured limits.
pub(crate) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const LEGACY_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const LEGACY_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const LEGACY_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Minimum number of seconds at which a random part is added to a reset time, so that clients do not all return at once
/// (section 8.5).
const JITTERED: u64 = 10;

/// Maximum bytes of an item in addition to its name, with the longest numbers.
const MAX_NUMBERS_LENGTH: usize = 64;

/// Formats the policy of a quota. A burst above the count is reported as the quota itself, with the time to refill it,
/// because the remaining number must not exceed the quota. The draft has no parameter for a burst below the count, and
/// a vendor's parameter needs a prefix (section 3.1).
pub(crate) fn quota_policy(name: &str, count: u32, period: Duration, burst: u32, tier: &str) -> String {
    let tier = of_tier(tier);
    if burst > count {
        let refill = period.as_nanos() * u128::from(burst) / u128::from(count.max(1));
        return format!("\"{name}\";q={burst};w={}{tier}", refill.div_ceil(1_000_000_000));
    }
    let mut policy = format!("\"{name}\";q={count};w={}", period.as_secs());
    if burst < count {
        let _ = write!(policy, ";pillion-burst={burst}");
    }
    policy + &tier
}

/// Formats the parameter that names the policy's tier; empty if the tier is not to be named.
fn of_tier(tier: &str) -> String {
    if tier.is_empty() { String::new() } else { format!(";pillion-tier=\"{tier}\"") }
}

/// Formats the policy of a limit on concurrent requests (section 3.1.2).
pub(crate) fn concurrency_policy(name: &str, max: u32, tier: &str) -> String {
    format!("\"{name}\";q={max};qu=\"concurrent-requests\"{}", of_tier(tier))
}

/// Converts to seconds, rounded up, so that a client that waits this long has waited long enough.
pub(crate) fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// The limit that is closest to exhaustion, as the client is told of it (appendix B.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateLimitState<'a> {
    pub name: &'a str,
    pub quota: u32,
    /// Remaining requests, or remaining quota units.
    pub remaining: u32,
    /// Time until more of the quota is available. Unknown for a limit on concurrent requests.
    pub reset: Option<Duration>,
    /// Whether the request was refused. The reset time then equals Retry-After, without a random part.
    pub refused: bool,
}

impl RateLimitState<'_> {
    fn item(&self) -> Option<HeaderValue> {
        fresh::value(self.name.len() + MAX_NUMBERS_LENGTH, |out| self.write(out))
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(b'"');
        out.put_slice(self.name.as_bytes());
        out.put_slice(b"\";r=");
        out.put_slice(itoa::Buffer::new().format(self.remaining).as_bytes());
        if let Some(reset) = self.reset {
            out.put_slice(b";t=");
            out.put_slice(itoa::Buffer::new().format(self.jittered(seconds(reset))).as_bytes());
        }
    }

    fn jittered(&self, seconds: u64) -> u64 {
        if self.refused || seconds < JITTERED { seconds } else { seconds + fastrand::u64(0..=seconds / 10) }
    }
}

/// Returns whether a field is one that this module writes.
pub(crate) fn is_rate_limit_field(name: &HeaderName) -> bool {
    static FIELDS: [HeaderName; 5] =
        [RATELIMIT, RATELIMIT_POLICY, LEGACY_LIMIT, LEGACY_REMAINING, LEGACY_RESET];
    FIELDS.contains(name)
}

/// Writes both fields as lines of a head, for a response in which the upstream sets neither.
pub(crate) fn write(out: &mut BytesMut, policies: &HeaderValue, state: &RateLimitState<'_>) {
    out.put_slice(b"ratelimit-policy: ");
    out.put_slice(policies.as_bytes());
    out.put_slice(b"\r\nratelimit: ");
    state.write(out);
    out.put_slice(b"\r\n");
}

/// Adds both fields to a response. The upstream's own limits are only made stricter (section 7.2): of two items with
/// the same name the stricter stays, and items with other names are kept.
pub(crate) fn insert_into(headers: &mut HeaderMap, policies: &HeaderValue, state: &RateLimitState<'_>) {
    let Some(item) = state.item() else { return };
    if !put(headers, RATELIMIT_POLICY, policies) {
        let policies = policies.to_str().unwrap_or_default();
        merge(headers, &RATELIMIT_POLICY, policies, |ours, theirs| rate(ours) < rate(theirs));
    }
    if !put(headers, RATELIMIT, &item) {
        let item = item.to_str().unwrap_or_default();
        merge(headers, &RATELIMIT, item, |ours, theirs| ours.number("r") < theirs.number("r"));
    }
}

/// Inserts a field with a single lookup; returns false if the field exists.
fn put(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) -> bool {
    match headers.entry(name) {
        Entry::Vacant(place) => drop(place.insert(value.clone())),
        Entry::Occupied(_) => return false,
    }
    true
}

/// Writes the older fields as lines of a head, for a response in which the upstream sets none of them.
pub(crate) fn write_legacy(out: &mut BytesMut, state: &RateLimitState<'_>, unix_now: u64) {
    let reset = state.reset.map(|reset| ("x-ratelimit-reset: ", unix_now + seconds(reset)));
    let numbers = [
        ("x-ratelimit-limit: ", u64::from(state.quota)),
        ("x-ratelimit-remaining: ", u64::from(state.remaining)),
    ];
    for (name, number) in numbers.into_iter().chain(reset) {
        out.put_slice(name.as_bytes());
        out.put_slice(itoa::Buffer::new().format(number).as_bytes());
        out.put_slice(b"\r\n");
    }
}

/// Adds the older fields. The reset time is in seconds since the Unix epoch, the most common meaning. Fields of the
/// upstream stay if they are stricter.
pub(crate) fn insert_legacy_into(headers: &mut HeaderMap, state: &RateLimitState<'_>, unix_now: u64) {
    let lines = headers.get_all(LEGACY_REMAINING).iter().filter_map(|value| value.to_str().ok());
    let app = lines.flat_map(|line| line.split(',')).filter_map(|part| part.trim().parse::<u64>().ok()).min();
    if app.is_some_and(|app| app <= u64::from(state.remaining)) {
        return;
    }
    headers.insert(LEGACY_LIMIT, HeaderValue::from(state.quota));
    headers.insert(LEGACY_REMAINING, HeaderValue::from(state.remaining));
    match state.reset {
        Some(reset) => headers.insert(LEGACY_RESET, HeaderValue::from(unix_now + seconds(reset))),
        None => headers.remove(LEGACY_RESET),
    };
}

/// A member of one of the two lists.
struct Member<'a>(&'a sfv::Item);

impl Member<'_> {
    fn parse(entry: &ListEntry) -> Option<Member<'_>> {
        match entry {
            ListEntry::Item(item) => Some(Member(item)),
            ListEntry::InnerList(_) => None,
        }
    }

    fn name(&self) -> Option<&str> {
        match &self.0.bare_item {
            BareItem::String(name) => Some(name.as_str()),
            _ => None,
        }
    }

    /// Returns an integer parameter; the maximum if it is missing, because a missing bound is no bound.
    fn number(&self, key: &str) -> i64 {
        let found = self.0.params.iter().find(|(name, _)| name.as_str() == key);
        match found.map(|(_, value)| value) {
            Some(BareItem::Integer(number)) => i64::from(*number),
            _ => i64::MAX,
        }
    }
}

/// Returns the requests per second that a policy allows.
fn rate(policy: &Member<'_>) -> f64 {
    let window = policy.number("w");
    policy.number("q") as f64 / if window == i64::MAX { 1.0 } else { window.max(1) as f64 }
}

/// Merges `ours`, a list of items, into the existing list. A malformed list is replaced, because no client can read it.
fn merge(
    headers: &mut HeaderMap,
    name: &HeaderName,
    ours: &str,
    is_stricter: impl Fn(&Member<'_>, &Member<'_>) -> bool,
) {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let mut list: List = Parser::new(&lines.join(&b", "[..])).parse().unwrap_or_default();
    let our_list: List = Parser::new(ours).parse().unwrap_or_default();
    for entry in our_list {
        let Some(member) = Member::parse(&entry) else { continue };
        let known = list.iter().position(|other| {
            Member::parse(other).is_some_and(|other| other.name().is_some() && other.name() == member.name())
        });
        let stricter = known.and_then(|at| list.get(at)).and_then(Member::parse);
        match (known, stricter.map(|theirs| is_stricter(&member, &theirs))) {
            (Some(at), Some(true)) => list[at] = entry,
            (Some(_), _) => {}
            (None, _) => list.push(entry),
        }
    }
    if let Some(Ok(value)) = list.serialize().map(HeaderValue::try_from) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(remaining: u32, reset: u64) -> RateLimitState<'static> {
        RateLimitState {
            name: "a",
            quota: 10,
            remaining,
            reset: Some(Duration::from_millis(reset)),
            refused: true,
        }
    }

    fn shown(headers: &HeaderMap, name: &str) -> String {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn policies() {
        let minute = Duration::from_secs(60);
        assert_eq!(quota_policy("a", 10, minute, 10, ""), "\"a\";q=10;w=60");
        assert_eq!(quota_policy("a", 10, minute, 10, "free"), "\"a\";q=10;w=60;pillion-tier=\"free\"");
        let both = "\"a\";q=10;w=60;pillion-burst=2;pillion-tier=\"free\"";
        assert_eq!(quota_policy("a", 10, minute, 2, "free"), both);
        assert_eq!(quota_policy("a", 10, Duration::from_secs(1), 1005, ""), "\"a\";q=1005;w=101");
        assert_eq!(concurrency_policy("c", 4, ""), "\"c\";q=4;qu=\"concurrent-requests\"");
    }

    #[test]
    fn alone() {
        let mut headers = HeaderMap::new();
        let policies = HeaderValue::from_static("\"a\";q=10;w=60");
        insert_into(&mut headers, &policies, &state(3, 5001));
        assert_eq!(shown(&headers, "ratelimit-policy"), "\"a\";q=10;w=60");
        assert_eq!(shown(&headers, "ratelimit"), "\"a\";r=3;t=6");
        insert_legacy_into(&mut headers, &state(3, 5001), 1_000_000);
        assert_eq!(shown(&headers, "x-ratelimit-limit"), "10");
        assert_eq!(shown(&headers, "x-ratelimit-remaining"), "3");
        assert_eq!(shown(&headers, "x-ratelimit-reset"), "1000006");
    }

    #[test]
    fn lines_say_what_fields_say() {
        let policies = HeaderValue::from_static("\"a\";q=10;w=60");
        let in_flight = RateLimitState { reset: None, ..state(3, 0) };
        for state in [state(3, 5001), in_flight] {
            let (mut headers, mut lines) = (HeaderMap::new(), BytesMut::new());
            insert_into(&mut headers, &policies, &state);
            insert_legacy_into(&mut headers, &state, 1_000_000);
            assert!(headers.keys().all(is_rate_limit_field) && !is_rate_limit_field(&http::header::DATE));
            write(&mut lines, &policies, &state);
            write_legacy(&mut lines, &state, 1_000_000);
            let written = lines[..].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let mut written: Vec<&[u8]> = written.map(|line| line.strip_suffix(b"\r").unwrap()).collect();
            let said = headers
                .iter()
                .map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes()].concat());
            let mut said: Vec<Vec<u8>> = said.collect();
            written.sort_unstable();
            said.sort_unstable();
            assert_eq!(written, said);
        }
    }

    #[test]
    fn reset_times_have_jitter_except_in_refusals() {
        let long = RateLimitState { refused: false, ..state(3, 100_000) };
        for _ in 0..100 {
            assert!((100..=110).contains(&long.jittered(100)));
        }
        assert_eq!(state(0, 100_000).jittered(100), 100);
    }

    #[test]
    fn what_the_app_says_is_only_made_stricter() {
        for (app, upstream_policy, field, policy) in [
            (
                "\"b\";r=1;t=9",
                "\"b\";q=5;w=9",
                "\"b\";r=1;t=9, \"a\";r=3;t=6",
                "\"b\";q=5;w=9, \"a\";q=10;w=60",
            ),
            ("\"a\";r=1;t=9", "\"a\";q=1;w=60", "\"a\";r=1;t=9", "\"a\";q=1;w=60"),
            ("\"a\";r=9;t=1", "\"a\";q=99;w=60", "\"a\";r=3;t=6", "\"a\";q=10;w=60"),
            ("limit=10", "10;w=1 2", "\"a\";r=3;t=6", "\"a\";q=10;w=60"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("ratelimit", app.parse().unwrap());
            headers.insert("ratelimit-policy", upstream_policy.parse().unwrap());
            insert_into(&mut headers, &HeaderValue::from_static("\"a\";q=10;w=60"), &state(3, 5001));
            assert_eq!(
                (shown(&headers, "ratelimit"), shown(&headers, "ratelimit-policy")),
                (field.to_owned(), policy.to_owned())
            );
        }
        for (app, left) in [("2", "2"), ("9", "3"), ("9, 1", "9, 1"), ("many", "3")] {
            let mut headers = HeaderMap::new();
            headers.insert("x-ratelimit-remaining", app.parse().unwrap());
            insert_legacy_into(&mut headers, &state(3, 5001), 0);
            assert_eq!(shown(&headers, "x-ratelimit-remaining"), left);
        }
    }
}
