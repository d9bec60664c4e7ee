//! The second half of the key: the fields of the request that an answer varies with (RFC 9111 4.1).

use http::{HeaderMap, HeaderName, header};

use crate::fields::{cookie, list};

/// More fields than any answer means to vary with.
const MOST_FIELDS: usize = 32;

/// Fields that Pillion writes, or that say what the key says already.
const IN_THE_KEY: [&str; 3] = ["host", "x-forwarded-proto", "x-forwarded-host"];
/// Fields that differ with each client or request: nobody else's answer fits.
const EACH_ITS_OWN: [&str; 8] =
    ["x-forwarded-for", "forwarded", "x-real-ip", "via", "x-request-id", "traceparent", "tracestate", "date"];

/// The fields an answer varies with, and what the request that got it said in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variant(Vec<(HeaderName, Vec<u8>)>);

impl Variant {
    /// Of an answer to a request; `None`: it fits no other request.
    pub fn of(answer: &HeaderMap, request: &HeaderMap, ignored_cookies: &[String]) -> Option<Variant> {
        let mut names: Vec<HeaderName> = Vec::new();
        for element in list::of(answer, &header::VARY) {
            let name = HeaderName::from_bytes(element).ok().filter(|name| name != "*")?;
            if EACH_ITS_OWN.contains(&name.as_str()) || names.len() >= MOST_FIELDS {
                return None;
            }
            if !IN_THE_KEY.contains(&name.as_str()) && !names.contains(&name) {
                names.push(name);
            }
        }
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        let said = |name: HeaderName| {
            let value = normal(request, &name, ignored_cookies);
            (name, value)
        };
        Some(Variant(names.into_iter().map(said).collect()))
    }

    /// Whether the answer fits a request.
    pub fn fits(&self, request: &HeaderMap, ignored_cookies: &[String]) -> bool {
        self.0.iter().all(|(name, said)| normal(request, name, ignored_cookies) == *said)
    }

    /// The fields, for people.
    pub fn fields(&self) -> impl Iterator<Item = (&HeaderName, &[u8])> {
        self.0.iter().map(|(name, said)| (name, said.as_slice()))
    }

    /// In bytes.
    pub fn size(&self) -> usize {
        self.0.iter().map(|(_, said)| said.len() + 64).sum()
    }
}

/// A field in the form in which two that mean the same are the same: one line, one kind of white space; where
/// the field is known to be without case, lower case (RFC 9111 4.1).
fn normal(request: &HeaderMap, name: &HeaderName, ignored_cookies: &[String]) -> Vec<u8> {
    let mut text = Vec::new();
    if *name == header::COOKIE {
        for (name, value) in cookie::counted(request, ignored_cookies) {
            text.extend_from_slice(name);
            text.push(b'=');
            text.extend_from_slice(value);
            text.push(b';');
        }
        return text;
    }
    let lists = matches!(
        *name,
        header::ACCEPT | header::ACCEPT_CHARSET | header::ACCEPT_ENCODING | header::ACCEPT_LANGUAGE
    );
    if !lists {
        // Several lines are one, joined by commas (RFC 9110 5.3); nothing more is known of it.
        for (at, line) in request.get_all(name).iter().enumerate() {
            if at > 0 {
                text.extend_from_slice(b", ");
            }
            text.extend_from_slice(line.as_bytes().trim_ascii());
        }
        // Absent and empty are two things.
        if request.contains_key(name) {
            text.push(b'.');
        }
        return text;
    }
    for element in list::of(request, name) {
        text.extend(element.iter().filter(|byte| !matches!(byte, b' ' | b'\t')).map(u8::to_ascii_lowercase));
        text.push(b',');
    }
    if text.is_empty() && request.contains_key(name) {
        text.push(b',');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn which_requests_an_answer_fits() {
        let ignored = ["_ga*".to_owned()];
        for (vary, one, other, wanted) in [
            (&[][..], &[("accept", "a")][..], &[("accept", "b")][..], true),
            (&["Accept"], &[("accept", "a")], &[("accept", "b")], false),
            (&["Accept"], &[("accept", "a, b")], &[("accept", "a"), ("accept", "B")], true),
            (&["Accept"], &[("accept", "a;q=1")], &[("accept", "a; q=1")], true),
            (&["Accept"], &[("accept", "a, b")], &[("accept", "b, a")], false),
            (&["accept", "X-A"], &[("x-a", "1")], &[("x-a", "1")], true),
            (&["accept, X-A"], &[("x-a", "1")], &[("x-a", "1"), ("accept", "a")], false),
            (&["X-A"], &[("x-a", "a")], &[("x-a", "A")], false),
            (&["X-A"], &[], &[("x-a", "")], false),
            (&["X-A"], &[("x-a", "a"), ("x-a", "b")], &[("x-a", "a, b")], true),
            (&["X-A"], &[("x-a", "a"), ("x-a", "b")], &[("x-a", "b, a")], false),
            (&["Cookie"], &[("cookie", "a=1")], &[("cookie", "a=1; _ga_X=2")], true),
            (&["Cookie"], &[("cookie", "a=1")], &[("cookie", "a=2")], false),
            (&["Cookie"], &[("cookie", "_ga=1 session=evil")], &[("cookie", "_ga=2")], false),
            (&["Cookie"], &[("cookie", "_ga=\"1")], &[("cookie", "_ga=2, session=evil")], false),
            (&["X-Forwarded-Proto, Host"], &[("host", "a")], &[("host", "a")], true),
        ] {
            let mut answer = HeaderMap::new();
            for line in vary {
                answer.append(header::VARY, line.parse().unwrap());
            }
            let variant = Variant::of(&answer, &fields(one), &ignored).unwrap();
            assert!(variant.fits(&fields(one), &ignored), "{vary:?} {one:?}");
            assert_eq!(variant.fits(&fields(other), &ignored), wanted, "{vary:?} {one:?} {other:?}");
        }
        for vary in ["*", "Accept, *", " , *", "X-Forwarded-For", "a b"] {
            assert_eq!(Variant::of(&fields(&[("vary", vary)]), &HeaderMap::new(), &[]), None, "{vary}");
        }
        let two = fields(&[("vary", "Accept"), ("vary", "*")]);
        assert_eq!(Variant::of(&two, &HeaderMap::new(), &[]), None);
    }

    proptest! {
        /// Equal under Vary gets the stored one, unequal never.
        #[test]
        fn equal_fits_and_unequal_does_not(
            one in proptest::collection::vec("[ab]{0,2}", 0..3),
            other in proptest::collection::vec("[ab]{0,2}", 0..3),
        ) {
            let request = |lines: &[String]| {
                let mut headers = HeaderMap::new();
                for line in lines {
                    headers.append("x-a", line.parse().unwrap());
                }
                headers
            };
            let answer = fields(&[("vary", "X-A")]);
            let variant = Variant::of(&answer, &request(&one), &[]).unwrap();
            let joined = |lines: &[String]| (lines.is_empty(), lines.join(", "));
            prop_assert_eq!(variant.fits(&request(&other), &[]), joined(&one) == joined(&other));
        }
    }
}
