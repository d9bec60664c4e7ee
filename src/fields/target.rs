//! Request targets with raw bytes that a URI must not contain (RFC 3986 2), as old clients and `curl -g` send them.
//! They are percent-encoded on arrival, so that Pillion and the upstream read the same form.

/// A byte that a target must percent-encode.
const RAW: u8 = 1;
/// A byte that must not occur in a target, because it begins a fragment.
const FRAGMENT: u8 = 2;

const OCTETS: [u8; 256] = {
    let mut octets = [0; 256];
    let raw = b"\"<>^`{|}\\";
    let mut at = 0;
    while at < raw.len() {
        octets[raw[at] as usize] = RAW;
        at += 1;
    }
    octets[b'#' as usize] = FRAGMENT;
    octets
};

/// The result of inspecting every byte of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looks {
    /// The target is valid, as nearly all are.
    Plain,
    /// The target has bytes that must be percent-encoded.
    Raw,
    Fragment,
}

impl Looks {
    pub(crate) fn inspect(target: &[u8]) -> Looks {
        let seen = target.iter().fold(0, |seen, byte| seen | OCTETS[usize::from(*byte)]);
        match seen {
            0 => Looks::Plain,
            RAW => Looks::Raw,
            _ => Looks::Fragment,
        }
    }
}

/// Percent-encodes the raw bytes of a target. A backslash in the path stays, because some apps read it as a slash; such
/// a path is refused later.
pub(crate) fn encoded(target: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = Vec::with_capacity(target.len() + 16);
    let mut query = false;
    for byte in target {
        query |= *byte == b'?';
        if OCTETS[usize::from(*byte)] != RAW || (*byte == b'\\' && !query) {
            text.push(*byte);
            continue;
        }
        text.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n4_17_raw_octets_are_encoded() {
        for (target, looks, wanted) in [
            ("/a?b=c", Looks::Plain, "/a?b=c"),
            ("/a|b/{c}", Looks::Raw, "/a%7Cb/%7Bc%7D"),
            ("/a\"<>^`?\"<>^`{|}\\", Looks::Raw, "/a%22%3C%3E%5E%60?%22%3C%3E%5E%60%7B%7C%7D%5C"),
            ("/a\\b?c\\d", Looks::Raw, "/a\\b?c%5Cd"),
            ("/a?b%7B[c]", Looks::Plain, "/a?b%7B[c]"),
            ("/a#b", Looks::Fragment, "/a#b"),
            ("/{#", Looks::Fragment, "/%7B#"),
        ] {
            assert_eq!(Looks::inspect(target.as_bytes()), looks, "{target}");
            assert_eq!(String::from_utf8(encoded(target.as_bytes())).unwrap(), wanted, "{target}");
        }
    }
}
