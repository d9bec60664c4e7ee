//! The outcome of the representation layer: the coding that it applied.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The name of a coding, and a counter of the bytes before it.
type Coding = (&'static str, Rc<Cell<u64>>);

/// The outcome of representation for one response.
#[derive(Default)]
pub(crate) struct RepresentOutcome {
    /// The coding of the response. Its counter grows while the response is encoded.
    coding: RefCell<Option<Coding>>,
}

impl RepresentOutcome {
    /// Records the coding of the response, and the counter of bytes before it.
    pub(crate) fn set_coding(&self, coding: &'static str, before: Rc<Cell<u64>>) {
        *self.coding.borrow_mut() = Some((coding, before));
    }

    /// Returns the coding of the response, and the bytes that have been encoded so far.
    pub(super) fn coding(&self) -> Option<(&'static str, u64)> {
        self.coding.borrow().as_ref().map(|(coding, before)| (*coding, before.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coding_while_encoding_continues_shows_the_bytes_so_far() {
        let outcome = RepresentOutcome::default();
        assert_eq!(outcome.coding(), None);
        let before = Rc::new(Cell::new(3));
        outcome.set_coding("gzip", before.clone());
        before.set(before.get() + 4);
        assert_eq!(outcome.coding(), Some(("gzip", 7)));
    }
}
