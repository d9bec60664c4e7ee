//! The stream of live decisions behind `pillion tail`: one JSON object a line for each completed request that its
//! filter takes.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Frame;
use tokio::time::Sleep;

use super::control::Control;
use crate::layer;
use crate::layer::record::CacheHandling;
use crate::limit::counters::Verdict;
use crate::log::tail::{Filter, MAX_READERS, Refused, Subscription};
use crate::message::body::{Body, BodyError};
use crate::message::error::Fault;
use crate::runtime::clock;

/// Interval at which a reader is told how many lines it did not get.
const TICK: Duration = Duration::from_secs(1);
/// Ticks without a line after which an empty line shows that the stream lives, and finds out whether its reader does.
const QUIET_TICKS: u32 = 5;
/// Bytes from which the lines that wait are sent as one frame.
const FRAME: usize = 16 * 1024;
/// Maximum values of one condition of a filter.
const MAX_VALUES: usize = 16;

/// Opens a stream. The error is the status and the detail for the client.
pub(super) fn stream(
    control: &Control,
    parameters: &[(String, String)],
) -> Result<Body, (StatusCode, String)> {
    let (filter, address) = filter(parameters).map_err(|detail| (StatusCode::BAD_REQUEST, detail))?;
    let subscription = control.shared_state.tail.subscribe(filter, address).map_err(|refused| {
        let detail = match refused {
            Refused::Full => format!(
                "{MAX_READERS} readers of live decisions are connected already, which is the maximum; end one of them"
            ),
            Refused::Closed => "the process is draining".to_owned(),
        };
        (StatusCode::SERVICE_UNAVAILABLE, detail)
    })?;
    let tick = Box::pin(tokio::time::sleep(TICK));
    let mut body = Body::streaming(Lines { subscription, tick, quiet_ticks: 0, ended: false });
    body.set_endless();
    Ok(body)
}

/// Reads the filter, and whether addresses of clients are shown, from the parameters of a request.
fn filter(parameters: &[(String, String)]) -> Result<(Filter, bool), String> {
    let (mut filter, mut address) = (Filter::default(), false);
    for (name, value) in parameters {
        if parameters.iter().filter(|(other, _)| other == name).count() > MAX_VALUES {
            return Err(format!("the parameter {name} is given more than {MAX_VALUES} times"));
        }
        let expected = |what: &str| format!("{name} is {value:?}; expected {what}");
        match &**name {
            "status" => {
                let range = statuses(value);
                filter.statuses.push(range.ok_or_else(|| expected("a status (404) or a class (5xx)"))?);
            }
            "route" => filter.routes.push(value.clone()),
            "method" => {
                let method = Method::from_bytes(value.as_bytes());
                filter.methods.push(method.map_err(|_| expected("a method (GET)"))?);
            }
            "path" if !value.starts_with(['/', '*']) || value.contains('?') => {
                return Err(expected("a path without a query; * stands for any text (/api/*)"));
            }
            "path" => filter.paths.push(value.clone()),
            "user_hash" => filter.users.push(hash(value).ok_or_else(|| {
                expected("32 hexadecimal digits, as principal and caller have them in the access log")
            })?),
            "slow" => {
                filter.slow = Some(duration(value).ok_or_else(|| expected("a duration (200ms, 2s)"))?);
            }
            "cache" => {
                filter.cache.push(known(name, value, CacheHandling::ALL.map(CacheHandling::as_str))?);
            }
            "reason" => {
                let limits = [Verdict::Limited, Verdict::WouldLimit].map(Verdict::as_str);
                let faults = Fault::ALL.map(Fault::as_str);
                let words = layer::not_stored_words().into_iter().chain(limits).chain(faults);
                filter.reasons.push(known(name, value, words)?);
            }
            "address" if value == "true" => address = true,
            _ => return Err(expected("true")),
        }
    }
    Ok((filter, address))
}

/// Returns a value that is one of the words.
fn known(name: &str, value: &str, words: impl IntoIterator<Item = &'static str>) -> Result<String, String> {
    let words: Vec<&str> = words.into_iter().collect();
    match words.contains(&value) {
        true => Ok(value.to_owned()),
        false => Err(format!("{name} is {value:?}; expected one of {}", words.join(", "))),
    }
}

/// Parses a status or a class of statuses.
fn statuses(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (begin, rest) = text.split_at_checked(1)?;
    let begin: u16 = begin.parse().ok().filter(|class| (1..=5).contains(class))?;
    if rest.eq_ignore_ascii_case("xx") {
        return Some(begin * 100..=begin * 100 + 99);
    }
    let status = (text.len() == 3).then(|| text.parse().ok()).flatten()?;
    Some(status..=status)
}

/// Parses a keyed hash, with or without the kind of key before it.
fn hash(text: &str) -> Option<u128> {
    let digits = text.split_once(':').map_or(text, |(_, digits)| digits);
    let is_hash = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}

/// Parses a whole number of milliseconds, seconds or minutes.
fn duration(text: &str) -> Option<Duration> {
    let at = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(milliseconds).map(Duration::from_millis)
}

/// The content of the stream.
struct Lines {
    subscription: Subscription,
    tick: Pin<Box<Sleep>>,
    /// Ticks since the last line.
    quiet_ticks: u32,
    /// Whether the last line was sent.
    ended: bool,
}

impl Lines {
    /// Appends the number of lines that were not shown, if there are any.
    fn note_not_shown(&self, out: &mut Vec<u8>) {
        let count = self.subscription.take_not_shown();
        if count > 0 {
            out.extend_from_slice(format!("{{\"not_shown\":{count}}}\n").as_bytes());
        }
    }
}

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut out = Vec::new();
        while out.len() < FRAME && !self.ended {
            match self.subscription.poll_line(cx) {
                Poll::Ready(Some(line)) => out.extend_from_slice(&line),
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        while self.tick.as_mut().poll(cx).is_ready() {
            self.tick.as_mut().reset((clock::now() + TICK).into());
            self.note_not_shown(&mut out);
            self.quiet_ticks += 1;
        }
        if self.ended {
            self.note_not_shown(&mut out);
            out.extend_from_slice(b"{\"end\":\"draining\"}\n");
        } else if out.is_empty() && self.quiet_ticks >= QUIET_TICKS {
            out.push(b'\n');
        }
        if out.is_empty() {
            return Poll::Pending;
        }
        self.quiet_ticks = 0;
        Poll::Ready(Some(Ok(Frame::data(out.into()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &str) -> Result<(Filter, bool), String> {
        filter(&crate::fields::query::parameters(query))
    }

    #[test]
    fn wrong_value_names_the_parameter_and_what_is_expected() {
        for (query, detail) in [
            ("status=6xx", "status is \"6xx\"; expected a status (404) or a class (5xx)"),
            ("status=40", "status is \"40\"; expected a status (404) or a class (5xx)"),
            ("status=+40", "status is \" 40\"; expected a status (404) or a class (5xx)"),
            ("status=", "status is \"\"; expected a status (404) or a class (5xx)"),
            ("method=G%20T", "method is \"G T\"; expected a method (GET)"),
            ("path=api", "path is \"api\"; expected a path without a query; * stands for any text (/api/*)"),
            (
                "path=/a%3Fb",
                "path is \"/a?b\"; expected a path without a query; * stands for any text (/api/*)",
            ),
            (
                "user_hash=12",
                "user_hash is \"12\"; expected 32 hexadecimal digits, as principal and caller have them in the access log",
            ),
            ("slow=200", "slow is \"200\"; expected a duration (200ms, 2s)"),
            (
                "slow=99999999999999999999s",
                "slow is \"99999999999999999999s\"; expected a duration (200ms, 2s)",
            ),
            (
                "cache=hot",
                "cache is \"hot\"; expected one of hit, stale, stale-if-error, stale-if-slow, revalidated, collapsed, miss, expired, bypass, write, purge",
            ),
            ("address=yes", "address is \"yes\"; expected true"),
        ] {
            assert_eq!(parsed(query).err().as_deref(), Some(detail), "{query}");
        }
        let reason = parsed("reason=ugly").err().unwrap_or_default();
        assert!(reason.starts_with("reason is \"ugly\"; expected one of ") && reason.contains("no-lifetime"));
        let many = "status=5xx&".repeat(MAX_VALUES + 1);
        let detail = "the parameter status is given more than 16 times";
        assert_eq!(parsed(many.trim_end_matches('&')).err().as_deref(), Some(detail));
    }

    #[test]
    fn every_condition_is_read() {
        let hash = format!("{:032x}", 0xabc);
        let query = format!(
            "status=5XX&status=404&route=/a/*&method=GET&path=*.js&user_hash=ip:{hash}&slow=2s&cache=miss\
            &reason=no-lifetime&reason=limited&reason=upstream&address=true"
        );
        let (filter, address) = parsed(&query).unwrap();
        assert_eq!(filter.statuses, [500..=599, 404..=404]);
        assert_eq!((filter.routes, filter.methods), (vec!["/a/*".to_owned()], vec![Method::GET]));
        assert_eq!((filter.paths, filter.users), (vec!["*.js".to_owned()], vec![0xabc]));
        assert_eq!((filter.slow, filter.cache), (Some(Duration::from_secs(2)), vec!["miss".to_owned()]));
        assert_eq!(filter.reasons, ["no-lifetime", "limited", "upstream"]);
        assert!(address);
    }
}
