//! `Content-Type` (RFC 9110 8.3): which responses are streams. Types, subtypes and parameter names are case-insensitive
//! (8.3.1).

use http::{HeaderMap, header};

use super::list;

/// How the upstream delivers the content of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaKind {
    /// Ordinary content, as far as the type tells.
    Ordinary,
    /// A stream: each part is useful at once, with pauses of any length between parts. It is never buffered.
    Stream,
    /// Server-sent events: an endless stream whose events matter only at the moment they are sent.
    Events,
    /// gRPC messages. gRPC has codings and time limits of its own.
    Grpc,
}

/// Complete media types that are streams.
const STREAMS: [&[u8]; 7] = [
    b"multipart/x-mixed-replace",
    b"application/x-ndjson",
    b"application/ndjson",
    b"application/stream+json",
    b"application/json-seq",
    b"application/jsonl",
    b"application/x-jsonlines",
];

/// Prefixes of media types that are streams: Connect, and Docker's container output.
const BEGINNINGS: [&[u8]; 2] = [b"application/connect+", b"application/vnd.docker."];

impl MediaKind {
    pub(crate) fn from_headers(headers: &HeaderMap) -> MediaKind {
        // Comparing names is far faster than looking them up.
        let found = headers.iter().find(|(name, _)| **name == header::CONTENT_TYPE);
        found.map_or(MediaKind::Ordinary, |(_, value)| MediaKind::parse(value.as_bytes()))
    }

    pub(crate) fn parse(value: &[u8]) -> MediaKind {
        // One comparison decides for the types of most responses.
        if matches!(value, b"application/json" | b"text/html" | b"text/html; charset=utf-8" | b"text/plain") {
            return MediaKind::Ordinary;
        }
        // Most values are short, so a simple loop is faster than a search made for long inputs.
        let end = value.iter().position(|byte| *byte == b';');
        let essence = value[..end.unwrap_or(value.len())].trim_ascii();
        let begins = |beginning: &[u8]| {
            // Nearly all types begin with the same word, so comparing the last byte first rejects most of them.
            let last = beginning.len() - 1;
            essence.get(last).is_some_and(|octet| octet.eq_ignore_ascii_case(&beginning[last]))
                && essence[..last].eq_ignore_ascii_case(&beginning[..last])
        };
        // For example `application/grpc`, `application/grpc+proto`, `application/grpc-web-text`.
        const GRPC: &[u8] = b"application/grpc";
        if begins(GRPC) && matches!(essence.get(GRPC.len()), None | Some(b'+' | b'-')) {
            MediaKind::Grpc
        } else if essence.eq_ignore_ascii_case(b"text/event-stream") {
            MediaKind::Events
        } else if STREAMS.iter().any(|stream| essence.eq_ignore_ascii_case(stream))
            || BEGINNINGS.iter().any(|beginning| begins(beginning))
            || end.is_some_and(|end| is_watch(&value[end..]))
        {
            MediaKind::Stream
        } else {
            MediaKind::Ordinary
        }
    }

    /// Returns whether the content is never buffered, and may be silent for a long time.
    pub(crate) fn is_stream(self) -> bool {
        self != MediaKind::Ordinary
    }

    /// Returns whether the content is neither compressed nor stored, even if all of it arrived at once. Such a response
    /// ends only when one side ends it, so draining closes it at once.
    pub(crate) fn is_live(self) -> bool {
        matches!(self, MediaKind::Events | MediaKind::Grpc)
    }
}

/// Returns whether the parameters contain `;stream=watch`, which Kubernetes uses for streams of changes.
fn is_watch(parameters: &[u8]) -> bool {
    list::split(parameters, b';').any(|parameter| {
        let mut parts = parameter.splitn(2, |byte| *byte == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        name.eq_ignore_ascii_case(b"stream") && value.eq_ignore_ascii_case(b"watch")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n4_7_media_types_without_case() {
        use MediaKind::{Events, Grpc, Ordinary, Stream};
        for (value, wanted) in [
            ("text/event-stream", Events),
            ("Text/Event-Stream", Events),
            ("TEXT/EVENT-STREAM ; charset=UTF-8", Events),
            ("text/event-streams", Ordinary),
            ("application/grpc", Grpc),
            ("Application/gRPC+proto", Grpc),
            ("application/grpc+json;charset=utf-8", Grpc),
            ("application/grpc-web", Grpc),
            ("application/grpc-web-text+proto", Grpc),
            ("application/grpcish", Ordinary),
            ("Multipart/X-Mixed-Replace;boundary=frame", Stream),
            ("application/x-NDJSON", Stream),
            ("application/ndjson", Stream),
            ("application/stream+json", Stream),
            ("application/json-seq", Stream),
            ("application/connect+proto", Stream),
            ("application/CONNECT+json", Stream),
            ("application/vnd.docker.raw-stream", Stream),
            ("application/vnd.docker.multiplexed-stream", Stream),
            ("application/json;stream=watch", Stream),
            ("application/json; charset=utf-8; Stream=\"Watch\"", Stream),
            ("application/vnd.kubernetes.protobuf;stream=watch", Stream),
            ("application/json;stream=watches", Ordinary),
            ("application/json", Ordinary),
            ("multipart/mixed", Ordinary),
            ("application/connect", Ordinary),
            ("", Ordinary),
        ] {
            assert_eq!(MediaKind::parse(value.as_bytes()), wanted, "{value}");
        }
    }
}
