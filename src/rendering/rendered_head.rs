//! Heads that many answers have in common: decided about once, written once as lines of HTTP/1, and kept with what they
//! are the heads of. What differs from answer to answer is written behind them.

use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{BufMut, Bytes};
use http::HeaderValue;

/// More ways to ask for one thing are not kept apart; the oldest makes way.
const MAX_FORMS: usize = 4;
/// Room for the fields that each answer gets anew.
const OWN: usize = 256;

/// How something is asked for, as a number: the same number gets the same head.
pub(crate) type HeadVariant = NonZeroU64;

/// What a stored answer looks like to those who ask for it in one form.
#[derive(Debug)]
pub struct RenderedHead {
    pub form: HeadVariant,
    /// The lines of its fields.
    pub lines: Bytes,
    /// Those of a 304 in its place, without a tag.
    pub unchanged: Bytes,
    /// Whether there is a Date among them; else each answer gets its own.
    pub dated: bool,
    /// The tag by which conditions are judged.
    pub tag: Option<HeaderValue>,
    /// The tag it goes out with.
    pub shown: Option<HeaderValue>,
    /// What was made of the content goes out under this name, and not the content as it is.
    pub made: Option<&'static str>,
    /// Where it is counted, as whoever decided about it knows.
    pub counted: usize,
}

impl RenderedHead {
    /// In bytes.
    fn size(&self) -> usize {
        let tag = |tag: &Option<HeaderValue>| tag.as_ref().map_or(0, HeaderValue::len);
        size_of::<RenderedHead>()
            + self.lines.len()
            + self.unchanged.len()
            + tag(&self.tag)
            + tag(&self.shown)
    }
}

/// The heads that were prepared for one stored answer.
#[derive(Debug, Default)]
pub(crate) struct RenderedHeads(RwLock<Vec<Arc<RenderedHead>>>);

impl RenderedHeads {
    /// The one of this form.
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

    /// In bytes.
    pub(crate) fn size(&self) -> usize {
        let forms = self.0.read().unwrap_or_else(PoisonError::into_inner);
        forms.iter().map(|prepared| prepared.size()).sum()
    }
}

/// Takes a head that was prepared.
pub(crate) type StoreHead = Box<dyn FnOnce(RenderedHead)>;

/// The head of one answer: what was prepared, and its own.
#[derive(Debug)]
pub struct HeadLines {
    pub head: Arc<RenderedHead>,
    /// Whether it is the head of a 304.
    pub unchanged: bool,
    own: Vec<u8>,
}

impl HeadLines {
    /// Without a field of its own yet.
    pub fn new(prepared: Arc<RenderedHead>) -> HeadLines {
        HeadLines { head: prepared, unchanged: false, own: Vec::with_capacity(OWN) }
    }

    /// Adds a field of its own; `value` writes what is one already.
    pub fn add(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.own.put_slice(name.as_bytes());
        self.own.put_slice(b": ");
        value(&mut self.own);
        self.own.put_slice(b"\r\n");
    }

    /// All of it, in two parts.
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
