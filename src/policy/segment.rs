//! One segment of a path template: a literal, `**`, or a name between a prefix and a suffix. Prefixes and suffixes are
//! kept in normal form, and so are the paths that they are compared with.

use super::path;

/// One segment of a path template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    Literal(String),
    Name(NamedSegment),
    /// `**`: any number of segments, or none.
    Rest,
}

/// `prefix{name}suffix`, which matches one segment. The name stands for at least one character.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct NamedSegment {
    pub prefix: String,
    pub name: String,
    pub suffix: String,
}

impl NamedSegment {
    /// Returns whether every segment is matched: prefix and suffix are empty.
    pub(crate) fn is_plain(&self) -> bool {
        self.prefix.is_empty() && self.suffix.is_empty()
    }

    /// Returns whether a segment of a normalized path is matched.
    pub(crate) fn takes(&self, given: &str) -> bool {
        self.is_plain() || is_between(given, &self.prefix, &self.suffix)
    }

    fn covers(&self, other: &NamedSegment) -> bool {
        self.is_plain()
            || (other.prefix.starts_with(&self.prefix)
                && other.suffix.strip_suffix(&*self.suffix).is_some_and(|rest| !ends_in_escape(rest)))
    }

    /// Two prefixes meet where one begins with the other, because a name may have any characters.
    fn may_meet(&self, other: &NamedSegment) -> bool {
        (self.prefix.starts_with(&other.prefix) || other.prefix.starts_with(&self.prefix))
            && (self.suffix.ends_with(&other.suffix) || other.suffix.ends_with(&self.suffix))
    }
}

/// Returns whether a segment has a prefix and a suffix, and at least one character between them.
pub(super) fn is_between(given: &str, prefix: &str, suffix: &str) -> bool {
    let between = given.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
    between.is_some_and(|between| !between.is_empty() && (suffix.is_empty() || !ends_in_escape(between)))
}

/// Returns whether a suffix that follows `text` would begin inside a percent-escape: `20` is no suffix of `a%20`.
fn ends_in_escape(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.ends_with(b"%") || bytes.len().checked_sub(2).is_some_and(|at| bytes[at] == b'%')
}

impl Segment {
    /// Parses one segment of a template. The error says what is wrong.
    pub(super) fn parse(part: &str) -> Result<Segment, String> {
        if part == "**" {
            return Ok(Segment::Rest);
        }
        let (prefix, name, suffix) = match part.split_once('{') {
            Some((prefix, rest)) => {
                let Some((name, suffix)) = rest.split_once('}') else {
                    return Err(format!("{part:?}: a brace that is not closed"));
                };
                (prefix, Some(name), suffix)
            }
            None => (part, None, ""),
        };
        if prefix.contains('*') || suffix.contains('*') {
            return Err(format!("{part:?}: ** is a whole segment, and a part of one is written {{name}}"));
        }
        if prefix.contains('}') || suffix.contains(['{', '}']) {
            return Err(format!("{part:?}: a segment has one {{name}} at most"));
        }
        let Some(name) = name else { return literal(part) };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(format!("{{{name}}} is not a name of letters, digits and underscores"));
        }
        // Beside a character, so that a prefix of dots is not read as a dot segment.
        let normal = |text: &str| {
            path::normalise(text).map(|path| path.normal.into_owned()).map_err(|error| error.to_string())
        };
        let (before, after) = (normal(&format!("/{prefix}x"))?, normal(&format!("/x{suffix}"))?);
        let before = before.strip_prefix('/').and_then(|text| text.strip_suffix('x'));
        match (before, after.strip_prefix("/x")) {
            (Some(prefix), Some(suffix)) => Ok(Segment::Name(NamedSegment {
                prefix: prefix.to_owned(),
                name: name.to_owned(),
                suffix: suffix.to_owned(),
            })),
            _ => Err(format!("{part:?} is not a segment")),
        }
    }

    /// Returns whether one segment of a normalized path is matched. `Rest` matches any.
    pub(crate) fn takes(&self, given: &str) -> bool {
        match self {
            Segment::Literal(text) => text == given,
            Segment::Name(named) => named.takes(given),
            Segment::Rest => true,
        }
    }

    /// Returns whether this segment matches every segment that the other matches.
    pub(super) fn covers(&self, other: &Segment) -> bool {
        match (self, other) {
            (_, Segment::Literal(text)) => self.takes(text),
            (Segment::Name(one), Segment::Name(other)) => one.covers(other),
            (Segment::Name(named), Segment::Rest) => named.is_plain(),
            (Segment::Rest, _) => true,
            (Segment::Literal(_), _) => false,
        }
    }

    /// Returns whether some segment is matched by both.
    pub(super) fn may_meet(&self, other: &Segment) -> bool {
        match (self, other) {
            (Segment::Literal(text), other) | (other, Segment::Literal(text)) => other.takes(text),
            (Segment::Name(one), Segment::Name(other)) => one.may_meet(other),
            (Segment::Rest, _) | (_, Segment::Rest) => true,
        }
    }
}

fn literal(part: &str) -> Result<Segment, String> {
    if let Some(name) = part.strip_prefix(':')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    {
        return Err(format!("{part:?}: a segment is named in braces: {{{name}}}"));
    }
    let normal = path::normalise(&format!("/{part}")).map_err(|error| error.to_string())?.normal.into_owned();
    match normal.strip_prefix('/') {
        Some(segment) if !segment.is_empty() => Ok(Segment::Literal(segment.to_owned())),
        _ => Err(format!("{part:?} is not a segment")),
    }
}

/// The index of a segment, counted from the start of a path or, for what follows a `**`, from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    FromStart(usize),
    FromEnd(usize),
}

impl Place {
    /// Returns the index from the start in a path of `count` segments.
    pub(crate) fn index(self, count: usize) -> Option<usize> {
        match self {
            Place::FromStart(at) => Some(at),
            Place::FromEnd(at) => count.checked_sub(at + 1),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::FromStart(at) => write!(f, "{at}"),
            Place::FromEnd(at) => write!(f, "-{}", at + 1),
        }
    }
}

/// Where in a path a `{name}` of a template has its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capture {
    pub place: Place,
    /// Lengths of prefix and suffix in bytes, in normal form.
    pub prefix: usize,
    pub suffix: usize,
}

impl Capture {
    /// Returns the value in a path that the template matches. The path may be the normalized or the client's form.
    pub(crate) fn value<'a>(&self, path: &'a str) -> Option<&'a str> {
        let mut given = segments(path);
        let segment = match self.place {
            Place::FromStart(at) => given.nth(at),
            Place::FromEnd(at) => given.nth_back(at),
        };
        path::cut(segment?, self.prefix, self.suffix)
    }
}

/// Iterates over the segments of a path that are not empty.
pub(crate) fn segments(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_between_a_prefix_and_a_suffix() {
        for (template, given, wanted) in [
            ("{x}", "a", true),
            ("{x}.css", "a.css", true),
            ("{x}.css", "a.b.css", true),
            ("{x}.css", ".css", false),
            ("{x}.css", "a.css.map", false),
            ("@{x}", "@babel", true),
            ("@{x}", "babel", false),
            ("@{x}", "@", false),
            ("v{x}-beta", "v2-beta", true),
            ("v{x}-beta", "v-beta", false),
            ("a{x}a", "aa", false),
            ("a{x}a", "aba", true),
            (".{x}", ".env", true),
            ("..{x}", "..env", true),
            ("caf\u{e9}-{x}", "caf%C3%A9-1", true),
            ("%61{x}", "a1", true),
            ("{x}20", "a%20", false),
            ("{x}20", "a20", true),
            ("{x}0", "a%20", false),
            ("{x}%20", "a%20", true),
            ("x{x}", "xx", true),
        ] {
            assert_eq!(Segment::parse(template).expect(template).takes(given), wanted, "{template} {given}");
        }
    }

    #[test]
    fn which_segments_cover_and_meet_others() {
        for (one, other, covers, meets) in [
            ("{x}", "{y}.css", true, true),
            ("{x}", "a", true, true),
            ("{x}.css", "a.css", true, true),
            ("{x}.css", "a.js", false, false),
            ("{x}.css", "{x}.min.css", true, true),
            ("{x}.min.css", "{x}.css", false, true),
            ("{x}.css", "{x}.js", false, false),
            ("a{x}", "ab{x}", true, true),
            ("a{x}", "ab{x}c", true, true),
            ("a{x}c", "ab{x}", false, true),
            ("a{x}", "b{x}", false, false),
            ("{x}20", "{x}%20", false, true),
            ("{x}0", "{x}20", true, true),
            ("a", "{x}", false, true),
            ("a", "a", true, true),
            ("a", "b", false, false),
        ] {
            let (one, other) = (Segment::parse(one).expect(one), Segment::parse(other).expect(other));
            assert_eq!(one.covers(&other), covers, "{one:?} covers {other:?}");
            assert_eq!(one.may_meet(&other), meets, "{one:?} meets {other:?}");
            assert_eq!(other.may_meet(&one), meets, "{other:?} meets {one:?}");
        }
    }

    #[test]
    fn a_value_is_found_in_both_forms_of_a_path() {
        let capture = |place, prefix, suffix| Capture { place, prefix, suffix };
        for (capture, path, value) in [
            (capture(Place::FromStart(1), 0, 0), "/a/b/c", Some("b")),
            (capture(Place::FromEnd(0), 0, 4), "/a/b/c.css", Some("c")),
            (capture(Place::FromEnd(1), 1, 0), "/a/@b/c/", Some("b")),
            (capture(Place::FromStart(0), 5, 0), "/user%2D7", Some("7")),
            (capture(Place::FromStart(0), 5, 0), "//us%65r-%37", Some("%37")),
            (capture(Place::FromStart(0), 6, 4), "/\u{e9}7.%63ss", Some("7")),
            (capture(Place::FromStart(3), 0, 0), "/a", None),
        ] {
            assert_eq!(capture.value(path), value, "{path}");
        }
    }
}
