//! The chunked coding: in one piece, in pieces, and by httparse's reading of sizes.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pillion::internals::{Decoded, Decoder};

#[derive(Debug, PartialEq)]
enum End {
    Whole { content: Vec<u8>, trailers: usize, left: usize },
    Unfinished(Vec<u8>),
    Malformed,
}

fn decode(pieces: &[&[u8]]) -> End {
    let (mut decoder, mut input, mut content) = (Decoder::default(), BytesMut::new(), Vec::new());
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut given = 0;
    for piece in pieces {
        input.extend_from_slice(piece);
        given += piece.len();
        loop {
            match decoder.decode(&mut input) {
                Ok(Decoded::Data(data)) => {
                    assert!(!data.is_empty());
                    content.extend_from_slice(&data);
                }
                Ok(Decoded::End(trailers)) => {
                    let left = input.len() + total - given;
                    return End::Whole {
                        content,
                        trailers: trailers.map_or(0, |trailers| trailers.len()),
                        left,
                    };
                }
                Ok(Decoded::NeedMore) => break,
                Err(_) => return End::Malformed,
            }
        }
    }
    End::Unfinished(content)
}

/// The content by the sizes that httparse reads, where the coding is whole. It is laxer about what a size line may hold.
fn reference(mut wire: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((used, size))) = httparse::parse_chunk_size(wire) else {
            return None;
        };
        wire = &wire[used..];
        if size == 0 {
            return Some(content);
        }
        let size = usize::try_from(size).ok()?;
        content.extend_from_slice(wire.get(..size)?);
        wire = wire.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, wire)) = data.split_first() else { return };
    let whole = decode(&[wire]);
    let step = usize::from(*cut).max(1);
    let pieces: Vec<&[u8]> = wire.chunks(step).collect();
    let in_pieces = decode(&pieces);
    match (&whole, &in_pieces) {
        // Of what is malformed later on, less may be seen at once.
        (End::Unfinished(_), End::Unfinished(_)) | (End::Malformed, _) | (_, End::Malformed) => {
            assert_eq!(whole == End::Malformed, in_pieces == End::Malformed);
        }
        _ => {}
    }
    assert_eq!(whole, in_pieces);
    if let End::Whole { content, .. } = whole {
        assert_eq!(reference(wire).as_ref(), Some(&content), "httparse reads other sizes");
    }
});
