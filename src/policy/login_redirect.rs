//! Classifies the `Location` of a response: whether it leads to the requested origin, or to a login page, which means
//! that a write was refused.

use std::borrow::Cow;

use super::path;
use crate::fields::{host, query};

/// The value of `on_redirect` in `[[invalidate]]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnRedirect {
    /// A redirect invalidates unless it means that the write was refused. 307 and 308 never invalidate.
    #[default]
    Auto,
    Always,
    Never,
}

/// Last path segments of typical login pages.
const LOGINS: [&str; 6] = ["login", "log-in", "signin", "sign_in", "sso", "wp-login.php"];
/// Maximum number of times that a query value is decoded, because apps encode URLs within URLs.
const MAX_DECODED: usize = 3;

/// The target of a write request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AskedFor {
    /// Authorities: the requested one, the one that a trusted proxy reports, and those of the upstream.
    pub hosts: Vec<String>,
    /// Normalized paths: as the client wrote it, and as it was sent to the upstream.
    pub paths: Vec<String>,
}

impl AskedFor {
    /// Returns whether a `Location` (RFC 9110 10.2.2) means that the request was refused: it leads to another host, it
    /// is a login page, or its query names the requested path, to return to it later.
    pub(crate) fn is_refused_by(&self, location: &str) -> bool {
        let location = location.trim();
        let location = location.split('#').next().unwrap_or("");
        let (place, query) = location.split_once('?').unwrap_or((location, ""));
        let (authority, path) = split_authority(place);
        if authority.is_some_and(|authority| !self.is_known_host(authority)) {
            return true;
        }
        let target = self.paths.last().map_or("", String::as_str);
        // A reference without a path keeps the path of the target (RFC 3986 5.3).
        let path = if path.is_empty() && authority.is_none() { target } else { path };
        is_login(path) || query::pairs(query).any(|(_, value)| self.is_asked_path(&value))
    }

    /// Returns whether an authority has the name of one of the hosts, with any port.
    pub(crate) fn is_known_host(&self, authority: &str) -> bool {
        let authority = authority.rsplit('@').next().unwrap_or(authority);
        let name = host::name(authority);
        self.hosts.iter().any(|known| host::name(known).eq_ignore_ascii_case(name))
    }

    /// Returns whether a decoded query value is the requested path, or a URL with that path.
    fn is_asked_path(&self, value: &[u8]) -> bool {
        let mut value = Cow::Borrowed(value);
        for _ in 0..MAX_DECODED {
            let Ok(text) = std::str::from_utf8(&value) else { return false };
            let place = text.split(['?', '#']).next().unwrap_or("");
            let (_, path) = split_authority(place);
            if path.starts_with('/')
                && let Ok(path) = path::normalise(path)
                && self.paths.iter().any(|asked| trimmed(asked) == trimmed(&path.normal))
            {
                return true;
            }
            if !value.contains(&b'%') {
                return false;
            }
            value = Cow::Owned(query::percent_decoded(&value));
        }
        false
    }
}

/// Returns the normalized path of a reference (RFC 3986 5) to the requested origin; `None` if it leads to another
/// origin.
pub(crate) fn same_origin(reference: &str, target: &str, asked: &str) -> Option<String> {
    let path = if let Some(rest) = reference.strip_prefix("http://").or(reference.strip_prefix("https://")) {
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let https = reference.starts_with("https:");
        let plain = |authority: &str| {
            let host = host::without_default_port(authority.as_bytes(), https);
            host::without_default_port(host, !https).to_ascii_lowercase()
        };
        if plain(authority) != plain(asked) {
            return None;
        }
        if path.starts_with('/') { path.to_owned() } else { "/".to_owned() }
    } else if reference.starts_with("//") || reference.split(['/', '?', '#']).next()?.contains(':') {
        return None;
    } else if reference.starts_with('/') {
        reference.to_owned()
    } else if reference.is_empty() || reference.starts_with(['?', '#']) {
        target.to_owned()
    } else {
        // A relative reference starts at the folder of the target.
        let folder = target.rfind('/').map_or("/", |at| &target[..=at]);
        format!("{folder}{reference}")
    };
    let path = path.split(['?', '#']).next().unwrap_or("/");
    path::normalise(path).ok().map(|path| path.normal.into_owned())
}

/// Splits a reference (RFC 3986 4.2) into its authority, if it has one, and its path.
pub(crate) fn split_authority(place: &str) -> (Option<&str>, &str) {
    let rest = match place.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => match rest.strip_prefix("//") {
            Some(rest) => rest,
            // A URI without an authority, such as `mailto:`.
            None => return (Some(""), rest),
        },
        _ => match place.strip_prefix("//") {
            Some(rest) => rest,
            None => return (None, place),
        },
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (Some(authority), path)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn is_login(path: &str) -> bool {
    let last = trimmed(path).rsplit('/').next().unwrap_or("");
    // Servlet containers append the session id after a semicolon.
    let last = last.split(';').next().unwrap_or("");
    let last = query::percent_decoded(last.as_bytes());
    LOGINS.iter().any(|login| last.eq_ignore_ascii_case(login.as_bytes()))
}

/// Removes a slash at the end of a path, as invalidation does.
fn trimmed(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_the_same_origin() {
        let target = "/api/orders/7";
        for (reference, wanted) in [
            ("/api/orders/8", Some("/api/orders/8")),
            ("8", Some("/api/orders/8")),
            ("./8?x=1#y", Some("/api/orders/8")),
            ("../8", Some("/api/8")),
            ("http://a.example/x/../y", Some("/y")),
            ("https://A.example/y", Some("/y")),
            ("https://A.example:8443/y", None),
            ("http://a.example", Some("/")),
            ("http://b.example/y", None),
            ("//b.example/y", None),
            ("mailto:x", None),
            ("?x=1", Some("/api/orders/7")),
        ] {
            assert_eq!(same_origin(reference, target, "a.example:80").as_deref(), wanted, "{reference}");
        }
    }

    #[test]
    fn n3_8_which_redirects_are_refusals() {
        let asked = AskedFor {
            hosts: ["a.example:8080", "public.example", "127.0.0.1:3000"].map(str::to_owned).to_vec(),
            paths: ["/shop/orders/7", "/orders/7"].map(str::to_owned).to_vec(),
        };
        for (location, wanted) in [
            ("", false),
            ("/orders/8", false),
            ("8", false),
            ("?saved=1", false),
            ("http://a.example/orders/8", false),
            ("https://A.example:9/orders/8", false),
            ("http://127.0.0.1:3000/orders/8", false),
            ("https://public.example./", false),
            ("//a.example/orders/8", false),
            // The location is on another host.
            ("https://sso.example/auth", true),
            ("//other.example/orders/8", true),
            ("https://a.example.evil/", true),
            ("https://a.example@evil.example/", true),
            ("HTTPS://other.example", true),
            ("app://callback?code=1", true),
            ("mailto:x@a.example", true),
            // The query names the requested path, to return to it.
            ("/accounts/begin?next=/orders/7", true),
            ("/begin?next=%2Forders%2F7%3Fx%3D1", true),
            ("/begin?ReturnUrl=%2Fshop%2Forders%2F7%2F", true),
            ("/begin?x=1&return_to=https%3A%2F%2Fa.example%2Forders%2F7", true),
            ("/begin?next=%252Forders%252F7", true),
            ("/begin?next=/orders/%37", true),
            ("?back=/orders/7", true),
            ("/begin?next=/orders/8", false),
            ("/begin?next=/orders", false),
            ("/begin?next=orders/7", false),
            ("/orders/7", false),
            ("/orders/7?saved=1", false),
            ("/orders#/orders/7?next=/orders/7", false),
            // The location is a login page.
            ("/login", true),
            ("/Account/Login", true),
            ("/accounts/login/?x=1", true),
            ("/users/sign_in", true),
            ("/log-in#top", true),
            ("/signin", true),
            ("../sso", true),
            ("/wp-login.php?reauth=1", true),
            ("/login;jsessionid=1", true),
            ("/%6cogin", true),
            ("https://a.example/login", true),
            ("/logins", false),
            ("/login/done", false),
            ("/?login", false),
            ("/#/login", false),
            ("/:login", false),
            ("/a:b/login", true),
        ] {
            assert_eq!(asked.is_refused_by(location), wanted, "{location:?}");
        }
        let login = AskedFor { hosts: Vec::new(), paths: vec!["/login".to_owned()] };
        assert!(login.is_refused_by("?error=1"), "a login that failed");
    }
}
