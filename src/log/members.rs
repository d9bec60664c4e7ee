//! The members that recur from line to line. Responses of one route differ mostly in their ids, paths, sizes and times,
//! so the text of all other members is cached.

use std::fmt::Write as _;
use std::ptr;

use http::{Method, StatusCode};

use super::line::Line;
use crate::rendering::json_text::EscapedText;
use crate::rendering::render_cache::{DirectMappedCache, same, stands};

/// The values of these members, and their JSON text. Values compared by address are kept alive here, so that no other
/// text can take their address.
#[derive(Debug)]
pub(super) struct Members {
    method: Method,
    protocol: &'static str,
    route: EscapedText,
    status: StatusCode,
    coding: Option<&'static str>,
    cache: Option<&'static str>,
    not_stored: Option<&'static str>,
    limit: Option<(EscapedText, &'static str)>,
    upstream: Option<EscapedText>,
    text: String,
}

impl Members {
    /// Returns the JSON text of the recurring members of `line`, each with a comma before it.
    #[inline(always)]
    pub(super) fn text<'r>(known: &'r mut DirectMappedCache<Members>, line: &Line<'_>) -> &'r str {
        let upstream = line.upstream.map_or(0, |upstream| stands(upstream));
        let status = line.status.as_u16().into();
        let parts = [stands(line.route), upstream, status, line.cache.map_or(0, stands)];
        &known.get(parts, |known| known.fit(line), || Members::for_line(line)).text
    }

    #[inline(always)]
    fn fit(&self, line: &Line<'_>) -> bool {
        let upstream = match (&self.upstream, line.upstream) {
            (Some(known), Some(upstream)) => known.is(upstream),
            (None, None) => true,
            _ => false,
        };
        let limit = match (&self.limit, &line.limited) {
            (Some((tier, word)), Some(limited)) => tier.is(limited.tier) && ptr::eq(*word, limited.word),
            (None, None) => true,
            _ => false,
        };
        self.status == line.status
            && self.route.is(line.route)
            && upstream
            && self.method == *line.method
            && ptr::eq(self.protocol, line.protocol)
            && same(self.cache, line.cache)
            && same(self.not_stored, line.not_stored)
            && same(self.coding, line.coded.map(|(coding, _)| coding))
            && limit
    }

    /// Inlined, so that `line` need not be in memory for another function. Most lines never get here.
    #[inline(always)]
    fn for_line(line: &Line<'_>) -> Box<Members> {
        let members = Members {
            method: line.method.clone(),
            protocol: line.protocol,
            route: line.route.clone(),
            status: line.status,
            coding: line.coded.map(|(coding, _)| coding),
            cache: line.cache,
            not_stored: line.not_stored,
            limit: line.limited.map(|limited| (limited.tier.clone(), limited.word)),
            upstream: line.upstream.cloned(),
            text: String::new(),
        };
        members.put_together()
    }

    #[cold]
    #[inline(never)]
    fn put_together(mut self) -> Box<Members> {
        let level = if self.status.is_server_error() { "ERROR" } else { "INFO" };
        let mut text = format!(
            r#","level":"{level}","message":"{} {} {}","kind":"access""#,
            self.method,
            self.route.escaped(),
            self.status.as_u16()
        );
        // A method is a token (RFC 9110 9.1). All other values except routes, tiers and addresses are fixed words.
        let mut member = |name: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = write!(text, r#","{name}":"{value}""#);
        };
        member("method", self.method.as_str());
        member("protocol", self.protocol);
        member("route", self.route.escaped());
        let words = [("cache", self.cache), ("not_stored", self.not_stored), ("coding", self.coding)];
        words.iter().for_each(|(name, word)| word.iter().for_each(|word| member(name, word)));
        if let Some((tier, word)) = &self.limit {
            member("tier", tier.escaped());
            member("limit", word);
        }
        self.upstream.iter().for_each(|upstream| member("upstream", upstream.escaped()));
        let _ = write!(text, r#","status":{}"#, self.status.as_u16());
        self.text = text;
        Box::new(self)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::log::Decision;

    #[test]
    fn no_line_has_what_is_another_s() {
        let (id, routes) =
            (HeaderValue::from_static("a"), [EscapedText::new("/a"), EscapedText::new("/\"b")]);
        let (upstream, tiers) =
            (EscapedText::new("[::1]:80"), [EscapedText::new("free"), EscapedText::new("paid")]);
        let methods = [Method::GET, Method::HEAD, Method::from_bytes(b"PURGE-ALL-OF-THE-CACHE").unwrap()];
        let plain = Line::bare(&id, &methods[0], &routes[0]);
        let limited = |tier, word| Some(Decision { caller: ("ip", 1), tier, word, limits: &["a", "b"] });
        let lines = [
            plain,
            Line { method: &methods[1], ..plain },
            Line { method: &methods[2], ..plain },
            Line { protocol: "HTTP/2", ..plain },
            Line { route: &routes[1], ..plain },
            Line { status: StatusCode::NOT_FOUND, ..plain },
            Line { coded: Some(("br", 1)), ..plain },
            Line { cache: Some("hit"), ..plain },
            Line { cache: Some("miss"), ..plain },
            Line { not_stored: Some("private"), ..plain },
            Line { upstream: Some(&upstream), ..plain },
            Line { limited: limited(&tiers[0], "allowed"), ..plain },
            Line { limited: limited(&tiers[0], "limited"), ..plain },
            Line { limited: limited(&tiers[1], "limited"), ..plain },
        ];
        let alone = lines.map(|line| Members::for_line(&line).text);
        let mut all = DirectMappedCache::NONE;
        for (one, line) in lines.iter().enumerate() {
            for (two, other) in lines.iter().enumerate() {
                assert_eq!(Members::text(&mut all, line), alone[one]);
                assert_eq!(Members::text(&mut all, other), alone[two]);
                assert_eq!(alone[one] == alone[two], one == two, "{} {}", alone[one], alone[two]);
                // This holds even if both lines use the same slot of the cache.
                assert_eq!(Members::for_line(line).fit(other), one == two, "{} {}", alone[one], alone[two]);
            }
        }
    }
}
