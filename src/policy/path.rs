//! The one normal form of a path: what routes are matched against, and what goes on to the app.
//!
//! Two servers that read one path differently are how a rule is walked around. So: unreserved octets
//! are decoded, dot segments removed, empty segments merged, `%2F` stays inside its segment; what
//! cannot be read in one way only is refused (RFC 3986 6.2.2, RFC 9110 4.2.3).

use std::borrow::Cow;

/// Why a path was refused; always a 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// `%` without two hexadecimal digits.
    BadEscape,
    /// `%00`.
    Null,
    /// A backslash, raw or encoded, which some servers take for a slash.
    Backslash,
    /// A dot segment spelt with escapes.
    EncodedDots,
    /// More `..` than there are segments.
    AboveRoot,
}

impl std::fmt::Display for PathError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PathError::BadEscape => "a percent sign in the path is not followed by two hexadecimal digits",
            PathError::Null => "the path holds an encoded NUL",
            PathError::Backslash => "the path holds a backslash",
            PathError::EncodedDots => "the path holds an encoded dot segment",
            PathError::AboveRoot => "the path leads above the root",
        })
    }
}

impl std::error::Error for PathError {}

/// A path in its two readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath<'a> {
    /// For matching, keys and tags.
    pub normal: Cow<'a, str>,
    /// For the app: as the client wrote it, dot segments removed.
    pub onward: Cow<'a, str>,
}

/// Brings `path` into normal form.
///
/// ```
/// use pillion::policy::path::normalise;
///
/// let path = normalise("/a//%62/../c").expect("it can be read in one way");
/// assert_eq!(path.normal, "/a/c");
/// assert!(normalise("/a/%2e%2e/c").is_err());
/// ```
pub fn normalise(path: &str) -> Result<NormalPath<'_>, PathError> {
    if is_plain(path.as_bytes()) {
        return Ok(NormalPath { normal: Cow::Borrowed(path), onward: Cow::Borrowed(path) });
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
                // The empty segments kept for the app are not segments to go up from.
                while onward.last().is_some_and(|segment| segment.is_empty()) {
                    onward.pop();
                }
                if normal.pop().is_none() {
                    return Err(PathError::AboveRoot);
                }
                onward.pop();
                directory = last;
            }
            // An app that decodes %2F before it removes dots would see them as segments.
            _ if decoded.split("%2F").any(|part| part == "." || part == "..") => {
                return Err(PathError::EncodedDots);
            }
            "" if last => directory = true,
            "" => onward.push(""),
            _ => {
                normal.push(decoded);
                onward.push(raw);
            }
        }
    }
    Ok(NormalPath {
        normal: Cow::Owned(join(&normal, directory)),
        onward: Cow::Owned(join(&onward, directory)),
    })
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

/// Nothing to decode, merge or remove: true of nearly every request.
fn is_plain(path: &[u8]) -> bool {
    let mut before = 0u8;
    for byte in path {
        match byte {
            b'%' | b'\\' => return false,
            b'/' | b'.' if before == b'/' => return false,
            _ => before = *byte,
        }
    }
    true
}

fn decode_segment(raw: &str) -> Result<String, PathError> {
    let mut decoded = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find(['%', '\\']) {
        decoded.push_str(&rest[..at]);
        if rest.as_bytes()[at] == b'\\' {
            return Err(PathError::Backslash);
        }
        let digits = rest.get(at + 1..at + 3).ok_or(PathError::BadEscape)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(PathError::BadEscape);
        }
        let octet = u8::from_str_radix(digits, 16).map_err(|_| PathError::BadEscape)?;
        match octet {
            0 => return Err(PathError::Null),
            b'\\' => return Err(PathError::Backslash),
            // RFC 3986 2.3: equivalent spelt out, so it is.
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                decoded.push(char::from(octet));
            }
            // RFC 3986 6.2.2.1: the digits of an escape in upper case.
            _ => {
                decoded.push('%');
                decoded.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = &rest[at + 3..];
    }
    decoded.push_str(rest);
    Ok(decoded)
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
            ("/a/..", "/", "/"),
            ("/a/b/..", "/a/", "/a/"),
            ("/a/.", "/a/", "/a/"),
            ("/a//../b", "/b", "/b"),
            ("/%61%2d%7E", "/a-~", "/%61%2d%7E"),
            ("/a%2fb", "/a%2Fb", "/a%2fb"),
            ("/a%20b", "/a%20b", "/a%20b"),
            ("/.well-known/x", "/.well-known/x", "/.well-known/x"),
            ("/..a/b", "/..a/b", "/..a/b"),
        ] {
            let found = normalise(path).expect(path);
            assert_eq!((found.normal.as_ref(), found.onward.as_ref()), (normal, onward), "{path}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (path, error) in [
            ("/a%00b", PathError::Null),
            ("/a\\b", PathError::Backslash),
            ("/a%5cb", PathError::Backslash),
            ("/%2e%2e/a", PathError::EncodedDots),
            ("/.%2E/a", PathError::EncodedDots),
            ("/a/%2e", PathError::EncodedDots),
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
        fn the_normal_form_is_its_own_normal_form(path in "/([a-c.%2/]|%2[eEfF]|%6[1-9]){0,20}") {
            if let Ok(found) = normalise(&path) {
                let again = normalise(&found.normal).expect("a normal form is valid");
                prop_assert_eq!(&again.normal, &found.normal);
                prop_assert!(!found.normal.contains("//"));
                prop_assert!(!found.normal.split('/').any(|segment| segment == "." || segment == ".."));
                let onward = normalise(&found.onward).expect("what goes on is valid");
                prop_assert_eq!(onward.normal, found.normal, "both ends of the proxy see one path");
            }
        }
    }
}
