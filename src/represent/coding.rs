//! The content codings that Pillion makes, and which of them a client gets (RFC 9110 12.5.3).

use crate::fields::accept_encoding::{AcceptEncoding, Weight};
use crate::rendering::words::words;

words! {
    /// A content coding (RFC 9110 8.4.1) by its registered name, in the default order of preference.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) enum Coding {
        /// Zstandard, as RFC 8878 defines it.
        Zstd => "zstd",
        /// Brotli, as RFC 7932 defines it.
        Brotli => "br",
        /// Gzip, as RFC 1952 defines it.
        Gzip => "gzip",
    }
}

/// The effort of the encoders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Effort {
    /// The least CPU time that is worth encoding for.
    Fast,
    /// Small output with less CPU time than nginx spends.
    #[default]
    Balanced,
    /// The smallest output that a request can wait for.
    Best,
}

/// The result of content negotiation for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Negotiated {
    /// This coding, if the content allows it; and whether the client accepts unencoded content too.
    Coded(Coding, Plain),
    /// The unencoded content, without a coding.
    Identity,
    /// The client accepts neither an offered coding nor unencoded content.
    Nothing,
}

/// Whether the client accepts unencoded content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    Taken,
    /// The client refuses unencoded content (`identity;q=0`).
    Refused,
}

/// Returns the coding with the highest weight among those `offered`, which are in our order of preference. A request
/// without the field accepts any coding, but gets unencoded content all the same, since clients that can decode say so.
pub(crate) fn negotiate(accepts: &AcceptEncoding, offered: &[Coding]) -> Negotiated {
    if !accepts.is_present() {
        return Negotiated::Identity;
    }
    let mut best: Option<(Coding, Weight)> = None;
    for coding in offered {
        let weight = accepts.weight(coding.as_str());
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((*coding, weight));
        }
    }
    match (best, accepts.identity()) {
        (None, Some(0)) => Negotiated::Nothing,
        (None, _) => Negotiated::Identity,
        (Some((_, weight)), Some(identity)) if identity > weight => Negotiated::Identity,
        (Some((coding, _)), Some(0)) => Negotiated::Coded(coding, Plain::Refused),
        (Some((coding, _)), _) => Negotiated::Coded(coding, Plain::Taken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, header};
    use proptest::prelude::*;

    fn negotiated(field: Option<&str>, offered: &[Coding]) -> Negotiated {
        let mut headers = HeaderMap::new();
        if let Some(field) = field {
            headers.insert(header::ACCEPT_ENCODING, field.parse().unwrap());
        }
        negotiate(&AcceptEncoding::from_headers(&headers), offered)
    }

    #[test]
    fn preferences() {
        use Coding::{Brotli, Gzip, Zstd};
        use Negotiated::{Coded, Identity, Nothing};
        use Plain::{Refused, Taken};
        for (field, wanted) in [
            (None, Identity),
            (Some(""), Identity),
            (Some("gzip"), Coded(Gzip, Taken)),
            (Some("gzip, deflate, br, zstd"), Coded(Zstd, Taken)),
            (Some("gzip, deflate, br"), Coded(Brotli, Taken)),
            (Some("gzip;q=1.0, br;q=0.9"), Coded(Gzip, Taken)),
            (Some("*"), Coded(Zstd, Taken)),
            (Some("*;q=0.5, gzip"), Coded(Gzip, Taken)),
            (Some("zstd;q=0, *"), Coded(Brotli, Taken)),
            (Some("identity"), Identity),
            (Some("identity;q=1, gzip;q=0.5"), Identity),
            (Some("identity;q=0.5, gzip"), Coded(Gzip, Taken)),
            (Some("identity, gzip"), Coded(Gzip, Taken)),
            (Some("identity;q=0, gzip"), Coded(Gzip, Refused)),
            (Some("*;q=0, gzip"), Coded(Gzip, Refused)),
            (Some("*;q=0, identity"), Identity),
            (Some("deflate"), Identity),
            (Some("deflate, identity;q=0"), Nothing),
            (Some("*;q=0"), Nothing),
            (Some("compress;q=0.5, gzip;q=1.0"), Coded(Gzip, Taken)),
        ] {
            assert_eq!(negotiated(field, &Coding::ALL), wanted, "{field:?}");
        }
        let offered = [Gzip, Zstd];
        assert_eq!(negotiated(Some("gzip, br, zstd"), &offered), Coded(Gzip, Taken), "our order");
        assert_eq!(negotiated(Some("br"), &offered), Identity, "not offered");
        assert_eq!(negotiated(Some("br, identity;q=0"), &[]), Nothing);
    }

    proptest! {
        /// RFC 9110 12.5.3: a weight of 0 means not acceptable, whatever else the field says.
        #[test]
        fn a_refused_coding_is_never_chosen(
            items in proptest::collection::vec(("(gzip|br|zstd|identity|x|\\*)", 0u16..=10), 0..6),
        ) {
            let field: Vec<String> =
                items.iter().map(|(name, tenths)| format!("{name};q={}", f64::from(*tenths) / 10.0)).collect();
            if let Negotiated::Coded(coding, plain) = negotiated(Some(&field.join(", ")), &Coding::ALL) {
                let refused = |name: &str| items.iter().any(|(item, tenths)| item == name && *tenths == 0);
                let named = items.iter().any(|(item, _)| item == coding.as_str());
                prop_assert!(!refused(coding.as_str()));
                prop_assert!(named || items.iter().any(|(item, _)| item == "*"));
                prop_assert!(plain == Plain::Refused || !refused("identity"));
            }
        }
    }
}
