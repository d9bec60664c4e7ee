//! `traceparent` (W3C Trace Context 2): the trace that a request belongs to, and the calling span in it.

use http::{HeaderName, HeaderValue};

use super::fresh;

/// The field that identifies a trace and its calling span.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Data of tracing vendors; meaningless without `traceparent` (3.3.1).
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Length of a field of version 00, in bytes.
const LENGTH: usize = 55;
/// The text around the value in an HTTP/1 head.
const NAME: &[u8] = b"traceparent: ";
const END: &[u8] = b"\r\n";

/// The flag for a trace that is recorded.
pub(crate) const SAMPLED: u8 = 0b01;
/// The flag for a trace with a random id ("Random Trace ID Flag" of level 2).
pub(crate) const RANDOM: u8 = 0b10;

/// The parsed value of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace id, never 0.
    pub trace: u128,
    /// The id of the calling span, never 0.
    pub span: u64,
    /// The flags [`SAMPLED`] and [`RANDOM`].
    pub flags: u8,
}

impl TraceParent {
    /// Parses a value; `None` if it is malformed, and a new trace begins then (3.2.2).
    pub fn parse(text: &[u8]) -> Option<TraceParent> {
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let [v0, v1, b'-', ..] = head else { return None };
        let version = hex(&[*v0, *v1])?;
        // A later version may append data after a further dash (3.2.4).
        let whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|byte| *byte == b'-'),
        };
        if !whole || head[35] != b'-' || head[52] != b'-' {
            return None;
        }
        let trace = hex(&head[3..35])?;
        let span = u64::try_from(hex(&head[36..52])?).ok()?;
        let flags = u8::try_from(hex(&head[53..])?).ok()? & (SAMPLED | RANDOM);
        (trace != 0 && span != 0).then_some(TraceParent { trace, span, flags })
    }

    /// Returns whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Formats the line of an HTTP/1 head. `digits` is the trace id in hexadecimal, if it is already known.
    pub fn line(&self, digits: Option<&[u8; 32]>) -> [u8; NAME.len() + LENGTH + END.len()] {
        let mut line = [0; NAME.len() + LENGTH + END.len()];
        let (name, rest) = line.split_at_mut(NAME.len());
        let (text, end) = rest.split_at_mut(LENGTH);
        name.copy_from_slice(NAME);
        text.copy_from_slice(b"00-00000000000000000000000000000000-0000000000000000-00");
        match digits {
            Some(digits) => text[3..35].copy_from_slice(digits),
            None => text[3..35].copy_from_slice(&fresh::hex(self.trace)),
        }
        text[36..52].copy_from_slice(&fresh::hex_64(self.span));
        text[54] += self.flags & (SAMPLED | RANDOM);
        end.copy_from_slice(END);
        line
    }

    /// Formats the value of the field.
    pub fn value(&self) -> HeaderValue {
        let line = self.line(None);
        let text = &line[NAME.len()..line.len() - END.len()];
        let value = fresh::value(LENGTH, |out| out.extend_from_slice(text));
        value.expect("hexadecimal digits and dashes make a field")
    }
}

/// Parses hexadecimal digits. Upper case is rejected (3.2.2).
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_taken() {
        let known =
            TraceParent { trace: 0x4bf92f3577b34da6a3ce929d0e0e4736, span: 0x00f067aa0ba902b7, flags: 1 };
        for (text, expected) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(known)),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
                Some(TraceParent { flags: 0, ..known }),
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
                Some(TraceParent { flags: 3, ..known }),
            ),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(known)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", Some(known)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", None),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1", None),
            ("", None),
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1u128.., span in 1u64.., flags in 0u8..4) {
            let parent = TraceParent { trace, span, flags };
            prop_assert_eq!(TraceParent::parse(parent.value().as_bytes()), Some(parent));
        }

        #[test]
        fn no_text_is_too_odd(text in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = TraceParent::parse(&text);
        }
    }
}
