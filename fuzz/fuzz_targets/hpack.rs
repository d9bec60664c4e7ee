//! The watch over HTTP/2 trailers: what goes by is left as it is but for the one field that refuses a section, and
//! does not depend on how it is cut.
#![no_main]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use pillion::internals::{PeerLeft, Sender, Watched, hpack};
use tokio::io::{AsyncRead, ReadBuf};

struct Pieces<'a>(&'a [u8], usize);

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

impl PeerLeft for Pieces<'_> {
    fn peer_left(&self) -> bool {
        false
    }
}

fn given(sender: Sender, sent: &[u8], piece: usize) -> Vec<u8> {
    let mut watched = Watched::new(Pieces(sent, piece), sender);
    let mut cx = Context::from_waker(Waker::noop());
    let mut given = Vec::new();
    loop {
        let mut room = [0u8; 64];
        let mut buf = ReadBuf::new(&mut room);
        match Pin::new(&mut watched).poll_read(&mut cx, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => given.extend_from_slice(buf.filled()),
            _ => return given,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, sent)) = data.split_first() else { return };
    let sender = if cut % 2 == 0 { Sender::Client } else { Sender::Server };
    let whole = given(sender, sent, 64);
    let pieces = given(sender, sent, usize::from(cut / 2).max(1));
    assert_eq!(whole, pieces);
    hpack::read(sent.chunks(16));
});
