//! The secondary cache key: the request fields that a response varies with (RFC 9111 4.1).

use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

use super::selecting_fields::{SelectingFields, append_said};
use crate::fields::list;

/// Maximum number of fields in Vary; a response with more is not stored.
const MAX_FIELDS: usize = 32;

/// Fields that Pillion writes itself, or whose value the cache key has already.
const IN_THE_KEY: [&str; 3] = ["host", "x-forwarded-proto", "x-forwarded-host"];
/// Fields that differ with each client or request: a response that varies with one fits no other request.
const EACH_ITS_OWN: [&str; 8] =
    ["x-forwarded-for", "forwarded", "x-real-ip", "via", "x-request-id", "traceparent", "tracestate", "date"];

/// A request field and its value in normal form.
pub(crate) type SelectingField = (HeaderName, Vec<u8>);

/// The fields a response varies with, and their values in the request that fetched it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variant {
    /// The fields its Vary names, sorted by name.
    own: Vec<SelectingField>,
    /// The fields that other stored responses of its key varied with when it arrived.
    others: Vec<SelectingField>,
}

impl Variant {
    /// Creates the variant of a response; `names` are the fields that other stored responses of its key vary with.
    /// Returns `None` if the response fits no other request.
    pub(crate) fn from_response(
        response: &HeaderMap,
        request: SelectingFields<'_>,
        names: &[HeaderName],
    ) -> Option<Variant> {
        let mut own: Vec<HeaderName> = Vec::new();
        for element in list::elements_in_field(response, &header::VARY) {
            let name = HeaderName::from_bytes(element).ok().filter(|name| name != "*")?;
            if EACH_ITS_OWN.contains(&name.as_str()) || own.len() >= MAX_FIELDS {
                return None;
            }
            if !IN_THE_KEY.contains(&name.as_str()) && !own.contains(&name) {
                own.push(name);
            }
        }
        // A response that allows the request's Origin varies with it, whether or not its Vary says so (Fetch, "CORS
        // protocol and HTTP caches").
        let allowed = response.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        if allowed.is_some()
            && allowed == request.request.get(header::ORIGIN)
            && !own.contains(&header::ORIGIN)
        {
            own.push(header::ORIGIN);
        }
        own.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        let said = |name: HeaderName| {
            let value = request.said(&name);
            (name, value)
        };
        let others = names.iter().filter(|name| !own.contains(name)).cloned().map(said).collect();
        Some(Variant { others, own: own.into_iter().map(said).collect() })
    }

    /// Returns whether the response fits a request.
    pub(crate) fn fits(&self, request: SelectingFields<'_>) -> bool {
        self.names_all(request.fragments) && self.fields().all(|(name, said)| request.said(name) == *said)
    }

    /// Returns whether its Vary names all of these fields.
    pub(crate) fn names_all(&self, names: &[HeaderName]) -> bool {
        names.iter().all(|name| self.own.iter().any(|(own, _)| own == name))
    }

    /// Returns the fields its Vary names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.own.iter().map(|(name, _)| name)
    }

    /// Returns the value its request had in a field; an unknown field counts as absent (RFC 9111 4.1).
    fn said(&self, name: &HeaderName) -> &[u8] {
        let said = self.own.iter().chain(&self.others).find(|(known, _)| known == name);
        said.map_or(&[], |(_, said)| said)
    }

    /// Appends the values of these fields in its request to a key, as [`SelectingFields::append`] does.
    pub(crate) fn append(&self, names: &[HeaderName], key: &mut Vec<u8>) {
        names.iter().for_each(|name| append_said(self.said(name), key));
    }

    /// Returns whether two responses fit the same requests, as far as these fields distinguish them.
    pub(crate) fn is_as(&self, other: &Variant, names: &[HeaderName]) -> bool {
        names.iter().all(|name| self.said(name) == other.said(name))
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = (&HeaderName, &[u8])> {
        self.own.iter().chain(&self.others).map(|(name, said)| (name, said.as_slice()))
    }

    /// Creates the variant of a response of another process from its [`Variant::fields`]. All of them decide, because the
    /// responses that the others of its key vary with may not be here.
    pub(crate) fn from_fields(mut own: Vec<SelectingField>) -> Variant {
        own.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        Variant { own, others: Vec::new() }
    }

    /// Returns the estimated memory of the variant in bytes.
    pub(crate) fn size(&self) -> usize {
        self.fields().map(|(_, said)| said.len() + 64).sum()
    }
}

/// Returns all fields that any of these variants varies with.
pub(crate) fn merged_names<'a>(variants: impl Iterator<Item = &'a Variant>) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for name in variants.flat_map(Variant::names) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Returns the first response that fits a request. `names` are all fields that any of the responses varies with, and
/// all responses are compared by them, because an upstream may omit Vary from some of its responses.
pub(crate) fn select<'a, T>(
    mut responses: impl Iterator<Item = (&'a Variant, T)>,
    names: &[HeaderName],
    request: SelectingFields<'_>,
) -> Option<T> {
    // Normalized once for each request, however many variants there are.
    let said: SmallVec<[Vec<u8>; 4]> = names.iter().map(|name| request.said(name)).collect();
    let fits = |variant: &Variant| {
        variant.names_all(request.fragments)
            && names.iter().zip(&said).all(|(name, said)| variant.said(name) == said.as_slice())
    };
    responses.find(|(variant, _)| fits(variant)).map(|(_, response)| response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fragment::is_fragment;
    use crate::cache::selecting_fields::normal;
    use crate::fields::cookie::Ignored;
    use proptest::prelude::*;

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn requests_a_response_fits() {
        let ignored = Ignored::new(vec!["_ga*".to_owned()], |_| false, Vec::new());
        for (vary, one, other, wanted) in [
            (&[][..], &[("accept", "a")][..], &[("accept", "b")][..], true),
            (&["Accept"], &[("accept", "a")], &[("accept", "b")], false),
            (&["Accept"], &[("accept", "a, b")], &[("accept", "a"), ("accept", "B")], true),
            (&["Accept"], &[("accept", "a;q=1")], &[("accept", "a; q=1")], true),
            (&["Accept"], &[("accept", "a, b")], &[("accept", "b, a")], true),
            (&["Accept"], &[("accept", "a, b;q=0.5")], &[("accept", "b;q=.5, a")], false),
            (&["Accept"], &[("accept", "a;q=0.5, b")], &[("accept", "b , a ; Q=0.50")], true),
            (&["Accept"], &[("accept", "a;q=0.5, b")], &[("accept", "a, b;q=0.5")], false),
            (&["Accept"], &[("accept", "a/b;V=X")], &[("accept", "A/B; v=X")], true),
            (&["Accept"], &[("accept", "a/b;v=X")], &[("accept", "a/b;v=x")], false),
            (&["Accept"], &[("accept", "a/b;v=\"x y\"")], &[("accept", "a/b;v=\"xy\"")], false),
            (
                &["Accept-Encoding"],
                &[("accept-encoding", "gzip, br")],
                &[("accept-encoding", "BR,gzip")],
                true,
            ),
            (&["Accept-Language"], &[("accept-language", "de, en")], &[("accept-language", "en, de")], false),
            (
                &["Accept-Language"],
                &[("accept-language", "de;q=0.5, en")],
                &[("accept-language", "EN, de; q=0.5")],
                true,
            ),
            (&["Accept-Language"], &[("accept-language", "")], &[], false),
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
            let mut response_fields = HeaderMap::new();
            for line in vary {
                response_fields.append(header::VARY, line.parse().unwrap());
            }
            let (one, other) = (fields(one), fields(other));
            let of = |request| SelectingFields::new(request, &ignored);
            let variant = Variant::from_response(&response_fields, of(&one), &[]).unwrap();
            assert!(variant.fits(of(&one)), "{vary:?} {one:?}");
            assert_eq!(variant.fits(of(&other)), wanted, "{vary:?} {one:?} {other:?}");
        }
        let empty = HeaderMap::new();
        let ignored = Ignored::default();
        let none = SelectingFields::new(&empty, &ignored);
        for vary in ["*", "Accept, *", " , *", "X-Forwarded-For", "a b"] {
            assert_eq!(Variant::from_response(&fields(&[("vary", vary)]), none, &[]), None, "{vary}");
        }
        let two = fields(&[("vary", "Accept"), ("vary", "*")]);
        assert_eq!(Variant::from_response(&two, none, &[]), None);
    }

    /// Each case has the stored responses in order of arrival (Vary, the request's `x-a` and `hx-request`), a further
    /// request, and the index of the response it gets.
    #[test]
    fn n2_5_a_response_without_vary_is_matched_by_what_others_vary_with() {
        let request = |a: &str, hx: &str| {
            let mut headers = HeaderMap::new();
            if !a.is_empty() {
                headers.insert("x-a", a.parse().unwrap());
            }
            if !hx.is_empty() {
                headers.insert("hx-request", hx.parse().unwrap());
            }
            headers
        };
        for (came, asked, wanted) in [
            // No response varies: the newest serves every request.
            (&[("", "1", ""), ("", "2", "")][..], ("3", ""), Some(1)),
            // A response from before the first Vary is matched as if its request had no such field.
            (&[("", "1", ""), ("x-a", "2", "")], ("1", ""), None),
            (&[("", "1", ""), ("x-a", "2", "")], ("", ""), Some(0)),
            (&[("", "1", ""), ("x-a", "2", "")], ("2", ""), Some(1)),
            // A response from after it is matched by the fields of its request.
            (&[("x-a", "1", ""), ("", "2", "")], ("2", ""), Some(1)),
            (&[("x-a", "1", ""), ("", "2", "")], ("1", ""), Some(0)),
            (&[("x-a", "1", ""), ("", "2", "")], ("3", ""), None),
            (&[("x-a", "1", ""), ("x-b", "2", "")], ("3", ""), None),
            (&[("x-a", "1", ""), ("", "1", "")], ("1", ""), Some(1)),
            // Fragments: only a response whose Vary names their field.
            (&[("", "", "")], ("", "true"), None),
            (&[("hx-request", "", "true"), ("", "", "")], ("", "true"), Some(0)),
            (&[("hx-request", "", "true"), ("", "", "")], ("", ""), Some(1)),
            (&[("hx-request", "", "")], ("", ""), Some(0)),
        ] {
            let mut stored: Vec<Variant> = Vec::new();
            for (vary, a, hx) in came {
                let names = merged_names(stored.iter());
                let request = request(a, hx);
                let response = fields(&[("vary", vary)]);
                stored.push(
                    Variant::from_response(
                        &response,
                        SelectingFields::new(&request, &Ignored::default()),
                        &names,
                    )
                    .unwrap(),
                );
            }
            let names = merged_names(stored.iter());
            let headers = request(asked.0, asked.1);
            let fragments: Vec<HeaderName> =
                headers.keys().filter(|name| is_fragment(name)).cloned().collect();
            let ignored = Ignored::default();
            let request =
                SelectingFields { fragments: &fragments, ..SelectingFields::new(&headers, &ignored) };
            let newest_first = stored.iter().enumerate().rev().map(|(at, variant)| (variant, at));
            assert_eq!(select(newest_first, &names, request), wanted, "{came:?} {asked:?}");
        }
    }

    /// Returns the CPU time of this thread, so that other work on the machine does not count.
    fn cpu_nanoseconds() -> i64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        now.tv_sec * 1_000_000_000 + now.tv_nsec
    }

    /// Lists of unclosed quotes, of weights, of empty elements.
    #[test]
    fn n3_1_the_normal_form_takes_linear_time() {
        for element in ["\"a,", "\"\\\",", "a;q=0.5,", "a;b=\"c\";", ",", "\"", ";", "="] {
            let time = |size: usize| {
                let mut headers = HeaderMap::new();
                headers.insert("accept-language", element.repeat(size / element.len()).parse().unwrap());
                let once = || {
                    let start = cpu_nanoseconds();
                    std::hint::black_box(normal(&headers, &header::ACCEPT_LANGUAGE, &Ignored::default()));
                    cpu_nanoseconds() - start
                };
                (0..5).map(|_| once()).min().unwrap()
            };
            let (short, long) = (time(8 * 1024), time(64 * 1024));
            assert!(
                long <= short.max(200_000) * 12,
                "{element:?}: {short} ns for 8 KiB, {long} ns for 64 KiB"
            );
        }
    }

    /// Without that, 32 variants took 32 times as long as one.
    #[test]
    fn n3_1_the_normal_form_is_made_once_a_request() {
        let names = [header::ACCEPT_LANGUAGE];
        let variant = |language: &str| {
            let request = fields(&[("accept-language", language)]);
            let response = fields(&[("vary", "accept-language")]);
            Variant::from_response(&response, SelectingFields::new(&request, &Ignored::default()), &[])
                .unwrap()
        };
        let long = fields(&[("accept-language", &"a;q=0.5,".repeat(4096))]);
        let time = |count: usize| {
            let variants: Vec<Variant> = (0..count).map(|at| variant(&format!("x-{at}"))).collect();
            let once = || {
                let start = cpu_nanoseconds();
                let all = variants.iter().map(|variant| (variant, ()));
                assert_eq!(select(all, &names, SelectingFields::new(&long, &Ignored::default())), None);
                cpu_nanoseconds() - start
            };
            (0..5).map(|_| once()).min().unwrap()
        };
        let (one, many) = (time(1), time(32));
        assert!(many <= one * 3, "{one} ns among one, {many} ns among 32");
    }

    proptest! {
        /// A request gets the stored response exactly if the fields in Vary are equal.
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
            let response_fields = fields(&[("vary", "X-A")]);
            let (first, second) = (request(&one), request(&other));
            let variant = Variant::from_response(&response_fields, SelectingFields::new(&first, &Ignored::default()), &[]).unwrap();
            let joined = |lines: &[String]| (lines.is_empty(), lines.join(", "));
            prop_assert_eq!(variant.fits(SelectingFields::new(&second, &Ignored::default())), joined(&one) == joined(&other));
        }
    }
}
