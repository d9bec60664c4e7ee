//! `Cache-Control` (RFC 9111 5.2): its directives, whoever sends them.

use http::{HeaderMap, header};

use super::list;

/// One directive: its name as written, and what follows the `=`, quotes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directive<'a> {
    /// Compare with [`Directive::is`].
    pub name: &'a [u8],
    /// `None` without an argument.
    pub argument: Option<&'a [u8]>,
}

impl Directive<'_> {
    /// Names are compared without regard to case (RFC 9111 5.2).
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The directives of a message, in order.
pub fn directives(headers: &HeaderMap) -> impl Iterator<Item = Directive<'_>> {
    list::of(headers, &header::CACHE_CONTROL).map(|element| {
        let mut parts = element.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default().trim_ascii();
        Directive { name, argument: parts.next().map(<[u8]>::trim_ascii) }
    })
}

/// Whether a directive is there, with or without an argument.
pub fn has(headers: &HeaderMap, name: &str) -> bool {
    directives(headers).any(|directive| directive.is(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_of_all_lines() {
        let mut headers = HeaderMap::new();
        headers.append("cache-control", "Public, max-age=60".parse().unwrap());
        headers.append("cache-control", "private=\"a, no-store\" , no-transform".parse().unwrap());
        let names: Vec<&[u8]> = directives(&headers).map(|directive| directive.name).collect();
        assert_eq!(names, [&b"Public"[..], b"max-age", b"private", b"no-transform"]);
        assert!(has(&headers, "public") && has(&headers, "private") && !has(&headers, "no-store"));
        let age = directives(&headers).find(|directive| directive.is("max-age"));
        assert_eq!(age.and_then(|directive| directive.argument), Some(&b"60"[..]));
    }
}
