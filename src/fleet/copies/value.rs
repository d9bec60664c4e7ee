//! A stored response as it stands in Redis, before it is sealed. All numbers are big-endian, times in milliseconds, and
//! each text is preceded by its length.
//!
//! ```text
//! version kind
//! kind 0, a response: age wall lifetime-in-Redis, head, content
//! kind 1, the fields that the responses of a key vary with: their names
//! ```

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::cache::rules::freshness::{Freshness, Source};
use crate::cache::rules::storability::Audience;
use crate::cache::store::stored::StoredResponse;
use crate::cache::variant::Variant;
use crate::fields::reason::ReasonPhrase;
use crate::memory::chunked_bytes::ChunkedBytes;

/// Version of the format; part of the name of each value, so another version finds none.
pub(super) const VERSION: u8 = 1;

const RESPONSE: u8 = 0;
const NAMES: u8 = 1;

const SOURCES: [Source; 4] = [Source::App, Source::Route, Source::Heuristic, Source::Nobody];
const AUDIENCES: [Audience; 3] = [Audience::Anonymous, Audience::Authorized, Audience::Everyone];

/// A value.
#[derive(Debug)]
pub(super) enum Value {
    Response(Box<Received>),
    /// The fields that the responses of a key vary with; each has a name of its own.
    Names(Vec<HeaderName>),
}

/// The times of a copy, by which its age is found when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// Its age when it was written (RFC 9111 4.2.3).
    pub age: Duration,
    /// When it was written, since 1970, by the clock of its writer.
    pub wall: Duration,
    /// How long Redis was told to keep it.
    pub kept: Duration,
}

/// A response that came from another process.
#[derive(Debug)]
pub(crate) struct Received {
    pub(super) times: Times,
    pub status: StatusCode,
    /// The reason phrase, if the upstream sent one of its own.
    pub phrase: Option<ReasonPhrase>,
    /// The stored fields, without placeholders.
    pub fields: HeaderMap,
    /// The fields that decided about storing and that clients do not receive.
    pub own: HeaderMap,
    pub variant: Variant,
    pub freshness: Freshness,
    pub audience: Audience,
    /// How long its fetch took.
    pub fetched_in: Duration,
    pub content: ChunkedBytes,
}

/// Writes the fields that the responses of a key vary with.
pub(super) fn names(names: &[HeaderName]) -> Vec<u8> {
    let mut out = Writer(vec![VERSION, NAMES]);
    out.number(names.len() as u64);
    names.iter().for_each(|name| out.text(name.as_str().as_bytes()));
    out.0
}

/// Writes a response.
pub(super) fn response(stored: &StoredResponse, times: Times) -> Vec<u8> {
    let (head, content) = (&stored.head, stored.content.pieces());
    let mut out = Writer(Vec::with_capacity(content.len() + head.size() + 64));
    out.0.extend([VERSION, RESPONSE]);
    [times.age, times.wall, times.kept].into_iter().for_each(|time| out.time(time));
    out.number(u64::from(head.status.as_u16()));
    out.text(head.phrase.as_ref().and_then(|phrase| phrase.for_status(head.status)).unwrap_or_default());
    out.fields(&head.stored_fields());
    out.fields(&head.own);
    out.number(head.variant.fields().count() as u64);
    for (name, said) in head.variant.fields() {
        out.text(name.as_str().as_bytes());
        out.text(said);
    }
    let Freshness {
        lifetime,
        source,
        no_cache,
        must_revalidate,
        while_revalidate,
        if_unreachable,
        if_error,
        error_500,
    } = head.freshness;
    [lifetime, while_revalidate, if_unreachable, if_error].into_iter().for_each(|time| out.time(time));
    let flags = [no_cache, must_revalidate, error_500];
    out.0.push(flags.iter().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
    out.word(SOURCES.iter().position(|known| *known == source));
    out.word(AUDIENCES.iter().position(|known| *known == head.audience));
    out.time(head.fetched_in);
    content.iter().for_each(|piece| out.0.extend_from_slice(piece));
    out.0
}

/// Reads a value; `None` if it is none of this version.
pub(super) fn read(bytes: &[u8]) -> Option<Value> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    let mut from = Reader(rest);
    match *head {
        [VERSION, NAMES] => {
            let count = from.count()?;
            Some(Value::Names((0..count).map(|_| from.name()).collect::<Option<_>>()?))
        }
        [VERSION, RESPONSE] => from.response().map(|received| Value::Response(Box::new(received))),
        _ => None,
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn time(&mut self, time: Duration) {
        self.number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text);
    }

    /// Writes the place of a word in its list.
    fn word(&mut self, place: Option<usize>) {
        self.0.push(place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX));
    }

    fn fields(&mut self, fields: &HeaderMap) {
        self.number(fields.len() as u64);
        for (name, value) in fields {
            self.text(name.as_str().as_bytes());
            self.0.push(u8::from(value.is_sensitive()));
            self.text(value.as_bytes());
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }

    fn time(&mut self) -> Option<Duration> {
        self.number().map(Duration::from_millis)
    }

    /// Reads a number of things of which each takes at least a byte.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }

    fn name(&mut self) -> Option<HeaderName> {
        HeaderName::from_bytes(self.text()?).ok()
    }

    fn word<T: Copy>(&mut self, words: &[T]) -> Option<T> {
        words.get(usize::from(self.byte()?)).copied()
    }

    fn fields(&mut self) -> Option<HeaderMap> {
        let mut fields = HeaderMap::new();
        for _ in 0..self.count()? {
            let name = self.name()?;
            let sensitive = self.byte()? == 1;
            let mut value = HeaderValue::from_bytes(self.text()?).ok()?;
            value.set_sensitive(sensitive);
            fields.try_append(name, value).ok()?;
        }
        Some(fields)
    }

    fn variant(&mut self) -> Option<Variant> {
        let count = self.count()?;
        let field = |_| Some((self.name()?, self.text()?.to_vec()));
        Some(Variant::from_fields((0..count).map(field).collect::<Option<_>>()?))
    }

    fn response(mut self) -> Option<Received> {
        let times = Times { age: self.time()?, wall: self.time()?, kept: self.time()? };
        let status = u16::try_from(self.number()?).ok().and_then(|code| StatusCode::from_u16(code).ok())?;
        let phrase = ReasonPhrase::from_stored(self.text()?, status);
        let (fields, own, variant) = (self.fields()?, self.fields()?, self.variant()?);
        let (lifetime, while_revalidate) = (self.time()?, self.time()?);
        let (if_unreachable, if_error) = (self.time()?, self.time()?);
        let flags = self.byte()?;
        let freshness = Freshness {
            lifetime,
            source: self.word(&SOURCES)?,
            no_cache: flags & 4 != 0,
            must_revalidate: flags & 2 != 0,
            while_revalidate,
            if_unreachable,
            if_error,
            error_500: flags & 1 != 0,
        };
        let audience = self.word(&AUDIENCES)?;
        let fetched_in = self.time()?;
        let content = ChunkedBytes::copy(self.0);
        Some(Received {
            times,
            status,
            phrase,
            fields,
            own,
            variant,
            freshness,
            audience,
            fetched_in,
            content,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::store::stored::{Content, StoredHead};
    use crate::fields::cookie::Ignored;
    use crate::memory::memory_budget::MemoryBudget;
    use proptest::prelude::*;
    use std::sync::Arc;

    const MINUTE: Duration = Duration::from_secs(60);

    fn stored(content: &[u8], values: &[Vec<u8>]) -> StoredResponse {
        use crate::cache::selecting_fields::SelectingFields;
        use crate::cache::store::stored::tests::parts_with;
        let now = crate::runtime::clock::now();
        let begun = crate::cache::invalidation::FetchEpoch { number: 1, at: 1, order: 1 };
        let mut parts = parts_with(&[], begun, now);
        for value in values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()) {
            parts.fields.append("x-one", value.clone());
            parts.own.append("surrogate-control", value);
        }
        parts.fields.insert("vary", HeaderValue::from_static("accept, x-a"));
        let mut request = HeaderMap::new();
        request.insert("x-a", HeaderValue::from_static("b"));
        let ignored = Ignored::default();
        let asked = SelectingFields::new(&request, &ignored);
        parts.variant = Variant::from_response(&parts.fields, asked, &["x-b".parse().unwrap()]).unwrap();
        parts.audience = Audience::Authorized;
        parts.freshness.must_revalidate = true;
        parts.freshness.while_revalidate = MINUTE;
        let place = Arc::new(MemoryBudget::at_most(1 << 30)).take_over(0);
        let content = Arc::new(Content::new(ChunkedBytes::copy(content), None, place));
        let phrase = ReasonPhrase::from_stored(b"Fine", parts.status);
        StoredResponse { head: Arc::new(StoredHead::new(parts).with_phrase(phrase.as_ref())), content }
    }

    proptest! {
        #[test]
        fn a_response_is_read_as_it_was_written(
            content in proptest::collection::vec(any::<u8>(), 0..50_000),
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let stored = stored(&content, &values);
            let times = Times { age: MINUTE, wall: 3 * MINUTE, kept: 2 * MINUTE };
            let bytes = response(&stored, times);
            let Some(Value::Response(found)) = read(&bytes) else { panic!("it is a response") };
            let head = &stored.head;
            prop_assert_eq!(found.times, times);
            prop_assert_eq!((found.status, &found.phrase), (head.status, &head.phrase));
            prop_assert_eq!(&found.fields, &head.stored_fields());
            prop_assert_eq!(&found.own, &head.own);
            let fields = |variant: &Variant| {
                let said = variant.fields().map(|(name, said)| (name.to_string(), said.to_vec()));
                let mut said: Vec<_> = said.collect();
                said.sort();
                said
            };
            prop_assert_eq!(fields(&found.variant), fields(&head.variant));
            prop_assert_eq!(found.freshness, head.freshness);
            prop_assert_eq!(found.audience, head.audience);
            prop_assert_eq!(found.content.joined(), content.clone());
            // Whatever is cut off, nothing panics, and what is left is no other head.
            let end = cut.index(bytes.len());
            if let Some(Value::Response(found)) = read(&bytes[..end]) {
                prop_assert_eq!(&found.fields, &head.stored_fields());
                prop_assert!(content.starts_with(&found.content.joined()));
            }
        }

        #[test]
        fn bytes_of_any_kind_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&[&[VERSION, RESPONSE][..], &bytes].concat());
            let _ = read(&[&[VERSION, NAMES][..], &bytes].concat());
        }
    }

    #[test]
    fn names_are_read_as_they_were_written() {
        let written = ["accept".parse().unwrap(), "x-a".parse().unwrap()];
        let Some(Value::Names(found)) = read(&names(&written)) else { panic!("these are names") };
        assert_eq!(found, written);
        assert!(read(&[VERSION + 1, NAMES, 0, 0, 0, 0, 0, 0, 0, 0]).is_none());
    }
}
