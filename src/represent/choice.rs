//! Whether an answer may be coded, and if not, why not: one value for the metric, the log and the decision.

use http::{HeaderMap, StatusCode, header};

use super::coding::Coding;
use super::media::MediaPattern;
use crate::fields::{accept_encoding, cache_control};

/// What becomes of an answer's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is coded.
    Code(Coding),
    /// It goes as it is.
    Leave(Reason),
}

/// Why content goes as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The client did not ask for a coding we make.
    NotAsked,
    /// No content, or a part of it (204, 206, 304).
    Status,
    /// A stream of events or of messages.
    Stream,
    /// The app coded it.
    Coded,
    /// `Cache-Control: no-transform` (RFC 9111 5.2.2.6).
    NoTransform,
    /// Not one of `compression.types`.
    Type,
    /// Less than `compression.min_size`.
    Small,
    /// It sets a cookie and may echo the request (`compression.breach_guard`).
    Echo,
    /// A part of it was asked for and is sent.
    Range,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 9] = [
        Reason::NotAsked,
        Reason::Status,
        Reason::Stream,
        Reason::Coded,
        Reason::NoTransform,
        Reason::Type,
        Reason::Small,
        Reason::Echo,
        Reason::Range,
    ];

    /// The word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NotAsked => "not-asked",
            Reason::Status => "status",
            Reason::Stream => "stream",
            Reason::Coded => "coded",
            Reason::NoTransform => "no-transform",
            Reason::Type => "type",
            Reason::Small => "small",
            Reason::Echo => "echo",
            Reason::Range => "range",
        }
    }
}

/// Whether content with this head could be coded for a client that asks, whatever its size. What could is
/// what varies on Accept-Encoding (RFC 9110 12.5.5).
pub fn codable(
    status: StatusCode,
    headers: &HeaderMap,
    endless: bool,
    types: &[MediaPattern],
) -> Result<(), Reason> {
    if endless {
        return Err(Reason::Stream);
    }
    transformable(status, headers)?;
    match headers.get(header::CONTENT_TYPE) {
        Some(kind) if types.iter().any(|pattern| pattern.matches(kind.as_bytes())) => Ok(()),
        _ => Err(Reason::Type),
    }
}

/// Whether content with this head may be coded at all, listed type or not: what is asked for a client that
/// refuses it as it is.
pub fn transformable(status: StatusCode, headers: &HeaderMap) -> Result<(), Reason> {
    if status.is_informational() || has_no_content(status) || status == StatusCode::PARTIAL_CONTENT {
        return Err(Reason::Status);
    }
    if headers.contains_key(header::CONTENT_ENCODING)
        && !accept_encoding::content_encoding(headers).is_empty()
    {
        return Err(Reason::Coded);
    }
    if headers.contains_key(header::CACHE_CONTROL) && cache_control::has(headers, "no-transform") {
        return Err(Reason::NoTransform);
    }
    Ok(())
}

/// RFC 9110 6.4.1.
pub fn has_no_content(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_coded() {
        let types = [MediaPattern::parse("application/json").unwrap()];
        let json = ("content-type", "application/json; charset=utf-8");
        for (status, lines, endless, wanted) in [
            (200, &[json][..], false, Ok(())),
            (404, &[json], false, Ok(())),
            (500, &[json], false, Ok(())),
            (200, &[json], true, Err(Reason::Stream)),
            (204, &[json], false, Err(Reason::Status)),
            (206, &[json], false, Err(Reason::Status)),
            (304, &[json], false, Err(Reason::Status)),
            (200, &[], false, Err(Reason::Type)),
            (200, &[("content-type", "image/png")], false, Err(Reason::Type)),
            (200, &[json, ("content-encoding", "gzip")], false, Err(Reason::Coded)),
            (200, &[json, ("content-encoding", "identity")], false, Ok(())),
            (200, &[json, ("cache-control", "max-age=1, No-Transform")], false, Err(Reason::NoTransform)),
            (200, &[json, ("cache-control", "max-age=1")], false, Ok(())),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(codable(status, &headers, endless, &types), wanted, "{status} {lines:?}");
        }
    }
}
