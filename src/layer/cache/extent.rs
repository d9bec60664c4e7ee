//! How far the invalidation of a write goes, by what its response says or by how much of it left (RFC 9111 4.4).

use http::StatusCode;

use crate::http1::client::Sent;

/// How far the invalidation of a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Nothing,
    Target,
    /// The target, and rules as they say of a redirect; whether it says that the write was done.
    Redirect {
        done: bool,
    },
    /// The target and all rules.
    All,
}

/// What becomes of a write, by the status of its response, or without one, and by how much of the request left: how
/// far its invalidation goes, and whether the app may still be working on it.
pub(super) fn outcome(status: Option<StatusCode>, sent: Sent) -> (Extent, bool) {
    let Some(status) = status else {
        return match sent {
            Sent::Nothing => (Extent::Nothing, false),
            // RFC 9112 8: no app may act on a request that it did not receive whole; some do on its head.
            Sent::Part => (Extent::Target, true),
            Sent::Whole => (Extent::All, true),
        };
    };
    match status.as_u16() {
        101 | 200..=299 => (Extent::All, false),
        // RFC 9110 15.4: these tell that the request was done and where to go now; 307 and 308 that it is to be sent
        // there once more.
        301..=303 => (Extent::Redirect { done: true }, false),
        307 | 308 => (Extent::Redirect { done: false }, false),
        300..=399 => (Extent::Target, false),
        // A proxy behind us does not know either.
        502 | 504 => outcome(None, sent),
        _ => (Extent::Nothing, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_8_how_far_a_write_invalidates() {
        use Extent::{All, Nothing, Redirect, Target};
        let (part, whole) = (Sent::Part, Sent::Whole);
        for (status, sent, wanted) in [
            (None, Sent::Nothing, (Nothing, false)),
            (None, part, (Target, true)),
            (None, whole, (All, true)),
            (Some(101), whole, (All, false)),
            (Some(200), whole, (All, false)),
            (Some(207), whole, (All, false)),
            (Some(200), part, (All, false)),
            (Some(300), whole, (Target, false)),
            (Some(301), whole, (Redirect { done: true }, false)),
            (Some(302), whole, (Redirect { done: true }, false)),
            (Some(303), part, (Redirect { done: true }, false)),
            (Some(304), whole, (Target, false)),
            (Some(307), whole, (Redirect { done: false }, false)),
            (Some(308), whole, (Redirect { done: false }, false)),
            (Some(400), whole, (Nothing, false)),
            (Some(401), part, (Nothing, false)),
            (Some(413), part, (Nothing, false)),
            (Some(500), whole, (Nothing, false)),
            (Some(502), whole, (All, true)),
            (Some(502), part, (Target, true)),
            (Some(503), whole, (Nothing, false)),
            (Some(504), whole, (All, true)),
            (Some(504), part, (Target, true)),
        ] {
            let code = status.map(|code| StatusCode::from_u16(code).unwrap());
            assert_eq!(outcome(code, sent), wanted, "{status:?} {sent:?}");
        }
    }
}
