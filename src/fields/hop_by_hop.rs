//! Hop-by-hop fields (RFC 9110 7.6.1): what they say is read here, and they go no further than their connection.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::host;

/// The content of a head's connection-level fields.
#[derive(Debug, Default)]
pub(crate) struct ConnectionFields {
    close: bool,
    keep_alive: bool,
    pub upgrade: bool,
    pub trailers: bool,
    pub upgrade_to: Option<HeaderValue>,
    pub keep_alive_timeout: Option<u64>,
    /// How many lines of Host there are, and whether the last of them is a host.
    pub hosts: usize,
    pub host_is_valid: bool,
    /// Whether the first line of Expect asks for 100 (Continue); `None` without any.
    pub expects_continue: Option<bool>,
    /// Other fields named by Connection, removed at the end.
    named: Vec<HeaderName>,
}

impl ConnectionFields {
    pub(crate) fn connection(&mut self, value: &[u8]) {
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if let Ok(name) = HeaderName::from_bytes(token) {
                // Host and the length are end-to-end, even if Connection names them.
                if name != header::HOST && name != header::CONTENT_LENGTH && name != header::TE {
                    self.named.push(name);
                }
            }
        }
    }

    /// Notes what is asked for later of a field that is not of the connection: looking it up would take longer.
    pub(crate) fn note(&mut self, name: &HeaderName, value: &[u8]) {
        if *name == header::HOST {
            self.hosts += 1;
            self.host_is_valid = host::is_host(value);
        } else if *name == header::EXPECT {
            self.expects_continue.get_or_insert_with(|| value.eq_ignore_ascii_case(b"100-continue"));
        }
    }

    /// Removes the fields that Connection names.
    pub(crate) fn remove_named(&mut self, headers: &mut HeaderMap) {
        for name in &self.named {
            headers.remove(name);
            if *name == header::EXPECT {
                self.expects_continue = None;
            }
        }
    }

    pub(crate) fn persistent(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }
}

/// Removes `h2c` from `Upgrade`: it would let a client bypass every rule at an upstream that supports it. Returns
/// `None` if nothing is left.
pub(crate) fn without_h2c(protocols: &HeaderValue) -> Option<HeaderValue> {
    let is_h2c = |protocol: &[u8]| {
        let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"h2c")
    };
    let mut list = protocols.as_bytes().split(|byte| *byte == b',');
    if !list.clone().any(is_h2c) {
        return Some(protocols.clone());
    }
    let left: Vec<&[u8]> =
        list.by_ref().filter(|protocol| !is_h2c(protocol)).map(<[u8]>::trim_ascii).collect();
    if left.is_empty() { None } else { HeaderValue::from_bytes(&left.join(&b", "[..])).ok() }
}

pub(crate) fn names_trailers(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|item| {
        let coding = item.split(|byte| *byte == b';').next().unwrap_or_default();
        coding.trim_ascii().eq_ignore_ascii_case(b"trailers")
    })
}

/// Parses `Keep-Alive: timeout=N` in seconds.
pub(crate) fn timeout_parameter(value: &[u8]) -> Option<u64> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).find_map(|item| {
        let (name, seconds) = item.split_at_checked(8)?;
        if !name.eq_ignore_ascii_case(b"timeout=") {
            return None;
        }
        std::str::from_utf8(seconds).ok()?.trim_matches('"').parse().ok()
    })
}

/// Fields of an HTTP/1 connection, which make a message malformed here (RFC 9113 8.2.2), and Host, which :authority
/// replaces (RFC 9113 8.3.1).
pub(crate) static NOT_SENT_OVER_HTTP2: [HeaderName; 6] = [
    header::HOST,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
