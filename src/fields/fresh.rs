//! Values that each request gets anew, without an allocation each.

use std::cell::RefCell;
use std::net::IpAddr;

use bytes::{BufMut, BytesMut};
use http::HeaderValue;

/// Values are cut from pieces of this size, which live as long as any of their values: what is stored is not made here.
const PIECE: usize = 4096;

thread_local! {
    static REST: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// What `write` writes, at most `longest` bytes; `None` where that is no value of a field.
pub fn value(longest: usize, write: impl FnOnce(&mut BytesMut)) -> Option<HeaderValue> {
    let text = REST.with_borrow_mut(|rest| {
        if rest.capacity() < longest {
            *rest = BytesMut::with_capacity(PIECE.max(longest));
        }
        write(rest);
        rest.split().freeze()
    });
    HeaderValue::from_maybe_shared(text).ok()
}

/// Appends two hexadecimal digits for each byte, in lower case; all at once, and reckoned and not looked up, so that
/// they are made sixteen at a time.
pub fn hex<const BYTES: usize>(out: &mut impl BufMut, bytes: [u8; BYTES]) {
    let digit = |half: u8| half + if half < 10 { b'0' } else { b'a' - 10 };
    out.put_slice(bytes.map(|byte| [digit(byte >> 4), digit(byte & 15)]).as_flattened());
}

/// Appends an address; four octets without the machinery of formatting, as nearly every client has them.
pub fn address(out: &mut impl BufMut, address: IpAddr) {
    let IpAddr::V4(address) = address else { return out.put_slice(address.to_string().as_bytes()) };
    let mut text = [b'.'; 16];
    let mut length = 0;
    let mut put = |byte: u8| {
        text[length & 15] = byte;
        length += 1;
    };
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            put(b'.');
        }
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    out.put_slice(&text[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for text in ["127.0.0.1", "255.10.0.9", "::1", "2001:db8::7"] {
            let mut out = Vec::new();
            address(&mut out, text.parse().unwrap());
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn digits() {
        let mut out = Vec::new();
        hex(&mut out, [0x00, 0x09, 0x0a, 0x90, 0xaf, 0xff]);
        assert_eq!(out, b"00090a90afff");
    }

    #[test]
    fn values_stand_apart() {
        let values: Vec<_> = (0..2000u16)
            .map(|number| {
                value(8, |out| hex(out, number.to_be_bytes())).unwrap_or(HeaderValue::from_static(""))
            })
            .collect();
        for (number, value) in values.iter().enumerate() {
            assert_eq!(value, &format!("{number:04x}"));
        }
        assert_eq!(
            value(PIECE + 1, |out| out.put_bytes(b'x', PIECE + 1)).map(|value| value.len()),
            Some(PIECE + 1)
        );
        assert_eq!(value(1, |out| out.put_u8(0)), None);
    }
}
