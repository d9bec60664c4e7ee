//! The normal form of a path, for route matching and for the upstream. If two servers read a path differently, a client
//! can bypass a rule. Unreserved characters are therefore decoded, dot segments removed and empty segments merged, and
//! `%2F` stays inside its segment. An ambiguous path is refused (RFC 3986 6.2.2, RFC 9110 4.2.3). [`super::loose`] has
//! the other readings of lenient apps.

use std::borrow::Cow;

use crate::fields::query::octet;

/// The reason why a path was refused, always with a 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// A `%` without two hexadecimal digits.
    BadEscape,
    /// An encoded NUL, `%00`, which ends the path in some servers.
    Null,
    /// A raw backslash, which some servers read as a slash.
    Backslash,
    /// A dot segment written with escapes.
    EncodedDots,
    /// A segment that is a dot segment after its parameters are cut (`..;`).
    DotsWithParameters,
    /// A segment that consists only of semicolons.
    EmptyParameters,
    /// More `..` segments than segments before them.
    AboveRoot,
}

impl std::fmt::Display for PathError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PathError::BadEscape => "a percent sign in the path is not followed by two hexadecimal digits",
            PathError::Null => "the path holds an encoded NUL",
            PathError::Backslash => "the path holds a backslash",
            PathError::EncodedDots => "the path holds an encoded dot segment",
            PathError::DotsWithParameters => "the path holds a dot segment with parameters",
            PathError::EmptyParameters => "the path holds a segment that is a bare semicolon",
            PathError::AboveRoot => "the path leads above the root",
        })
    }
}

impl std::error::Error for PathError {}

/// A path in its normalized form and in the form to forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath<'a> {
    /// The form for route matching, cache keys and tags.
    pub normal: Cow<'a, str>,
    /// The form for the upstream: as the client wrote it, without dot segments.
    pub onward: Cow<'a, str>,
    /// Whether a lenient app may read a different path ([`super::loose::reading`]).
    pub is_odd: bool,
}

/// Normalizes `path`: `/a//%62/../c` becomes `/a/c`. An ambiguous path such as `/a/%2e%2e/c` is an error.
pub fn normalise(path: &str) -> Result<NormalPath<'_>, PathError> {
    let looks = Looks::inspect(path.as_bytes());
    if looks.is_normal {
        return Ok(NormalPath {
            normal: Cow::Borrowed(path),
            onward: Cow::Borrowed(path),
            is_odd: looks.is_odd,
        });
    }
    let mut normal: Vec<String> = Vec::new();
    let mut onward: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    let mut directory = false;
    while let Some(raw) = segments.next() {
        let last = segments.peek().is_none();
        let decoded = decode_segment(raw)?;
        match raw {
            "." => directory = last,
            ".." => {
                // Empty segments are kept for the upstream, but `..` does not count them.
                while onward.last().is_some_and(|segment| segment.is_empty()) {
                    onward.pop();
                }
                if normal.pop().is_none() {
                    return Err(PathError::AboveRoot);
                }
                onward.pop();
                directory = last;
            }
            "" if last => directory = true,
            "" => onward.push(""),
            _ => {
                check_segment(&decoded)?;
                normal.push(decoded);
                onward.push(raw);
            }
        }
    }
    Ok(NormalPath {
        normal: Cow::Owned(join(&normal, directory)),
        onward: Cow::Owned(join(&onward, directory)),
        is_odd: looks.is_odd,
    })
}

/// Refuses a segment that some app reads as a dot segment or as empty. Apps cut parameters before or after they remove
/// dots (RFC 3986 3.3), and some decode `%2F`, `%5C` and `%3B` before both.
fn check_segment(decoded: &str) -> Result<(), PathError> {
    for part in decoded.split("%2F").flat_map(|part| part.split("%5C")) {
        let name = without_parameters(part);
        match name {
            "." | ".." if name.len() == part.len() => return Err(PathError::EncodedDots),
            "." | ".." => return Err(PathError::DotsWithParameters),
            "" if !part.is_empty() && part.bytes().all(|byte| byte == b';') => {
                return Err(PathError::EmptyParameters);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns a segment without parameters, as some apps read it (RFC 3986 3.3). Escapes must have digits in upper case.
pub(super) fn without_parameters(segment: &str) -> &str {
    let name = segment.split(';').next().unwrap_or_default();
    name.split("%3B").next().unwrap_or_default()
}

/// Returns whether a lenient app may read a different path than this normalized one.
pub(crate) fn is_odd(normal: &str) -> bool {
    Looks::inspect(normal.as_bytes()).is_odd
}

/// Returns whether a path as the upstream received it normalizes to `normal`.
pub(crate) fn is_same(given: &[u8], normal: &str) -> bool {
    let given = std::str::from_utf8(given).ok();
    given.and_then(|given| normalise(given).ok()).is_some_and(|path| path.normal == normal)
}

fn join<S: AsRef<str>>(segments: &[S], directory: bool) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        path.push_str(segment.as_ref());
    }
    if directory || path.is_empty() {
        path.push('/');
    }
    path
}

/// The result of inspecting every byte of a path.
#[derive(Clone, Copy)]
struct Looks {
    /// The path needs no decoding, encoding, merging or removal; true for nearly every request.
    is_normal: bool,
    /// The path has a different loose reading.
    is_odd: bool,
}

/// A byte that the normal form writes differently, or that needs a closer look.
const NOT_NORMAL: u8 = 1;
/// A byte that the loose reading writes differently.
const ODD: u8 = 2;

const OCTETS: [u8; 256] = {
    let mut octets = [0; 256];
    let mut byte = 0u8;
    loop {
        octets[byte as usize] = match byte {
            b'%' | b'\\' | b';' => NOT_NORMAL | ODD,
            b'A'..=b'Z' => ODD,
            _ if is_encoded(byte) => NOT_NORMAL | ODD,
            _ => 0,
        };
        if byte == u8::MAX {
            break octets;
        }
        byte += 1;
    }
};

/// Returns whether the normal form percent-encodes a byte. No path may contain it raw (RFC 3986 3.3), but clients
/// differ in encoding it.
const fn is_encoded(byte: u8) -> bool {
    matches!(byte, 0..=b' ' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f..)
}

impl Looks {
    fn inspect(path: &[u8]) -> Looks {
        let (mut before, mut seen) = (0u8, 0u8);
        for byte in path {
            seen |= OCTETS[usize::from(*byte)];
            // An empty segment, or one that starts with a dot.
            if before == b'/' && matches!(byte, b'/' | b'.') {
                seen |= NOT_NORMAL | ODD;
            }
            before = *byte;
        }
        let directory = path.len() > 1 && path.ends_with(b"/");
        Looks { is_normal: seen & NOT_NORMAL == 0, is_odd: seen & ODD != 0 || directory }
    }
}

fn decode_segment(raw: &str) -> Result<String, PathError> {
    let mut decoded = String::with_capacity(raw.len());
    let mut rest = raw;
    let odd = |c: char| !c.is_ascii() || c == '%' || c == '\\' || is_encoded(c as u8);
    while let Some(at) = rest.find(odd) {
        decoded.push_str(&rest[..at]);
        let after = &rest[at..];
        let c = after.chars().next().unwrap_or_default();
        if c == '\\' {
            return Err(PathError::Backslash);
        }
        if c != '%' {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|octet| push_encoded(&mut decoded, octet));
            rest = &after[c.len_utf8()..];
            continue;
        }
        let digits = after.get(1..3).ok_or(PathError::BadEscape)?;
        let octet = octet(digits.as_bytes()).ok_or(PathError::BadEscape)?;
        match octet {
            0 => return Err(PathError::Null),
            // Escapes of unreserved characters are equivalent to the characters (RFC 3986 2.3), so they are decoded.
            _ if is_unreserved(octet) => decoded.push(char::from(octet)),
            // The digits of an escape are written in upper case (RFC 3986 6.2.2.1).
            _ => push_encoded(&mut decoded, octet),
        }
        rest = &after[3..];
    }
    decoded.push_str(rest);
    Ok(decoded)
}

/// Returns the part of a segment that is left when `start` bytes of its normal form are cut from its start and `end` from
/// its end. The segment may be as the client wrote it, with more escapes than the normal form has.
pub(super) fn cut(segment: &str, start: usize, end: usize) -> Option<&str> {
    if start == 0 && end == 0 {
        return Some(segment);
    }
    let length: usize = units(segment).map(|(_, normal)| normal).sum();
    let stop = length.checked_sub(end)?;
    let (mut at, mut from, mut to) = (0, None, None);
    for (offset, normal) in units(segment) {
        from = if at == start { Some(offset) } else { from };
        to = if at == stop { Some(offset) } else { to };
        at += normal;
    }
    segment.get(from?..to.unwrap_or(segment.len()))
}

/// Iterates over the characters and escapes of a segment: the offset of each, and its length in the normal form.
fn units(segment: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        let rest = segment.get(offset..)?;
        let c = rest.chars().next()?;
        let escape = if c == '%' { rest.as_bytes().get(1..3).and_then(octet) } else { None };
        let (length, normal) = match escape {
            Some(octet) => (3, if is_unreserved(octet) { 1 } else { 3 }),
            None if c.is_ascii() && !is_encoded(c as u8) => (1, 1),
            None => (c.len_utf8(), 3 * c.len_utf8()),
        };
        offset += length;
        Some((offset - length, normal))
    })
}

/// Returns whether a byte is an unreserved character (RFC 3986 2.3).
pub(super) fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

/// Appends a byte as a percent-escape (RFC 3986 2.1).
pub(super) fn push_encoded(text: &mut String, octet: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(octet >> 4)]));
    text.push(char::from(DIGITS[usize::from(octet & 15)]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_normal_form() {
        for (path, normal, onward) in [
            ("/", "/", "/"),
            ("/a/b", "/a/b", "/a/b"),
            ("/a//b/", "/a/b/", "/a//b/"),
            ("//a", "/a", "//a"),
            ("/a/./b", "/a/b", "/a/b"),
            ("/a/../b", "/b", "/b"),
            ("/a//%62/../c", "/a/c", "/a//c"),
            ("/a/..", "/", "/"),
            ("/a/b/..", "/a/", "/a/"),
            ("/a/.", "/a/", "/a/"),
            ("/a//../b", "/b", "/b"),
            ("/%61%2d%7E", "/a-~", "/%61%2d%7E"),
            ("/a%2fb", "/a%2Fb", "/a%2fb"),
            ("/a%20b", "/a%20b", "/a%20b"),
            ("/.well-known/x", "/.well-known/x", "/.well-known/x"),
            ("/..a/b", "/..a/b", "/..a/b"),
            ("/a;v=1/b", "/a;v=1/b", "/a;v=1/b"),
            ("/;jsessionid=1", "/;jsessionid=1", "/;jsessionid=1"),
            ("/..a;x/.b;", "/..a;x/.b;", "/..a;x/.b;"),
            ("/a%5cb", "/a%5Cb", "/a%5cb"),
            ("/caf\u{e9}/{x}", "/caf%C3%A9/%7Bx%7D", "/caf\u{e9}/{x}"),
        ] {
            let found = normalise(path).expect(path);
            assert_eq!((found.normal.as_ref(), found.onward.as_ref()), (normal, onward), "{path}");
        }
    }

    #[test]
    fn n2_6_what_can_be_read_in_two_ways_is_refused() {
        for (path, error) in [
            ("/a%00b", PathError::Null),
            ("/a\\b", PathError::Backslash),
            ("/a/..;/b", PathError::DotsWithParameters),
            ("/a/..;a=b/b", PathError::DotsWithParameters),
            ("/.;a=b", PathError::DotsWithParameters),
            ("/%2e%2E;/a", PathError::DotsWithParameters),
            ("/..%3bx/a", PathError::DotsWithParameters),
            ("/a%2f..;x/b", PathError::DotsWithParameters),
            ("/a%5c..%5Cb", PathError::EncodedDots),
            ("/..%5ca", PathError::EncodedDots),
            ("/a/;/b", PathError::EmptyParameters),
            ("/a/;;", PathError::EmptyParameters),
            ("/a%2F;/b", PathError::EmptyParameters),
            ("/%2e%2e/a", PathError::EncodedDots),
            ("/.%2E/a", PathError::EncodedDots),
            ("/a/%2e", PathError::EncodedDots),
            ("/a/%2e%2e/c", PathError::EncodedDots),
            ("/a/..%2fb", PathError::EncodedDots),
            ("/a/b%2F%2e%2e", PathError::EncodedDots),
            ("/../a", PathError::AboveRoot),
            ("/a/../../b", PathError::AboveRoot),
            ("/%", PathError::BadEscape),
            ("/%4", PathError::BadEscape),
            ("/%zz", PathError::BadEscape),
            ("/%+1", PathError::BadEscape),
        ] {
            assert_eq!(normalise(path), Err(error), "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own_normal_form(path in "/([a-c.;{\u{e9}%2/]|%2[eEfF]|%5C|%3b|%6[1-9]){0,20}") {
            if let Ok(found) = normalise(&path) {
                let again = normalise(&found.normal).expect("a normal form is valid");
                prop_assert!(found.is_odd || !again.is_odd);
                prop_assert_eq!(&again.normal, &found.normal);
                prop_assert!(!found.normal.contains("//"));
                prop_assert!(!found.normal.split('/').any(|segment| segment == "." || segment == ".."));
                let onward = normalise(&found.onward).expect("what goes on is valid");
                prop_assert_eq!(onward.normal, found.normal, "both ends of the proxy see one path");
            }
        }
    }
}
