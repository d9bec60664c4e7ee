//! One of the latest decisions in words, for `pillion explain --request-id`.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::control::Control;
use super::report::Report;
use crate::layer;
use crate::log;

/// Handles `GET /explain?request_id=`.
pub(super) fn explain(control: &Control, parameters: &[(String, String)]) -> Report {
    let Some((_, id)) = parameters.iter().find(|(name, _)| name == "request_id") else {
        return Err((StatusCode::BAD_REQUEST, "the parameter request_id is missing".to_owned()));
    };
    let Some(decision) = control.shared_state.recent.find(id) else {
        return Err((
            StatusCode::NOT_FOUND,
            format!(
                "the request {id:?} is not among the latest decisions of this process; it keeps the last 1000 \
                requests that failed, were slow or have a status of 400 and above, and the last 1000 others, about \
                100 of each a second; search the access log for the id"
            ),
        ));
    };
    let parts = Words::new(&decision).0;
    let explanation: Vec<Value> =
        parts.into_iter().map(|(part, text)| json!({ "part": part, "text": text })).collect();
    Ok(json!({ "request": decision, "explanation": explanation }))
}

/// The parts of an explanation, each with its name.
struct Words(Vec<(&'static str, String)>);

impl Words {
    /// Puts the members of a log line into words.
    fn new(decision: &Value) -> Words {
        let mut words = Words(Vec::new());
        let text = |name: &str| decision[name].as_str();
        words.say(
            "request",
            format!(
                "{} {} over {}, completed {}",
                text("method").unwrap_or("-"),
                text("path").unwrap_or("-"),
                text("protocol").unwrap_or("-"),
                text("time").unwrap_or("-")
            ),
        );
        words.say(
            "route",
            match text("route") {
                Some("refused") | None => "none: the message was refused before it was routed".to_owned(),
                Some("unmatched") => "none matches".to_owned(),
                Some(route) => route.to_owned(),
            },
        );
        if let Some(principal) = text("principal") {
            words.say("principal", format!("{principal}; it gets its own stored responses"));
        }
        words.limit(decision);
        words.cache(decision);
        words.upstream(decision);
        words.response(decision);
        if let (Some(fault), Some(error)) = (text("fault"), text("error")) {
            let whose = match fault {
                "client" => "the client",
                "upstream" => "the upstream",
                _ => "Pillion",
            };
            words.say("failure", format!("{error}; at fault: {whose}"));
        }
        words
    }

    fn say(&mut self, part: &'static str, text: String) {
        self.0.push((part, text));
    }

    fn limit(&mut self, decision: &Value) {
        let text = |name: &str| decision[name].as_str();
        let (Some(word), Some(tier), Some(caller)) = (text("limit"), text("tier"), text("caller")) else {
            return;
        };
        let limits = decision["limits"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let limits = limits.collect::<Vec<_>>().join(" and ");
        let verdict = match word {
            "limited" => format!("refused: beyond {limits}"),
            "would-limit" => format!("allowed only because the tier is in shadow mode: beyond {limits}"),
            _ => "allowed".to_owned(),
        };
        self.say("limit", format!("{verdict}; tier {tier}, caller {caller}"));
    }

    fn cache(&mut self, decision: &Value) {
        let handling = match decision["cache"].as_str() {
            None => return,
            Some("hit") => "hit: served from a fresh stored response",
            Some("stale") => "stale: served from a stale stored response",
            Some("stale-if-error") => {
                "stale-if-error: served from a stale stored response, because the upstream failed"
            }
            Some("stale-if-slow") => {
                "stale-if-slow: served from a stale stored response, because the upstream was slow"
            }
            Some("revalidated") => "revalidated: served from a stored response that the upstream confirmed",
            Some("collapsed") => "collapsed: served from a response that another request fetched",
            Some("miss") => "miss: no stored response fits the request",
            Some("expired") => "expired: the stored response was stale or invalidated",
            Some("bypass") => "bypass: the cache is not used for this request",
            Some("write") => "write: the request may change something, so it goes to the upstream",
            Some("purge") => "purge: the request purges stored responses",
            Some(other) => other,
        };
        self.say("cache", handling.to_owned());
        if let Some(word) = decision["not_stored"].as_str() {
            let part = if decision["cache"] == "bypass" { "reason" } else { "not stored" };
            let why = layer::not_stored_sentence(word).map_or_else(String::new, |why| format!(": {why}"));
            self.say(part, format!("{word}{why}\nsee docs/why-not-cached.md#reason-{word}"));
        }
    }

    fn upstream(&mut self, decision: &Value) {
        let Some(upstream) = decision["upstream"].as_str() else {
            return self.say("upstream", "not asked".to_owned());
        };
        let time = decision["upstream_ms"].as_f64().map(|ms| format!(" after {}", duration(ms)));
        let retries = match decision["retries"].as_u64() {
            None | Some(0) => String::new(),
            Some(1) => ", at the second try".to_owned(),
            Some(retries) => format!(", after {retries} more tries"),
        };
        let verb = if decision["fault"] == "upstream" { "asked; failed" } else { "responded" };
        self.say("upstream", format!("{upstream} {verb}{}{retries}", time.unwrap_or_default()));
    }

    fn response(&mut self, decision: &Value) {
        let milliseconds = |name: &str| decision[name].as_f64().map(duration);
        let status = match decision["status"].as_u64() {
            Some(499) => "499: the client disconnected before the response".to_owned(),
            status => status.unwrap_or_default().to_string(),
        };
        let bytes = decision["bytes"].as_u64().unwrap_or_default();
        let mut text = format!("{status}, {bytes} bytes of content");
        if let (Some(coding), Some(before)) =
            (decision["coding"].as_str(), decision["content_bytes"].as_u64())
        {
            text += &format!(" ({before} before {coding})");
        }
        text += &format!(", in {}", milliseconds("duration_ms").unwrap_or_default());
        if let Some(first) = milliseconds("first_byte_ms") {
            text += &format!("; its head after {first}");
        }
        self.say("response", text);
    }
}

fn duration(milliseconds: f64) -> String {
    log::duration(Duration::from_secs_f64((milliseconds / 1000.0).max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::record::CacheHandling;

    #[test]
    fn members_of_a_line_are_put_into_words() {
        let base = json!({
            "time": "2026-11-21T23:27:24.000Z", "method": "GET", "path": "/a", "protocol": "HTTP/1.1",
            "route": "/{a}", "status": 200, "bytes": 3, "duration_ms": 12.3, "first_byte_ms": 12.0,
        });
        for (more, part, text) in [
            (json!({}), "request", "GET /a over HTTP/1.1, completed 2026-11-21T23:27:24.000Z"),
            (json!({}), "route", "/{a}"),
            (json!({ "route": "unmatched" }), "route", "none matches"),
            (json!({ "route": "refused" }), "route", "none: the message was refused before it was routed"),
            (json!({ "principal": "0a" }), "principal", "0a; it gets its own stored responses"),
            (
                json!({ "limit": "limited", "tier": "free", "caller": "ip:1", "limits": ["minute", "day"] }),
                "limit",
                "refused: beyond minute and day; tier free, caller ip:1",
            ),
            (
                json!({ "limit": "would-limit", "tier": "free", "caller": "ip:1", "limits": ["day"] }),
                "limit",
                "allowed only because the tier is in shadow mode: beyond day; tier free, caller ip:1",
            ),
            (
                json!({ "limit": "allowed", "tier": "free", "caller": "ip:1" }),
                "limit",
                "allowed; tier free, caller ip:1",
            ),
            (json!({ "cache": "hit" }), "cache", "hit: served from a fresh stored response"),
            (
                json!({ "cache": "miss", "not_stored": "no-lifetime" }),
                "not stored",
                "no-lifetime: neither the response nor the route gives it a freshness lifetime\n\
                see docs/why-not-cached.md#reason-no-lifetime",
            ),
            (
                json!({ "cache": "bypass", "not_stored": "scope-off" }),
                "reason",
                "scope-off: the route has scope \"off\"\nsee docs/why-not-cached.md#reason-scope-off",
            ),
            (json!({}), "upstream", "not asked"),
            (
                json!({ "upstream": "a:1", "upstream_ms": 11.0, "retries": 1 }),
                "upstream",
                "a:1 responded after 11.0ms, at the second try",
            ),
            (
                json!({ "upstream": "a:1", "retries": 2, "fault": "upstream", "error": "it broke" }),
                "upstream",
                "a:1 asked; failed, after 2 more tries",
            ),
            (json!({}), "response", "200, 3 bytes of content, in 12.3ms; its head after 12.0ms"),
            (
                json!({ "coding": "gzip", "content_bytes": 9 }),
                "response",
                "200, 3 bytes of content (9 before gzip), in 12.3ms; its head after 12.0ms",
            ),
            (json!({ "fault": "client", "error": "it left" }), "failure", "it left; at fault: the client"),
        ] {
            let mut decision = base.clone();
            let more = more.as_object().cloned().unwrap_or_default();
            decision.as_object_mut().unwrap().extend(more);
            let words = Words::new(&decision).0;
            let found = words.iter().find(|(name, _)| *name == part).map(|(_, text)| text.as_str());
            assert_eq!(found, Some(text), "{decision}");
        }
    }

    #[test]
    fn every_word_of_the_cache_has_a_sentence() {
        for word in CacheHandling::ALL.map(CacheHandling::as_str) {
            let words = Words::new(&json!({ "cache": word })).0;
            assert!(words.iter().any(|(_, text)| text.starts_with(&format!("{word}: "))), "{word}");
        }
        for word in layer::not_stored_words() {
            assert!(layer::not_stored_sentence(word).is_some(), "{word}");
        }
    }
}
