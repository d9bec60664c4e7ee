//! Response heads shared by many responses: decided and rendered as HTTP/1 lines once, and kept with the stored
//! response. Fields that differ from response to response are written after them.

use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{BufMut, Bytes};
use http::HeaderValue;

/// Maximum number of variants kept for one stored response; a new one evicts the oldest.
const MAX_FORMS: usize = 4;
/// Bytes reserved for the fields of a single response.
const OWN: usize = 256;

/// The properties of a request that decide the head, as a number: equal numbers get equal heads.
pub(crate) type HeadVariant = NonZeroU64;

/// The head of a stored response for requests of one variant.
#[derive(Debug)]
pub struct RenderedHead {
    pub form: HeadVariant,
    /// The header lines of the response.
    pub lines: Bytes,
    /// The header lines of the corresponding 304, without ETag.
    pub unchanged: Bytes,
    /// Whether the lines contain Date; otherwise each response gets its own.
    pub dated: bool,
    /// The entity tag that conditional requests are evaluated against.
    pub tag: Option<HeaderValue>,
    /// The entity tag sent to the client.
    pub shown: Option<HeaderValue>,
    /// Name of the derived form that is sent instead of the stored content, such as a content coding.
    pub made: Option<&'static str>,
    /// Index of the counter for this response, chosen by the code that decided the head.
    pub counted: usize,
}

impl RenderedHead {
    /// Returns the estimated memory of the variant in bytes.
    fn size(&self) -> usize {
        let tag = |tag: &Option<HeaderValue>| tag.as_ref().map_or(0, HeaderValue::len);
        size_of::<RenderedHead>()
            + self.lines.len()
            + self.unchanged.len()
            + tag(&self.tag)
            + tag(&self.shown)
    }
}

/// The rendered heads of one stored response.
#[derive(Debug, Default)]
pub(crate) struct RenderedHeads(RwLock<Vec<Arc<RenderedHead>>>);

impl RenderedHeads {
    /// Returns the head for requests of this variant.
    pub(crate) fn get(&self, form: HeadVariant) -> Option<Arc<RenderedHead>> {
        let forms = self.0.read().unwrap_or_else(PoisonError::into_inner);
        forms.iter().find(|prepared| prepared.form == form).cloned()
    }

    pub(crate) fn keep(&self, prepared: RenderedHead) {
        let mut forms = self.0.write().unwrap_or_else(PoisonError::into_inner);
        forms.retain(|known| known.form != prepared.form);
        if forms.len() >= MAX_FORMS {
            forms.remove(0);
        }
        forms.reserve_exact(1);
        forms.push(Arc::new(prepared));
    }

    /// Returns the estimated memory of the variant in bytes.
    pub(crate) fn size(&self) -> usize {
        let forms = self.0.read().unwrap_or_else(PoisonError::into_inner);
        forms.iter().map(|prepared| prepared.size()).sum()
    }
}

/// A callback that stores a rendered head.
pub(crate) type StoreHead = Box<dyn FnOnce(RenderedHead)>;

/// The head of one response: the rendered part and its own fields.
#[derive(Debug)]
pub struct HeadLines {
    pub head: Arc<RenderedHead>,
    /// Whether this is the head of a 304.
    pub unchanged: bool,
    own: Vec<u8>,
}

impl HeadLines {
    /// Creates a head without fields of its own.
    pub fn new(prepared: Arc<RenderedHead>) -> HeadLines {
        HeadLines { head: prepared, unchanged: false, own: Vec::with_capacity(OWN) }
    }

    /// Adds a field to this response alone. `value` writes a valid field value.
    pub fn add(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.own.put_slice(name.as_bytes());
        self.own.put_slice(b": ");
        value(&mut self.own);
        self.own.put_slice(b"\r\n");
    }

    /// Returns the header lines in two parts: rendered, then own.
    pub fn parts(&self) -> [&[u8]; 2] {
        [if self.unchanged { &self.head.unchanged } else { &self.head.lines }, &self.own]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(number: u64) -> HeadVariant {
        HeadVariant::new(number).expect("they count from 1")
    }

    fn prepared(number: u64) -> RenderedHead {
        RenderedHead {
            form: form(number),
            lines: Bytes::from_static(b"a: b\r\n"),
            unchanged: Bytes::from_static(b"c: d\r\n"),
            dated: false,
            tag: None,
            shown: None,
            made: None,
            counted: 0,
        }
    }

    #[test]
    fn a_few_forms_are_kept() {
        let forms = RenderedHeads::default();
        (1..7).for_each(|number| forms.keep(prepared(number)));
        forms.keep(prepared(6));
        assert!(forms.get(form(2)).is_none() && (3..7).all(|number| forms.get(form(number)).is_some()));
        assert_eq!(forms.size(), MAX_FORMS * prepared(1).size());
    }

    #[test]
    fn own_lines_come_behind() {
        let mut lines = HeadLines::new(Arc::new(prepared(1)));
        lines.add("age", |out| out.put_slice(b"1"));
        assert_eq!(lines.parts(), [&b"a: b\r\n"[..], b"age: 1\r\n"]);
        lines.unchanged = true;
        assert_eq!(lines.parts(), [&b"c: d\r\n"[..], b"age: 1\r\n"]);
    }
}
