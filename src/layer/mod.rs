//! The adapters: thin tower services between a connection and an app, outermost first
//! observe, rescue, route, limit, represent, cache, forward. `stack` builds them in one place.
//!
//! A layer decides little by itself: it asks an engine or the policy and turns the answer into HTTP.

mod cache;
pub(crate) mod certificates;
mod either;
pub(crate) mod explain;
mod forward;
mod limit;
mod observe;
pub(crate) mod record;
mod represent;
mod request_body;
mod rescue;
mod route;
mod routed;
pub(crate) mod stack;
mod underscores;

use crate::limit::cells::Kind;
use crate::limit::counters::Verdict;

/// The words that the layers tell users, by where they stand, and every problem type with its title.
pub(crate) fn words() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut all = cache::words();
    all.push(("log limit", Verdict::ALL.map(Verdict::as_str).to_vec()));
    all.push(("log caller (before the colon)", Kind::ALL.map(Kind::as_str).to_vec()));
    all
}

pub(crate) use rescue::problem_types;

/// Whether mimalloc has a block of this many bytes at once. It makes a detour for what fills one of its classes to the last
/// byte, four to each power of two, unless that is a power of two itself: such a block could do without the room that
/// alignment may need, but it does not look for one (`alloc-aligned.c`). A box for each request has another size.
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
        let sizes = [size_of::<Routed>(), size_of::<Request<Body>>(), size_of::<RequestRecord>()];
        assert!(sizes.into_iter().all(is_quick), "{sizes:?}");
    }
}
