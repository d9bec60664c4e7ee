//! The position of an entry in a stream of Redis: milliseconds and a sequence number.

use std::fmt;

/// The identifier of a stream entry; identifiers of one stream grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId {
    /// Milliseconds since 1970, by the clock of Redis.
    pub milliseconds: u64,
    pub sequence: u64,
}

impl StreamId {
    /// Parses `1700000000000-0`, as Redis writes it.
    pub(crate) fn parse(text: &str) -> Option<StreamId> {
        let (milliseconds, sequence) = text.split_once('-')?;
        Some(StreamId { milliseconds: milliseconds.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_read_written_and_ordered() {
        for (text, wanted) in [
            ("0-0", Some((0, 0))),
            ("1700000000000-12", Some((1_700_000_000_000, 12))),
            ("18446744073709551615-18446744073709551615", Some((u64::MAX, u64::MAX))),
            ("1", None),
            ("1-", None),
            ("-1", None),
            ("a-b", None),
            ("1-2-3", None),
            ("", None),
        ] {
            let parsed = StreamId::parse(text);
            assert_eq!(parsed.map(|id| (id.milliseconds, id.sequence)), wanted, "{text}");
            if let Some(id) = parsed {
                assert_eq!(id.to_string(), text);
            }
        }
        let id = |text| StreamId::parse(text).unwrap();
        assert!(id("9-9") < id("10-0") && id("10-0") < id("10-1"));
    }
}
