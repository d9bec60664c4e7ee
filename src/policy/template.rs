//! Path templates: the segments that `{name}` and `**` match.

use super::segment::{Capture, Place, Segment, segments};

/// A text that no literal, prefix or suffix has, since no normal form has it.
pub(super) const UNUSUAL: &str = "\u{1}";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// The segments; `Rest` occurs once at most.
    pub segments: Vec<Segment>,
    /// Whether the template ends in a slash. One that ends in `**` matches paths with and without a slash at their end.
    pub directory: bool,
}

impl Template {
    /// Parses a path template without a query, for matching or for the upstream.
    pub(crate) fn parse_path(text: &str) -> Result<Template, String> {
        if let Some(odd) = text.find(['?', '#']) {
            let odd = text.get(odd..=odd).unwrap_or_default();
            return Err(format!("{odd:?} ends a path; queries and fragments are not matched"));
        }
        Template::parse(text)
    }

    /// Returns the segments before `**` and, if there is one, those after it.
    pub(crate) fn around_rest(&self) -> (&[Segment], Option<&[Segment]>) {
        match self.segments.iter().position(|segment| *segment == Segment::Rest) {
            Some(at) => (&self.segments[..at], Some(&self.segments[at + 1..])),
            None => (&self.segments, None),
        }
    }

    /// Returns whether a path is matched with and without a slash at its end.
    fn ends_in_rest(&self) -> bool {
        !self.directory && self.segments.last() == Some(&Segment::Rest)
    }

    /// Returns whether this template matches all paths that the other matches.
    pub(super) fn covers(&self, other: &Template) -> bool {
        if !self.ends_in_rest() && (other.ends_in_rest() || self.directory != other.directory) {
            return false;
        }
        // Most templates differ before a `**`, and a file may have very many of them.
        for (one, other) in self.segments.iter().zip(&other.segments) {
            match (one, other) {
                (Segment::Rest, _) | (_, Segment::Rest) => break,
                (one, other) if !one.covers(other) => return false,
                _ => {}
            }
        }
        let (front, tail) = self.around_rest();
        let (other_front, other_tail) = other.around_rest();
        let Some(tail) = tail else {
            return other_tail.is_none()
                && front.len() == other_front.len()
                && front.iter().zip(other_front).all(|(one, other)| one.covers(other));
        };
        if front.len() + tail.len() > other_front.len() + other_tail.map_or(0, <[Segment]>::len) {
            return false;
        }
        // Where the other has no segment of its own, its `**` may stand for any.
        let any = [Segment::Rest];
        let (rest, ending) = match other_tail {
            Some(tail) => (&any[..], tail),
            None => (&[][..], other_front),
        };
        let starts = other_front.iter().chain(rest.iter().cycle());
        let ends = ending.iter().rev().chain(rest.iter().cycle());
        front.iter().zip(starts).all(|(one, other)| one.covers(other))
            && tail.iter().rev().zip(ends).all(|(one, other)| one.covers(other))
    }

    /// Parses a template such as `/a/{name}/**`. The error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Template, String> {
        let Some(inner) = text.strip_prefix('/') else {
            return Err("a path template begins with \"/\"".to_owned());
        };
        let mut segments = Vec::new();
        let mut directory = inner.is_empty();
        let mut parts = inner.split('/').peekable();
        while let Some(part) = parts.next() {
            match part {
                "" if parts.peek().is_none() => directory = true,
                "" => {
                    return Err(
                        "an empty segment never matches: paths are matched with them merged".to_owned()
                    );
                }
                "**" if segments.contains(&Segment::Rest) => {
                    return Err("\"**\" is there twice; a path template has one".to_owned());
                }
                _ => segments.push(Segment::parse(part)?),
            }
        }
        let names = segments.iter().filter_map(|segment| match segment {
            Segment::Name(named) => Some(&named.name),
            _ => None,
        });
        let mut seen: Vec<&String> = Vec::new();
        for name in names {
            if seen.contains(&name) {
                return Err(format!("{{{name}}} is there twice"));
            }
            seen.push(name);
        }
        Ok(Template { segments, directory })
    }

    /// Returns whether the template has a `**`.
    pub(crate) fn has_rest(&self) -> bool {
        self.segments.contains(&Segment::Rest)
    }

    /// Returns whether the template has a segment with `{name}`.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.capture(name).is_some()
    }

    /// Returns whether a normalized path is matched.
    pub(crate) fn takes(&self, path: &str) -> bool {
        let (front, tail) = self.around_rest();
        let mut given = segments(path);
        if !front.iter().all(|segment| given.next().is_some_and(|given| segment.takes(given))) {
            return false;
        }
        let is_whole = match tail {
            Some(tail) => {
                tail.iter().rev().all(|segment| given.next_back().is_some_and(|given| segment.takes(given)))
            }
            None => given.next().is_none(),
        };
        is_whole && (self.ends_in_rest() || path.ends_with('/') == self.directory)
    }

    /// Returns a path that is matched by this template and by every other one that covers it.
    pub(super) fn sample(&self) -> String {
        let mut path = String::new();
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => path.extend(["/", text]),
                Segment::Name(named) => path.extend(["/", &named.prefix, UNUSUAL, &named.suffix]),
                Segment::Rest => {}
            }
        }
        if self.directory || path.is_empty() {
            path.push('/');
        }
        path
    }

    /// Returns whether some path is matched by both templates.
    pub(crate) fn may_meet(&self, other: &Template) -> bool {
        if self.directory != other.directory && !self.ends_in_rest() && !other.ends_in_rest() {
            return false;
        }
        let pairwise = |one: &mut dyn Iterator<Item = &Segment>,
                        other: &mut dyn Iterator<Item = &Segment>| {
            one.zip(other).all(|(one, other)| one.may_meet(other))
        };
        let (front, tail) = self.around_rest();
        let (other_front, other_tail) = other.around_rest();
        let fixed = front.len() + tail.map_or(0, <[Segment]>::len);
        let other_fixed = other_front.len() + other_tail.map_or(0, <[Segment]>::len);
        let lengths = match (tail, other_tail) {
            (None, None) => fixed == other_fixed,
            (Some(_), None) => fixed <= other_fixed,
            (None, Some(_)) => fixed >= other_fixed,
            (Some(_), Some(_)) => true,
        };
        lengths
            && pairwise(&mut front.iter(), &mut other_front.iter())
            && pairwise(
                &mut tail.unwrap_or(front).iter().rev(),
                &mut other_tail.unwrap_or(other_front).iter().rev(),
            )
    }

    /// Returns where a matched path has the value of `{name}`.
    pub(crate) fn capture(&self, name: &str) -> Option<Capture> {
        let (front, _) = self.around_rest();
        let mut segments = self.segments.iter().enumerate();
        segments.find_map(|(at, segment)| match segment {
            Segment::Name(named) if named.name == name => Some(Capture {
                place: self.place(at, front.len()),
                prefix: named.prefix.len(),
                suffix: named.suffix.len(),
            }),
            _ => None,
        })
    }

    /// Returns the place in a matched path of the segment at an index, which is not `**` itself.
    fn place(&self, at: usize, rest: usize) -> Place {
        if at < rest { Place::FromStart(at) } else { Place::FromEnd(self.segments.len() - 1 - at) }
    }

    /// Iterates over the named segments whose names are chosen, with their places in a matched path.
    pub(crate) fn places(&self, chosen: impl Fn(&str) -> bool) -> impl Iterator<Item = (usize, Place)> {
        let rest = self.around_rest().0.len();
        let segments = self.segments.iter().enumerate();
        segments
            .filter(move |(_, segment)| matches!(segment, Segment::Name(named) if chosen(&named.name)))
            .map(move |(at, _)| (at, self.place(at, rest)))
    }

    /// Fills this template with the segments that `matched` found in `path`. `path` may be the normalized or the
    /// client's form.
    pub(crate) fn fill(&self, matched: &Template, path: &str) -> String {
        let mut filled = String::with_capacity(path.len() + 16);
        let mut directory = self.directory;
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => {
                    filled.push('/');
                    filled.push_str(text);
                }
                Segment::Name(named) => {
                    let value = matched.capture(&named.name).and_then(|capture| capture.value(path));
                    if value.is_some() || !named.is_plain() {
                        filled.push('/');
                    }
                    for part in [&*named.prefix, value.unwrap_or_default(), &*named.suffix] {
                        filled.push_str(part);
                    }
                }
                Segment::Rest => {
                    let (front, tail) = matched.around_rest();
                    let ends = front.len() + tail.map_or(0, <[Segment]>::len);
                    let count = segments(path).count().saturating_sub(ends);
                    for found in segments(path).skip(front.len()).take(count) {
                        filled.push('/');
                        filled.push_str(found);
                    }
                }
            }
        }
        if self.segments.last() == Some(&Segment::Rest) {
            directory |= path.ends_with('/');
        }
        if directory || filled.is_empty() {
            filled.push('/');
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_from_what_another_matched() {
        for (from, to, path, filled) in [
            ("/v1/**", "/api/**", "/v1/a/b", "/api/a/b"),
            ("/v1/**", "/api/**", "/v1", "/api"),
            ("/v1/**", "/api/**", "/v1/a/", "/api/a/"),
            ("/v1/**", "/**", "/v1", "/"),
            ("/u/{id}/x", "/user/{id}", "/u/7/x", "/user/7"),
            ("/{a}/{b}/**", "/{b}/{a}/**", "/1/2/3%2f4", "/2/1/3%2f4"),
            ("/v2/**/blobs/{d}", "/blobs/{d}/of/**", "/v2/a/b/blobs/x", "/blobs/x/of/a/b"),
            ("/v2/**/blobs/{d}", "/**/{d}", "/v2/blobs/x", "/x"),
            ("/**/{f}.css", "/min/**/{f}.min.css", "/a/b/c.css", "/min/a/b/c.min.css"),
            ("/@{s}/{n}", "/{s}/pkg-{n}", "/@babel/core", "/babel/pkg-core"),
            ("/user-{id}", "/u/{id}", "/user%2D%37", "/u/%37"),
            ("/**/", "/x/**/", "/a/b/", "/x/a/b/"),
        ] {
            let from = Template::parse(from).expect(from);
            assert_eq!(Template::parse(to).expect(to).fill(&from, path), filled);
        }
    }

    #[test]
    fn templates_have_names_and_the_rest_anywhere() {
        for (text, path, wanted) in [
            ("/v2/**/blobs/{digest}", "/v2/library/nginx/blobs/sha256:1", true),
            ("/v2/**/blobs/{digest}", "/v2/blobs/x", true),
            ("/v2/**/blobs/{digest}", "/v2/blobs", false),
            ("/v2/**/blobs/{digest}", "/v2/a/blobs/x/", false),
            ("/v2/**/blobs/{digest}", "/v2/blobs/blobs/blobs", true),
            ("/v2/**/v2", "/v2", false),
            ("/v2/**/v2", "/v2/v2", true),
            ("/**/{file}.css", "/a/b/c.css", true),
            ("/**/{file}.css", "/c.css", true),
            ("/**/{file}.css", "/a/.css", false),
            ("/@{scope}/{name}", "/@babel/core", true),
            ("/@{scope}/{name}", "/babel/core", false),
            ("/a/**", "/a", true),
            ("/a/**", "/a/b/", true),
            ("/a/**/", "/a/b/", true),
            ("/a/**/", "/a/", true),
            ("/a/**/", "/a/b", false),
            ("/**/x/", "/x/", true),
        ] {
            assert_eq!(Template::parse(text).expect(text).takes(path), wanted, "{text} {path}");
        }
    }

    #[test]
    fn which_templates_meet() {
        for (one, other, wanted) in [
            ("/a/**", "/**/b", true),
            ("/a/**", "/b/**", false),
            ("/a/**/x", "/a/**/y", false),
            ("/a/**/x", "/a", false),
            ("/a/**/x", "/a/x", true),
            ("/a/**/{f}.css", "/**/{f}.js", false),
            ("/a/**/{f}.css", "/**/main.css", true),
            ("/a/b/c", "/a/**/b", false),
            ("/a/**/", "/a/b", false),
            ("/a/**", "/a/b/", true),
        ] {
            let (one, other) = (Template::parse(one).expect(one), Template::parse(other).expect(other));
            assert_eq!(one.may_meet(&other), wanted, "{one:?} {other:?}");
            assert_eq!(other.may_meet(&one), wanted, "{other:?} {one:?}");
        }
    }
}
