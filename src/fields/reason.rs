//! Reason phrases of HTTP/1 responses (RFC 9112 4). Clients should ignore them, but people and old libraries read them,
//! so an upstream's own phrase is passed on.

use bytes::Bytes;
use http::StatusCode;

/// A reason phrase other than the standard phrase of its status. It is an extension of the response, so that responses
/// without one carry nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonPhrase {
    status: StatusCode,
    phrase: Bytes,
}

impl ReasonPhrase {
    /// Returns the phrase of a status line, if it is not the standard phrase. The phrase is the text after
    /// `HTTP/1.1 200 `; the head parser has validated its bytes.
    pub fn from_status_line(line: &[u8], status: StatusCode) -> Option<ReasonPhrase> {
        const BEFORE: usize = "HTTP/1.1 200 ".len();
        let phrase = line.get(BEFORE..)?.trim_ascii();
        if phrase.is_empty() || status.canonical_reason().is_some_and(|usual| usual.as_bytes() == phrase) {
            return None;
        }
        // Copies the phrase: a slice would keep the buffer of the whole head in memory.
        Some(ReasonPhrase { status, phrase: Bytes::copy_from_slice(phrase) })
    }

    /// Returns the phrase that another process stored; `None` if it is none (RFC 9112 4).
    pub(crate) fn from_stored(phrase: &[u8], status: StatusCode) -> Option<ReasonPhrase> {
        let fits = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        let is_phrase = !phrase.is_empty() && phrase.iter().all(fits);
        is_phrase.then(|| ReasonPhrase { status, phrase: Bytes::copy_from_slice(phrase) })
    }

    /// Returns the phrase for a response with this status. A response that was converted to another status (304, 206)
    /// loses it.
    pub fn for_status(&self, status: StatusCode) -> Option<&[u8]> {
        (self.status == status).then_some(&self.phrase[..])
    }

    /// Returns the length in bytes.
    pub fn size(&self) -> usize {
        self.phrase.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n4_18_phrase_of_a_status_line() {
        for (line, status, phrase) in [
            (&b"HTTP/1.1 200 OK"[..], 200, None),
            (b"HTTP/1.1 404 Not Found\r", 404, None),
            (b"HTTP/1.1 404 No such patient\r", 404, Some(&b"No such patient"[..])),
            (b"HTTP/1.0 200 ok", 200, Some(b"ok")),
            (b"HTTP/1.1 299 Miscellaneous", 299, Some(b"Miscellaneous")),
            (b"HTTP/1.1 404 N\xc3\xa3o encontrado", 404, Some(b"N\xc3\xa3o encontrado")),
            (b"HTTP/1.1 200 ", 200, None),
            (b"HTTP/1.1 200", 200, None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let found = ReasonPhrase::from_status_line(line, status);
            assert_eq!(found.as_ref().and_then(|found| found.for_status(status)), phrase, "{line:?}");
            assert_eq!(found.as_ref().and_then(|found| found.for_status(StatusCode::NOT_MODIFIED)), None);
        }
    }
}
