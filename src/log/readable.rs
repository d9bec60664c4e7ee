//! Formats an access log line for people: the most important values first and in columns, then the others with the
//! names they have in JSON.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

use super::line::{Decision, Line};
use super::mask::masked;
use super::time;

/// Appends `line` and a line end. Writing to a vector cannot fail.
#[inline(never)]
pub(super) fn write(out: &mut Vec<u8>, line: Line<'_>) {
    out.extend_from_slice(&time::rfc3339(line.at));
    let _ = write!(
        out,
        " {:>3} {:>9}ms {:<6} {} {} ({})",
        line.status.as_u16(),
        milliseconds(line.duration),
        line.method.as_str(),
        masked(line.target, line.secrets),
        line.client,
        line.route,
    );
    let mut put = |name: &str, value: &dyn Display| {
        let _ = write!(out, " {name}={value}");
    };
    put("bytes", &line.bytes);
    line.cache.inspect(|word| put("cache", word));
    line.not_stored.inspect(|word| put("not_stored", word));
    if let Some(Decision { caller: (kind, hash), tier, word, limits }) = line.limited {
        put("limit", &word);
        put("tier", tier);
        put("caller", &format_args!("{kind}:{hash:032x}"));
        if !limits.is_empty() {
            put("limits", &limits.join(","));
        }
    }
    if let Some((coding, before)) = line.coded {
        put("coding", &coding);
        put("content_bytes", &before);
    }
    line.upstream.inspect(|upstream| put("upstream", upstream));
    line.upstream_time.inspect(|time| put("upstream_ms", &milliseconds(*time)));
    line.first_byte.inspect(|time| put("first_byte_ms", &milliseconds(*time)));
    if line.retries > 0 {
        put("retries", &line.retries);
    }
    line.principal.inspect(|principal| put("principal", &format_args!("{principal:032x}")));
    put("protocol", &line.protocol);
    // The id was made by Pillion, or accepted because it needs no escaping.
    put("request_id", &line.id.to_str().unwrap_or("-"));
    line.trace.inspect(|trace| put("trace_id", &format_args!("{trace:032x}")));
    if let Some((fault, error)) = line.error {
        put("fault", &fault);
        put("error", &format_args!("{error:?}"));
    }
    out.push(b'\n');
}

fn milliseconds(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_millis(), duration.subsec_micros() % 1000)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use http::{HeaderValue, Method, StatusCode};
    use serde_json::Value;

    use super::*;
    use crate::log::json;
    use crate::log::mask::Secrets;
    use crate::log::members::Members;
    use crate::policy::secrets::NO_SECRET_SEGMENTS;
    use crate::rendering::json_text::EscapedText;
    use crate::rendering::render_cache::DirectMappedCache;

    #[test]
    fn it_says_what_json_says() {
        let (id, route, upstream, tier) = (
            HeaderValue::from_static("an-id"),
            EscapedText::new("/{a}"),
            EscapedText::new("[::1]:80"),
            EscapedText::new("free"),
        );
        let names = ["token".to_owned()];
        let full = Line {
            trace: Some(0xabc),
            target: "/7?token=S3CRET",
            secrets: Secrets { names: &names, segments: &NO_SECRET_SEGMENTS },
            status: StatusCode::BAD_GATEWAY,
            bytes: 12,
            coded: Some(("br", 34)),
            duration: Duration::from_micros(12_345),
            upstream_time: Some(Duration::from_micros(11_001)),
            upstream: Some(&upstream),
            retries: 2,
            first_byte: Some(Duration::from_micros(12_000_000)),
            cache: Some("miss"),
            not_stored: Some("private"),
            principal: Some(0xdef),
            limited: Some(Decision { caller: ("ip", 1), tier: &tier, word: "limited", limits: &["a", "b"] }),
            error: Some(("upstream", "it broke\noff")),
            ..Line::bare(&id, &Method::GET, &route)
        };
        let bare = Line::bare(&id, &Method::GET, &route);
        let said = |line: Line<'_>| {
            let mut text = Vec::new();
            write(&mut text, line);
            String::from_utf8(text).unwrap()
        };
        let time = String::from_utf8(time::rfc3339(full.at).to_vec()).unwrap();
        let shown = format!(
            "{time} 502    12.345ms GET    /7?token=*** 127.0.0.1 (/{{a}}) bytes=12 cache=miss not_stored=private \
             limit=limited tier=free caller=ip:{:032x} limits=a,b coding=br content_bytes=34 upstream=[::1]:80 \
             upstream_ms=11.001 first_byte_ms=12000.000 retries=2 principal={:032x} protocol=HTTP/1.1 \
             request_id=an-id trace_id={:032x} fault=upstream error=\"it broke\\noff\"\n",
            1, 0xdef, 0xabc
        );
        assert_eq!(said(full), shown);
        for line in [full, bare] {
            let (mut out, mut recurring) = (Vec::new(), DirectMappedCache::<Members>::NONE);
            json::write(&mut out, &mut recurring, &line);
            let members: BTreeMap<String, Value> = serde_json::from_slice(&out).unwrap();
            let text = said(line);
            let named = text.split_once(") ").unwrap().1.split(' ').filter_map(|word| word.split_once('='));
            let first = ["kind", "time", "status", "duration_ms", "method", "path", "client", "route"];
            let names: BTreeSet<&str> = named.map(|(name, _)| name).chain(first).collect();
            assert_eq!(names, members.keys().map(String::as_str).collect(), "{text}");
        }
    }
}
