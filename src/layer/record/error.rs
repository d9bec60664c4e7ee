//! The outcome of a request that failed: the first error, and which side caused it.

use std::cell::{Ref, RefCell};

use crate::message::error::Fault;

/// The first error of one request.
#[derive(Default)]
pub(crate) struct ErrorOutcome {
    first: RefCell<Option<(Fault, String)>>,
}

impl ErrorOutcome {
    /// Records an error for the log. Only the first error counts: later ones are its consequences.
    pub(crate) fn set(&self, fault: Fault, error: String) {
        self.first.borrow_mut().get_or_insert((fault, error));
    }

    /// Returns the error, and the side that caused it.
    pub(crate) fn get(&self) -> Ref<'_, Option<(Fault, String)>> {
        self.first.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_after_another_is_ignored() {
        let outcome = ErrorOutcome::default();
        outcome.set(Fault::Upstream, "first".to_owned());
        outcome.set(Fault::Client, "second".to_owned());
        let error = outcome.get();
        let (fault, error) = error.as_ref().unwrap();
        assert_eq!((fault.as_str(), error.as_str()), (Fault::Upstream.as_str(), "first"));
    }
}
