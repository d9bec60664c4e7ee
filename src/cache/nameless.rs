//! Requests of a route with `scope = "user"` that no source of `identity.principal` names: after a number of them, an
//! operator is told once which cookies and fields they carry, as one of those may be what tells users apart.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName, header};

use crate::fields::cookie;

/// Number of requests after which the operator is told.
const REQUESTS: u32 = 100;
/// Maximum number of cookies that are remembered, and of fields.
const MAX_NAMES: usize = 12;
/// A longer name is no name that somebody gave.
const MAX_LENGTH: usize = 64;

/// Fields that every client sends, and fields about the connection: none of them tells users apart.
static USUAL: [HeaderName; 24] = [
    header::HOST,
    header::USER_AGENT,
    header::ACCEPT,
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DNT,
    header::FORWARDED,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::ORIGIN,
    header::PRAGMA,
    header::RANGE,
    header::REFERER,
    header::TE,
    header::UPGRADE_INSECURE_REQUESTS,
    header::VIA,
];

/// The names seen on one route.
#[derive(Debug, Default)]
struct Names {
    cookies: BTreeSet<String>,
    fields: BTreeSet<String>,
}

/// The requests of one route without a principal.
#[derive(Debug, Default)]
pub(crate) struct Nameless {
    seen: AtomicU32,
    names: Mutex<Names>,
}

impl Nameless {
    /// Notes a request. For the last of [`REQUESTS`], returns the names of the cookies and of the fields that they
    /// carried.
    pub(crate) fn note(&self, headers: &HeaderMap) -> Option<(String, String)> {
        if self.seen.load(Ordering::Relaxed) >= REQUESTS {
            return None;
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, _) in cookie::pairs(headers) {
            let is_plain = name.iter().all(u8::is_ascii_graphic) && !name.is_empty();
            if let Some(name) = std::str::from_utf8(name).ok().filter(|_| is_plain) {
                add(&mut names.cookies, name);
            }
        }
        for name in headers.keys().filter(|name| !is_usual(name)) {
            add(&mut names.fields, name.as_str());
        }
        if self.seen.fetch_add(1, Ordering::Relaxed) + 1 != REQUESTS {
            return None;
        }
        let Names { cookies, fields } = std::mem::take(&mut *names);
        let shown = |names: BTreeSet<String>| match names.is_empty() {
            true => "none".to_owned(),
            false => names.into_iter().collect::<Vec<_>>().join(", "),
        };
        Some((shown(cookies), shown(fields)))
    }
}

fn add(names: &mut BTreeSet<String>, name: &str) {
    if names.len() < MAX_NAMES && name.len() <= MAX_LENGTH && !names.contains(name) {
        names.insert(name.to_owned());
    }
}

fn is_usual(name: &HeaderName) -> bool {
    USUAL.contains(name) || name.as_str().starts_with("x-forwarded-") || name.as_str().starts_with("sec-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_once_and_are_bounded() {
        let nameless = Nameless::default();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "a".parse().unwrap());
        for at in 0..REQUESTS + 3 {
            let cookies = format!("theme=dark; c{at:03}=S3CRET; =x; {}=1", "l".repeat(MAX_LENGTH + 1));
            headers.insert(header::COOKIE, cookies.parse().unwrap());
            headers.insert("x-session-of", "S3CRET".parse().unwrap());
            let told = nameless.note(&headers);
            if at + 1 == REQUESTS {
                let (cookies, fields) = told.unwrap();
                assert_eq!(cookies.split(", ").count(), MAX_NAMES, "{cookies}");
                assert!(cookies.starts_with("c000, c001") && cookies.ends_with("theme"), "{cookies}");
                assert_eq!(fields, "x-session-of");
            } else {
                assert_eq!(told, None, "{at}");
            }
        }
    }
}
