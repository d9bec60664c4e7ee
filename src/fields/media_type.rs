//! `Content-Type` (RFC 9110 8.3): which responses are streams. Types, subtypes and names of parameters are without
//! case (8.3.1).

use http::{HeaderMap, header};

use super::list;

/// How the content of a response comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaKind {
    /// In one go, as far as its type says.
    Ordinary,
    /// Piece by piece, each of use at once, with pauses of any length: never held back.
    Stream,
    /// Server-sent events: a stream that has no end, and whose events are of one moment.
    Events,
    /// Messages of gRPC, which has codings and time limits of its own.
    Grpc,
}

/// Streams by their whole type.
const STREAMS: [&[u8]; 7] = [
    b"multipart/x-mixed-replace",
    b"application/x-ndjson",
    b"application/ndjson",
    b"application/stream+json",
    b"application/json-seq",
    b"application/jsonl",
    b"application/x-jsonlines",
];

/// Streams by how their type begins: Connect, and what Docker sends of containers.
const BEGINNINGS: [&[u8]; 2] = [b"application/connect+", b"application/vnd.docker."];

impl MediaKind {
    pub(crate) fn from_headers(headers: &HeaderMap) -> MediaKind {
        // Names are compared far more quickly than they are looked up.
        let found = headers.iter().find(|(name, _)| **name == header::CONTENT_TYPE);
        found.map_or(MediaKind::Ordinary, |(_, value)| MediaKind::parse(value.as_bytes()))
    }

    pub(crate) fn parse(value: &[u8]) -> MediaKind {
        // One comparison tells the types of most responses apart.
        if matches!(value, b"application/json" | b"text/html" | b"text/html; charset=utf-8" | b"text/plain") {
            return MediaKind::Ordinary;
        }
        // Most values are shorter than what a search for one octet in many is made for.
        let end = value.iter().position(|byte| *byte == b';');
        let essence = value[..end.unwrap_or(value.len())].trim_ascii();
        let begins = |beginning: &[u8]| {
            // Nearly all begin with the same word, so the last octet tells most of them apart.
            let last = beginning.len() - 1;
            essence.get(last).is_some_and(|octet| octet.eq_ignore_ascii_case(&beginning[last]))
                && essence[..last].eq_ignore_ascii_case(&beginning[..last])
        };
        // `application/grpc`, `application/grpc+proto`, `application/grpc-web-text`.
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

    /// Whether it is never held back, and may be silent for long.
    pub(crate) fn is_stream(self) -> bool {
        self != MediaKind::Ordinary
    }

    /// Whether it is neither coded nor stored, also where all of it came at once; and, as it ends only with one of its
    /// sides, closed when draining starts.
    pub(crate) fn is_live(self) -> bool {
        matches!(self, MediaKind::Events | MediaKind::Grpc)
    }
}

/// `;stream=watch`: how Kubernetes sends changes as they happen.
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
