//! `Cookie` (RFC 6265 4.2): its pairs, and which of the cookies count as personal.

use http::{HeaderMap, HeaderName, header};

use super::glob;

/// `Set-Cookie` and the obsolete `Set-Cookie2`. Neither is ever replayed from a stored response.
pub(crate) static SETTING: [HeaderName; 2] = [header::SET_COOKIE, HeaderName::from_static("set-cookie2")];

/// Iterates over the name and the value of every cookie of a request, as written.
pub(crate) fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(header::COOKIE).iter();
    let parts = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    parts.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()).map(|pair| {
        match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()),
            // Browsers also send values without a name.
            None => (&b""[..], pair),
        }
    })
}

/// Returns whether a name or value could be parsed differently by some apps, for example as further cookies.
pub(crate) fn is_odd(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b' ' | b'\t' | b',' | b'"' | b'\\'))
}

/// Returns whether a pattern matches the name of a session cookie. Case is ignored, and so are the prefixes that bind a
/// cookie to its host (RFC 6265bis 4.1.3).
pub(crate) fn is_named(pattern: &str, name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 2] = [b"__Secure-", b"__Host-"];
    let plain = PREFIXES.iter().find_map(|prefix| {
        let (start, rest) = name.split_at_checked(prefix.len())?;
        start.eq_ignore_ascii_case(prefix).then_some(rest)
    });
    let matches = |name| glob::matches_without_case(pattern.as_bytes(), name);
    matches(name) || plain.is_some_and(matches)
}

/// The configured patterns of ignored cookies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ignored {
    always: Vec<String>,
    /// Patterns that never match a cookie in `sessions`. An analytics pattern such as `_hj*` may also match an app's
    /// own session cookie such as `_hjelp_session`.
    usually: Vec<String>,
    sessions: Vec<String>,
}

impl Ignored {
    /// Ignores the cookies that one of `patterns` matches. A pattern with a star never matches a cookie in `sessions`,
    /// unless `named` tells that the pattern means session cookies.
    pub(crate) fn new(patterns: Vec<String>, named: impl Fn(&str) -> bool, sessions: Vec<String>) -> Ignored {
        let is_usual = |pattern: &String| pattern.contains('*') && !named(pattern);
        let (usually, always) = patterns.into_iter().partition(is_usual);
        Ignored { always, usually, sessions }
    }

    /// Returns the patterns, by what they do.
    pub(crate) fn patterns(&self) -> [(&'static str, &[String]); 3] {
        [
            ("ignored_cookies", &self.always),
            ("usually_ignored_cookies", &self.usually),
            ("session_cookies", &self.sessions),
        ]
    }

    /// Returns whether a cookie of this name is ignored.
    pub(crate) fn covers(&self, name: &[u8]) -> bool {
        let any =
            |patterns: &[String]| patterns.iter().any(|pattern| glob::matches(pattern.as_bytes(), name));
        let is_session = || self.sessions.iter().any(|pattern| is_named(pattern, name));
        any(&self.always) || (any(&self.usually) && !is_session())
    }
}

/// Iterates over the cookies that count: those not ignored, and those with an odd name or value.
pub(crate) fn counted<'a>(
    headers: &'a HeaderMap,
    ignored: &'a Ignored,
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    pairs(headers).filter(|(name, value)| is_odd(name) || is_odd(value) || !ignored.covers(name))
}

/// Returns whether the request has a cookie that counts.
pub(crate) fn counts(headers: &HeaderMap, ignored: &Ignored) -> bool {
    counted(headers, ignored).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_cookies_count() {
        let ignored = Ignored::new(["_ga*", "_gid"].map(str::to_owned).to_vec(), |_| true, Vec::new());
        for (lines, wanted) in [
            (&[][..], false),
            (&[""], false),
            (&["_ga=1; _gid=2"], false),
            (&["_ga_XY=1"], false),
            (&["_gid2=1"], true),
            (&["_ga=1; s=2"], true),
            (&["_ga=1", "s=2"], true),
            (&["naked"], true),
            (&[" ; ;_ga=1;"], false),
            (&["x_ga=1"], true),
            (&["_ga=1 session=2"], true),
            (&["_ga=1, session=2"], true),
            (&["_ga,session=2"], true),
            (&["_ga session=2"], true),
            (&["_ga\"session=2"], true),
            (&["_ga=\"1; session=2\""], true),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, line.parse().unwrap());
            }
            assert_eq!(counts(&headers, &ignored), wanted, "{lines:?}");
        }
    }

    #[test]
    fn n1_5_what_is_ignored_by_a_star_is_no_session() {
        let patterns = ["_hj*", "ai_session", "own_*"].map(str::to_owned).to_vec();
        let sessions = ["*_session", "*-session"].map(str::to_owned).to_vec();
        let ignored = Ignored::new(patterns, |pattern| pattern == "own_*", sessions);
        for (name, wanted) in [
            ("_hjSessionUser_1", true),
            ("_hjid", true),
            ("_hjelp_session", false),
            ("_hj_SESSION", false),
            ("ai_session", true),
            ("own_session", true),
            ("other", false),
        ] {
            assert_eq!(ignored.covers(name.as_bytes()), wanted, "{name}");
        }
    }
}
