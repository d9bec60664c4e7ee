//! `Range` (RFC 9110 14.2) and `Content-Range` (14.4), in bytes.

use std::ops::Range;

use super::list;

/// A requested range (RFC 9110 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeSpec {
    /// From the first to the last byte, both included. Without a last byte, the range extends to the end.
    From(u64, Option<u64>),
    Suffix(u64),
}

impl RangeSpec {
    /// Returns the bytes that the range selects of content of `length` bytes; `None` if it selects none.
    pub(crate) fn resolve(self, length: u64) -> Option<Range<u64>> {
        match self {
            RangeSpec::From(first, last) if first < length => {
                Some(first..last.map_or(length, |last| last.saturating_add(1).min(length)))
            }
            RangeSpec::Suffix(count) if count > 0 && length > 0 => Some(length.saturating_sub(count)..length),
            _ => None,
        }
    }
}

/// Parses a `Range` field. Returns `None` if it is malformed, in another unit, or has more than `max` ranges; such a
/// field is ignored (RFC 9110 14.2).
pub(crate) fn parse(value: &[u8], max: usize) -> Option<Vec<RangeSpec>> {
    let (unit, set) = value.split_at(value.iter().position(|byte| *byte == b'=')?);
    if !unit.trim_ascii().eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut ranges = Vec::new();
    for element in list::elements(set.get(1..)?) {
        if ranges.len() == max {
            return None;
        }
        ranges.push(spec(element)?);
    }
    (!ranges.is_empty()).then_some(ranges)
}

fn spec(text: &[u8]) -> Option<RangeSpec> {
    let at = text.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (text.get(..at)?, text.get(at + 1..)?);
    match (first.is_empty(), last.is_empty()) {
        (true, true) => None,
        (true, false) => number(last).map(RangeSpec::Suffix),
        (false, true) => Some(RangeSpec::From(number(first)?, None)),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            // Such a range is invalid and makes the whole field invalid (RFC 9110 14.1.1).
            (first <= last).then_some(RangeSpec::From(first, Some(last)))
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // No content is as large as a number that does not parse, so the greatest number is equivalent.
    Some(std::str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields() {
        use RangeSpec::{From, Suffix};
        for (value, wanted) in [
            ("bytes=0-99", Some(vec![From(0, Some(99))])),
            ("bytes=5-", Some(vec![From(5, None)])),
            ("bytes=-5", Some(vec![Suffix(5)])),
            ("Bytes = 0-0 , -1", Some(vec![From(0, Some(0)), Suffix(1)])),
            ("bytes=0-99999999999999999999999", Some(vec![From(0, Some(u64::MAX))])),
            ("bytes=9-5", None),
            ("bytes=0-1,9-5", None),
            ("bytes=", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=1", None),
            ("bytes=+1-2", None),
            ("items=0-1", None),
            ("0-1", None),
            ("bytes=0-1,2-3,4-5,6-7", None),
        ] {
            assert_eq!(parse(value.as_bytes(), 3), wanted, "{value}");
        }
    }

    #[test]
    fn selection() {
        use RangeSpec::{From, Suffix};
        for (spec, length, wanted) in [
            (From(0, Some(99)), 1000, Some(0..100)),
            (From(0, Some(99)), 50, Some(0..50)),
            (From(50, None), 50, None),
            (From(49, None), 50, Some(49..50)),
            (From(0, Some(u64::MAX)), 50, Some(0..50)),
            (Suffix(5), 50, Some(45..50)),
            (Suffix(500), 50, Some(0..50)),
            (Suffix(0), 50, None),
            (Suffix(1), 0, None),
            (From(0, None), 0, None),
        ] {
            assert_eq!(spec.resolve(length), wanted, "{spec:?} of {length}");
        }
    }

    proptest! {
        #[test]
        fn a_selection_lies_within_the_content(first: u64, last: Option<u64>, count: u64, length in 0u64..1 << 40) {
            for spec in [RangeSpec::From(first, last), RangeSpec::Suffix(count)] {
                if let Some(range) = spec.resolve(length)
                    && last.is_none_or(|last| first <= last)
                {
                    prop_assert!(range.start < range.end && range.end <= length);
                }
            }
        }

        #[test]
        fn any_bytes_are_read(value in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&value, 8);
        }
    }
}
