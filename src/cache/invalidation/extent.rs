//! How far the invalidation of a write goes, by what its response says or by how much of it left (RFC 9111 4.4).

use http::StatusCode;

use crate::http1::client::Sent;

/// The extent of the invalidation by a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Nothing,
    Target,
    /// The target, and the rules that cover such a redirect; `done`: it confirms the write.
    Redirect {
        done: bool,
    },
    /// The target and all rules.
    All,
}

/// Returns the extent of a write's invalidation, and whether the upstream may still be working on it. Decides by the
/// status of the response, or without a response by how much of the request was sent.
pub(crate) fn outcome(status: Option<StatusCode>, sent: Sent) -> (Extent, bool) {
    let Some(status) = status else {
        return match sent {
            Sent::Nothing => (Extent::Nothing, false),
            // RFC 9112 8: an upstream must not act on an incomplete request; some act on its head.
            Sent::Part => (Extent::Target, true),
            Sent::Whole => (Extent::All, true),
        };
    };
    match status.as_u16() {
        101 | 200..=299 => (Extent::All, false),
        // RFC 9110 15.4: these confirm the request and name the next URL; 307 and 308 ask for the request to be sent
        // there again.
        301..=303 => (Extent::Redirect { done: true }, false),
        307 | 308 => (Extent::Redirect { done: false }, false),
        300..=399 => (Extent::Target, false),
        // A gateway behind Pillion does not know the outcome either.
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
