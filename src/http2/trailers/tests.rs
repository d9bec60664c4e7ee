//! Tests of the input that passes to the library.

use super::*;
use tokio::io::AsyncReadExt as _;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns the input that the library gets of `sent`, in reads of `piece` octets.
async fn given(sender: Sender, sent: &[u8], piece: usize) -> Vec<u8> {
    let mut watched = Watched::new(Pieces(sent, piece), sender);
    let mut given = Vec::new();
    watched.read_to_end(&mut given).await.unwrap();
    given
}

/// A connection that yields at most `piece` octets per read.
struct Pieces<'a>(&'a [u8], usize);

impl PeerLeft for Pieces<'_> {
    fn peer_left(&self) -> bool {
        self.0.is_empty()
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let take = self.1.min(self.0.len()).min(buf.remaining());
        buf.put_slice(&self.0[..take]);
        self.0 = &self.0[take..];
        Poll::Ready(Ok(()))
    }
}

fn refused(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, &[block, REFUSED_FIELD].concat())
}

#[tokio::test]
async fn n4_10_a_trailer_section_with_a_pseudo_field_is_made_malformed() {
    const REQUEST: &[u8] = b"\x83\x86\x44\x02/x\x41\x01a";
    const BOTH: u8 = END_STREAM | END_HEADERS;
    let preface = [b'P'; PREFACE];
    let settings = frame(4, 0, 0, &[]);
    let begin = |stream| frame(HEADERS, END_HEADERS, stream, REQUEST);
    let data = |stream| frame(DATA, 0, stream, b"body");
    let padded =
        frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 1, &[&[2, 0, 0, 0, 0, 9], REQUEST, &[0, 0]].concat());
    type Frames = Vec<Vec<u8>>;
    let requests: Vec<(Frames, Frames)> = vec![
        // Ordinary trailers pass.
        (vec![frame(HEADERS, BOTH, 1, b"\x00\x01t\x01v")], vec![frame(HEADERS, BOTH, 1, b"\x00\x01t\x01v")]),
        (vec![frame(HEADERS, BOTH, 1, b"\x84")], vec![refused(1, BOTH, b"\x84")]),
        // The field refers to an entry that the request put into the table, the last but one.
        (vec![frame(HEADERS, BOTH, 1, b"\xbf")], vec![refused(1, BOTH, b"\xbf")]),
        // The field is in a continuation.
        (
            vec![
                frame(HEADERS, END_STREAM, 1, b"\x00\x01t\x01v"),
                frame(CONTINUATION, END_HEADERS, 1, b"\x84"),
            ],
            vec![
                frame(HEADERS, END_STREAM, 1, b"\x00\x01t\x01v"),
                frame(CONTINUATION, END_HEADERS, 1, &[b"\x84", REFUSED_FIELD].concat()),
            ],
        ),
        // The field stands before padding.
        (
            vec![frame(HEADERS, BOTH | PADDED, 1, b"\x02\x84..")],
            vec![frame(HEADERS, BOTH | PADDED, 1, &[b"\x02\x84", REFUSED_FIELD, b".."].concat())],
        ),
        // The section ends an earlier stream, while another one goes on.
        (
            vec![begin(3), frame(HEADERS, BOTH, 1, b"\x84"), data(3)],
            vec![begin(3), refused(1, BOTH, b"\x84"), data(3)],
        ),
    ];
    for first in [begin(1), padded] {
        for (sent, wanted) in &requests {
            let all = |frames: &[Vec<u8>]| {
                [&preface[..], &settings, &first, &data(1), &frames.concat(), &settings].concat()
            };
            for piece in [1, 2, 8, 9, 10, 13, 40, 1000] {
                assert_eq!(given(Sender::Client, &all(sent), piece).await, all(wanted), "{sent:x?} {piece}");
            }
        }
    }
    let ok = frame(HEADERS, END_HEADERS, 1, b"\x88");
    let hint = frame(HEADERS, END_HEADERS, 1, b"\x08\x03103");
    let grpc = frame(HEADERS, BOTH, 1, b"\x00\x0bgrpc-status\x010");
    let alone = frame(HEADERS, BOTH, 3, b"\x88");
    for (sent, wanted) in [
        (vec![hint.clone(), ok.clone(), data(1), grpc.clone()], None),
        (vec![alone.clone(), ok.clone(), grpc.clone(), alone.clone()], None),
        (
            vec![hint.clone(), ok.clone(), data(1), frame(HEADERS, BOTH, 1, b"\x88")],
            Some(vec![hint, ok, data(1), refused(1, BOTH, b"\x88")]),
        ),
    ] {
        let wanted = wanted.unwrap_or(sent.clone()).concat();
        for piece in [1, 9, 1000] {
            assert_eq!(given(Sender::Server, &sent.concat(), piece).await, wanted, "{piece}");
        }
    }
}
