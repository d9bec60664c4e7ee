//! Reads the SETTINGS of a peer (RFC 9113 6.5) as they pass by, because the library does not expose them.

/// Identifier of SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113 6.5.2).
const MAX_HEADER_LIST_SIZE: [u8; 2] = [0, 6];
/// Length of a setting in octets: two of identifier and four of value.
const SETTING: usize = 6;

/// The known settings of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerSettings {
    /// Whether the peer's first SETTINGS frame has arrived.
    pub known: bool,
    /// Maximum field section that the peer accepts, as [`super::section_size`] counts it; bytes. `None` if it announces
    /// no limit.
    pub max_header_list_size: Option<usize>,
}

/// A reader of SETTINGS payloads.
#[derive(Debug, Default)]
pub(super) struct Reader {
    settings: PeerSettings,
    /// Octets of a setting that is incomplete.
    part: [u8; SETTING],
    filled: usize,
}

impl Reader {
    /// Returns the settings read so far.
    pub(super) fn settings(&self) -> PeerSettings {
        self.settings
    }

    /// Reads a part of the payload of a SETTINGS frame.
    pub(super) fn take(&mut self, octets: &[u8]) {
        for octet in octets {
            self.part[self.filled] = *octet;
            self.filled += 1;
            if self.filled < SETTING {
                continue;
            }
            self.filled = 0;
            let [a, b, value @ ..] = self.part;
            if [a, b] == MAX_HEADER_LIST_SIZE {
                self.settings.max_header_list_size = usize::try_from(u32::from_be_bytes(value)).ok();
            }
        }
    }

    pub(super) fn end(&mut self) {
        self.settings.known = true;
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

    use super::*;
    use crate::connection::stream::{PeerLeft, Rewound};
    use crate::http2::trailers::{Sender, Watched};

    /// A peer that sends nothing more.
    struct Nothing;

    impl AsyncRead for Nothing {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl PeerLeft for Nothing {
        fn peer_left(&self) -> bool {
            true
        }
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 0], payload].concat()
    }

    fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
        let pairs = pairs.iter().map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        frame(4, 0, &pairs.collect::<Vec<_>>().concat())
    }

    #[tokio::test]
    async fn n3_4_the_limit_that_a_server_announces_is_read() {
        let acknowledged = frame(4, 1, &[]);
        // The same octets in another frame are no setting.
        let ping = frame(6, 0, &[0, 6, 0, 0, 0, 1, 0, 0]);
        for (sent, known, limit) in [
            (vec![], false, None),
            (vec![acknowledged.clone(), ping.clone()], false, None),
            (vec![settings(&[])], true, None),
            (vec![settings(&[(3, 100), (6, 16_384), (4, 6)]), ping.clone()], true, Some(16_384)),
            (vec![settings(&[(6, 1)]), ping, acknowledged, settings(&[(6, 70_000)])], true, Some(70_000)),
            (vec![settings(&[(6, 1)]), settings(&[(1, 4096)])], true, Some(1)),
        ] {
            let sent = sent.concat();
            for piece in [1, 4, 10, 1000] {
                let mut watched = Watched::new(Rewound::new(sent.clone().into(), Nothing), Sender::Server);
                let (mut given, mut buffer) = (Vec::new(), vec![0; piece]);
                while let read @ 1.. = watched.read(&mut buffer).await.unwrap() {
                    given.extend_from_slice(&buffer[..read]);
                }
                assert_eq!(given, sent, "it goes on as it is");
                let wanted = PeerSettings { known, max_header_list_size: limit };
                assert_eq!(watched.peer_settings(), wanted, "{sent:x?} {piece}");
            }
        }
    }
}
