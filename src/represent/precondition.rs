//! Evaluates conditional requests (RFC 9110 13).

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, header};

use super::entity_tag;
use crate::fields::date;
use crate::fields::entity_tag::{EntityTag, TagList};
use crate::fields::list;

/// The conditions of one request, as its client sent them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    /// The value of If-None-Match if that is one tag and the only condition, which is nearly always so.
    single: Option<HeaderValue>,
    fields: HeaderMap,
    /// Whether If-None-Match has only tags that Pillion made, beside a date. The upstream receives only the date, so
    /// the date alone counts if the response has no made tag.
    only_made: bool,
}

/// The result of the conditions for a response with certain validators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Proceed,
    /// 304: the client has the current response.
    NotModified,
    /// 412: a required condition does not hold.
    Failed,
}

static FIELDS: [header::HeaderName; 5] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

impl Conditions {
    /// Reads the conditions of a request; copies nothing if there are none.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Conditions {
        let lines = || headers.iter().filter(|(name, _)| FIELDS.contains(name));
        // A date beside tags is ignored (13.1.3).
        let mut counting = lines().filter(|(name, _)| *name != header::IF_MODIFIED_SINCE);
        if let (Some((name, value)), None) = (counting.next(), counting.next())
            && *name == header::IF_NONE_MATCH
            && let Some(tag) = EntityTag::parse(value.as_bytes())
            && !(entity_tag::is_made(&tag) && headers.contains_key(header::IF_MODIFIED_SINCE))
        {
            return Conditions { single: Some(value.clone()), ..Conditions::default() };
        }
        let mut fields = HeaderMap::new();
        for (name, value) in lines() {
            fields.append(name.clone(), value.clone());
        }
        let only_made = fields.contains_key(header::IF_MODIFIED_SINCE)
            && matches!(
                TagList::from_headers(&fields, &header::IF_NONE_MATCH),
                Some(TagList::Tags(tags)) if tags.iter().all(entity_tag::is_made)
            );
        Conditions { single: None, fields, only_made }
    }

    /// Returns whether the conditions are a single strong tag. Made tags are weak, so the upstream receives it
    /// unchanged.
    pub(crate) fn is_one_strong_tag(&self) -> bool {
        let tag = self.single.as_ref().and_then(|line| EntityTag::parse(line.as_bytes()));
        tag.is_some_and(|tag| !tag.weak)
    }

    /// Returns whether only the tags of If-None-Match matter; a date beside them is ignored (13.1.3).
    pub(crate) fn is_none_match(&self) -> bool {
        let others = [header::IF_MATCH, header::IF_UNMODIFIED_SINCE, header::IF_RANGE];
        self.single.is_some()
            || (self.fields.contains_key(header::IF_NONE_MATCH)
                && !self.only_made
                && !self.fields.keys().any(|name| others.contains(name)))
    }

    /// Evaluates the conditions in the order of RFC 9110 13.2.2. `validators` are the fields of a response that would
    /// be 200, with the upstream's tag unchanged. If-Range is not evaluated here; see [`Conditions::range_holds`].
    pub(crate) fn evaluate(&self, validators: &HeaderMap) -> Verdict {
        let tag = EntityTag::from_headers(validators);
        if self.fields.contains_key(header::IF_MATCH) {
            // 13.1.1: compared strongly; `*` holds, because a response exists.
            let holds = match TagList::from_headers(&self.fields, &header::IF_MATCH) {
                Some(TagList::Any) | None => true,
                // Content that Pillion encoded has the weak form of the upstream's strong tag. Both forms mean the same
                // here, and the upstream receives both.
                Some(TagList::Tags(tags)) => {
                    tags.iter().any(|theirs| tag.is_some_and(|tag| !tag.weak && tag.weak_eq(theirs)))
                }
            };
            if !holds {
                return Verdict::Failed;
            }
        } else if let Some(since) = self.date(&header::IF_UNMODIFIED_SINCE)
            && let Some(modified) = date::from_headers(validators, &header::LAST_MODIFIED)
            && modified > since
        {
            // 13.1.4: the response was modified after the date.
            return Verdict::Failed;
        }
        let only_date = self.only_made && !tag.is_some_and(|tag| entity_tag::is_made(&tag));
        if !only_date && (self.single.is_some() || self.fields.contains_key(header::IF_NONE_MATCH)) {
            // 13.1.2: compared weakly; an If-Modified-Since beside it is ignored.
            return match self.held(tag.as_ref()) {
                Some(_) => Verdict::NotModified,
                None => Verdict::Proceed,
            };
        }
        if let Some(since) = self.date(&header::IF_MODIFIED_SINCE)
            && let Some(modified) = date::from_headers(validators, &header::LAST_MODIFIED)
            && modified <= since
        {
            // 13.1.3: the response was not modified after the date.
            return Verdict::NotModified;
        }
        Verdict::Proceed
    }

    /// Returns the tag of If-None-Match that matches the tag `app`, as the client wrote it, so that the client's cache
    /// finds its stored response again (RFC 9111 4.3.4). `*` matches the tag of the response, which is `app`.
    pub(crate) fn held(&self, app: Option<&EntityTag<'_>>) -> Option<Current> {
        if let Some(line) = &self.single
            && let Some(theirs) = EntityTag::parse(line.as_bytes())
        {
            return app.filter(|app| theirs.weak_eq(app)).map(|_| Current::As(line.clone()));
        }
        match TagList::from_headers(&self.fields, &header::IF_NONE_MATCH)? {
            TagList::Any => Some(Current::Any),
            TagList::Tags(tags) => {
                let app = app?;
                tags.iter().find(|theirs| theirs.weak_eq(app)).map(|theirs| Current::As(theirs.to_value()))
            }
        }
    }

    /// Returns whether a Range of this request applies to a response with these validators (RFC 9110 13.1.5).
    pub(crate) fn range_holds(&self, validators: &HeaderMap) -> bool {
        let Some(field) = self.fields.get(header::IF_RANGE) else { return true };
        if let Some(theirs) = EntityTag::parse(field.as_bytes()) {
            return EntityTag::from_headers(validators).is_some_and(|tag| tag.strong_eq(&theirs));
        }
        // A date is a strong validator only if the content was sent at least a second after it (8.8.2.2).
        let strong = match (
            date::from_headers(validators, &header::LAST_MODIFIED),
            date::from_headers(validators, &header::DATE),
        ) {
            (Some(modified), Some(sent)) => sent > modified,
            _ => false,
        };
        strong && self.date(&header::IF_RANGE) == date::from_headers(validators, &header::LAST_MODIFIED)
    }

    /// Returns whether If-Range has a weak tag. Compared strongly that never holds, so the upstream need not evaluate
    /// it.
    pub(crate) fn range_is_void(&self) -> bool {
        let field = self.fields.get(header::IF_RANGE);
        field.and_then(|field| EntityTag::parse(field.as_bytes())).is_some_and(|tag| tag.weak)
    }

    /// Returns whether If-Range has a date, which does not distinguish codings.
    pub(crate) fn range_has_date(&self) -> bool {
        self.fields.get(header::IF_RANGE).is_some_and(|field| EntityTag::parse(field.as_bytes()).is_none())
    }

    fn date(&self, name: &header::HeaderName) -> Option<SystemTime> {
        date::from_headers(&self.fields, name)
    }
}

/// The tag under which the client has a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Current {
    Any,
    As(HeaderValue),
}

/// The form in which the upstream receives the tags of If-Match or If-None-Match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ForApp {
    /// The field is sent unchanged.
    AsIs,
    /// The field is replaced: each weak tag has its strong form beside it, and made tags are left out.
    Rewritten(HeaderValue),
    /// The field is removed, because all its tags are made ones.
    Nothing,
}

/// Maximum number of weak tags that get their strong forms; no client holds that many of one resource.
const MAX_WEAK: usize = 64;

/// Returns the form in which the upstream receives a field of tags. Elements that are not tags are left for the
/// upstream to judge. `W/"x"` may be the upstream's `"x"` on content that Pillion encoded, so the upstream receives
/// both. If-Match compares strongly (RFC 9110 13.1.1), so the weak form never holds there.
pub(crate) fn for_app(headers: &HeaderMap, name: &header::HeaderName) -> ForApp {
    // Only weak tags are rewritten; a field without any need not be parsed.
    let weak = |value: &HeaderValue| memchr::memmem::find(value.as_bytes(), b"W/").is_some();
    if !headers.get_all(name).iter().any(weak) {
        return ForApp::AsIs;
    }
    let elements = || list::of_unescaped(headers, name).map(|element| (element, EntityTag::parse(element)));
    let weak = || elements().filter_map(|(_, tag)| tag.filter(|tag| tag.weak));
    let (made, others) = (weak().any(|tag| entity_tag::is_made(&tag)), weak().count());
    if others == 0 || (others > MAX_WEAK && !made) {
        return ForApp::AsIs;
    }
    let mut text = Vec::new();
    let mut add = |write: &dyn Fn(&mut Vec<u8>)| {
        if !text.is_empty() {
            text.extend_from_slice(b", ");
        }
        write(&mut text);
    };
    let mut before = None;
    for (element, tag) in elements() {
        if tag.as_ref().is_some_and(entity_tag::is_made) {
            continue;
        }
        if let Some(weak) = tag.filter(|tag| tag.weak && others <= MAX_WEAK) {
            let strong = EntityTag { weak: false, ..weak };
            if before != Some(strong) {
                add(&|text| strong.write(text));
            }
        }
        add(&|text| text.extend_from_slice(element));
        before = tag;
    }
    match HeaderValue::from_bytes(&text) {
        Ok(value) if !value.is_empty() => ForApp::Rewritten(value),
        _ => ForApp::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &str = "Mon, 07 Nov 1994 08:49:37 GMT";

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn verdicts() {
        use Verdict::{Failed, NotModified, Proceed};
        let strong = &[("etag", "\"x\""), ("last-modified", OLD)][..];
        let weak = &[("etag", "W/\"x\"")][..];
        let made = &[("etag", "W/\"pillion-1\"")][..];
        let dated = &[("last-modified", OLD)][..];
        let newer = &[("last-modified", NEW)][..];
        let none = &[][..];
        for (conditions, validators, wanted) in [
            (&[][..], strong, Proceed),
            (&[("if-none-match", "\"x\"")], strong, NotModified),
            (&[("if-none-match", "W/\"x\"")], strong, NotModified),
            (&[("if-none-match", "\"y\", W/\"x\"")], strong, NotModified),
            (&[("if-none-match", "W/\"x~gzip\"")], strong, Proceed),
            (&[("if-none-match", "\"y\""), ("if-none-match", "\"x\"")], strong, NotModified),
            (&[("if-none-match", "\"y\"")], strong, Proceed),
            (&[("if-none-match", "*")], strong, NotModified),
            (&[("if-none-match", "*")], none, NotModified),
            (&[("if-none-match", "\"x\"")], none, Proceed),
            (&[("if-none-match", "\"x\"")], weak, NotModified),
            (&[("if-none-match", "W/\"pillion-1\"")], made, NotModified),
            (&[("if-none-match", "W/\"pillion-2\"")], made, Proceed),
            (&[("if-none-match", "x")], strong, Proceed),
            // A made tag is of the content: if the response has none, the date decides.
            (&[("if-none-match", "W/\"pillion-1\""), ("if-modified-since", OLD)], strong, NotModified),
            (&[("if-none-match", "W/\"pillion-1\""), ("if-modified-since", OLD)], dated, NotModified),
            (&[("if-none-match", "W/\"pillion-1\""), ("if-modified-since", OLD)], newer, Proceed),
            (&[("if-none-match", "W/\"pillion-1\""), ("if-modified-since", OLD)], made, NotModified),
            (&[("if-none-match", "W/\"pillion-2\""), ("if-modified-since", OLD)], made, Proceed),
            (&[("if-none-match", "W/\"pillion-1\", \"y\""), ("if-modified-since", OLD)], dated, Proceed),
            // A date beside a tag is ignored, whatever it says.
            (&[("if-none-match", "\"y\""), ("if-modified-since", NEW)], strong, Proceed),
            (&[("if-none-match", "\"x\""), ("if-modified-since", "x")], strong, NotModified),
            (&[("if-modified-since", OLD)], strong, NotModified),
            (&[("if-modified-since", NEW)], strong, NotModified),
            (&[("if-modified-since", OLD)], &[("last-modified", NEW)], Proceed),
            (&[("if-modified-since", OLD)], weak, Proceed),
            (&[("if-modified-since", "yesterday")], strong, Proceed),
            (&[("if-match", "\"x\"")], strong, Proceed),
            (&[("if-match", "W/\"x\"")], strong, Proceed),
            (&[("if-match", "W/\"y\"")], strong, Failed),
            (&[("if-match", "W/\"x\"")], weak, Failed),
            (&[("if-match", "\"y\"")], strong, Failed),
            (&[("if-match", "\"x\"")], weak, Failed),
            (&[("if-match", "\"x\"")], none, Failed),
            (&[("if-match", "*")], none, Proceed),
            (&[("if-match", "\"x\""), ("if-none-match", "\"x\"")], strong, NotModified),
            (&[("if-match", "\"y\""), ("if-none-match", "\"x\"")], strong, Failed),
            (&[("if-unmodified-since", OLD)], strong, Proceed),
            (&[("if-unmodified-since", OLD)], &[("last-modified", NEW)], Failed),
            (&[("if-match", "\"x\""), ("if-unmodified-since", OLD)], strong, Proceed),
        ] {
            let verdict = Conditions::from_headers(&fields(conditions)).evaluate(&fields(validators));
            assert_eq!(verdict, wanted, "{conditions:?} of {validators:?}");
        }
    }

    #[test]
    fn if_range() {
        let sent = [("etag", "\"x\""), ("last-modified", OLD), ("date", NEW)];
        let at_once = [("etag", "W/\"x\""), ("last-modified", OLD), ("date", OLD)];
        for (field, validators, holds) in [
            (None, &sent[..], true),
            (Some("\"x\""), &sent, true),
            (Some("W/\"x\""), &sent, false),
            (Some("\"y\""), &sent, false),
            (Some("\"x\""), &at_once, false),
            (Some(OLD), &sent, true),
            (Some(NEW), &sent, false),
            (Some(OLD), &at_once, false),
            (Some("nonsense"), &sent, false),
        ] {
            let lines: Vec<_> = field.map(|field| ("if-range", field)).into_iter().collect();
            let conditions = Conditions::from_headers(&fields(&lines));
            assert_eq!(conditions.range_holds(&fields(validators)), holds, "{field:?} of {validators:?}");
        }
    }

    #[test]
    fn what_the_app_hears() {
        let rewritten = |text: &str| ForApp::Rewritten(text.parse().unwrap());
        for (lines, wanted) in [
            (&["\"x\""][..], ForApp::AsIs),
            (&["*"], ForApp::AsIs),
            (&["nonsense"], ForApp::AsIs),
            (&["W/\"x\""], rewritten("\"x\", W/\"x\"")),
            (&["W/\"x\", \"y\""], rewritten("\"x\", W/\"x\", \"y\"")),
            (&["\"x\", W/\"x\""], rewritten("\"x\", W/\"x\"")),
            (&["W/\"a,b\"", "\"z\""], rewritten("\"a,b\", W/\"a,b\", \"z\"")),
            (&["w/\"x\""], ForApp::AsIs),
            (&["nonsense, W/nonsense"], ForApp::AsIs),
            (&["W/\"x\", nonsense"], rewritten("\"x\", W/\"x\", nonsense")),
            (&["W/\"pillion-1\", \"x\""], rewritten("\"x\"")),
            (&["W/\"pillion-1\""], ForApp::Nothing),
            (&["W/\"pillion-1\", nonsense"], rewritten("nonsense")),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("if-match", *line)).collect();
            assert_eq!(for_app(&fields(&lines), &header::IF_MATCH), wanted, "{lines:?}");
        }
        let many = vec!["W/\"x\""; MAX_WEAK + 1].join(", ");
        assert_eq!(for_app(&fields(&[("if-match", &many)]), &header::IF_MATCH), ForApp::AsIs);
        let made = format!("{many}, W/\"pillion-1\"");
        assert_eq!(for_app(&fields(&[("if-match", &made)]), &header::IF_MATCH), rewritten(&many));
    }

    proptest! {
        /// A 304 only if the content is the same: the tags of two different contents never match.
        #[test]
        fn not_modified_means_the_same_content(one: Vec<u8>, other: Vec<u8>) {
            let made = |content: &[u8]| entity_tag::made([&bytes::Bytes::copy_from_slice(content)].into_iter());
            let tag = made(&one);
            let asked = fields(&[("if-none-match", tag.to_str().unwrap())]);
            let mut validators = HeaderMap::new();
            validators.insert(header::ETAG, made(&other));
            let verdict = Conditions::from_headers(&asked).evaluate(&validators);
            prop_assert_eq!(verdict == Verdict::NotModified, one == other);
        }
    }
}
