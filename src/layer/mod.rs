//! The layers: thin tower services between a connection and an upstream. From the outermost they are observe, rescue,
//! route, limit, represent, cache and forward; `stack` builds them. A layer decides little itself: it asks an engine or
//! the policy, and turns the result into HTTP.

mod cache;
pub(crate) mod certificates;
mod either;
pub(crate) mod explain;
mod forward;
mod limit;
mod maintenance;
mod matching;
mod observe;
pub(crate) mod record;
pub(crate) mod rehearsal;
mod represent;
mod request_body;
mod rescue;
mod route;
mod routed;
pub(crate) mod stack;
#[cfg(test)]
mod testing;
mod underscores;
pub(crate) mod warm;

use crate::limit::cells::Kind;
use crate::limit::counters::Verdict;

/// Returns the words that users see from the layers, grouped by where they appear.
pub(crate) fn words() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut all = cache::words();
    all.push(("log limit", Verdict::ALL.map(Verdict::as_str).to_vec()));
    all.push(("log caller (before the colon)", Kind::ALL.map(Kind::as_str).to_vec()));
    all
}

pub(crate) use cache::{not_stored_sentence, not_stored_words};
pub(crate) use rescue::problem_types;

/// Returns whether mimalloc allocates a block of this size on its fast path. It takes a slow path for a size that fills
/// one of its classes exactly (four for each power of two) unless it is a power of two: alignment needs no extra room
/// there, but mimalloc does not check this (`alloc-aligned.c`). Boxes allocated for each request must avoid such sizes.
#[cfg(test)]
fn is_quick(size: usize) -> bool {
    const LARGEST: usize = 1024;
    size <= LARGEST && (size.is_power_of_two() || !size.is_multiple_of((1 << size.ilog2()) / 4))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::is_quick;
    use super::record::RequestRecord;
    use super::routed::Routed;
    use crate::message::body::Body;

    #[test]
    fn boxes_of_every_request_are_allocated_quickly() {
        assert!(is_quick(104) && !is_quick(112) && is_quick(128) && !is_quick(384));
        // An `Rc` has two counters beside its value.
        let record = size_of::<RequestRecord>() + 2 * size_of::<usize>();
        let sizes = [size_of::<Routed>(), size_of::<Request<Body>>(), record];
        assert!(sizes.into_iter().all(is_quick), "{sizes:?}");
    }
}
