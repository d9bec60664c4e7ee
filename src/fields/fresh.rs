//! Values that each request gets anew, without an allocation each.

use std::cell::RefCell;
use std::net::IpAddr;

use bytes::BytesMut;
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

/// The two hexadecimal digits of each byte.
const DIGITS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Two hexadecimal digits for each byte, in lower case.
#[inline(always)]
pub fn digits<const BYTES: usize>(bytes: [u8; BYTES]) -> [[u8; 2]; BYTES] {
    std::array::from_fn(|at| DIGITS[usize::from(bytes[at])])
}

/// The same, in place.
#[inline(always)]
pub fn write_digits(text: &mut [u8], bytes: &[u8]) {
    text.as_chunks_mut().0.iter_mut().zip(bytes).for_each(|(pair, byte)| *pair = DIGITS[usize::from(*byte)]);
}

/// Calls `with` with an address as text; four octets without the machinery of formatting, as nearly every client has
/// them.
#[inline(always)]
pub fn with_address<R>(address: IpAddr, with: impl FnOnce(&[u8]) -> R) -> R {
    let IpAddr::V4(address) = address else { return with(address.to_string().as_bytes()) };
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
    with(&text[..length])
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    #[test]
    fn addresses() {
        for text in ["127.0.0.1", "255.10.0.9", "::1", "2001:db8::7"] {
            with_address(text.parse().unwrap(), |written| assert_eq!(written, text.as_bytes()));
        }
    }

    #[test]
    fn digits_are_in_lower_case() {
        assert_eq!(digits([0x00, 0x09, 0x0a, 0x90, 0xaf, 0xff]).as_flattened(), b"00090a90afff");
    }

    #[test]
    fn values_stand_apart() {
        let values: Vec<_> = (0..2000u16)
            .map(|number| {
                value(8, |out| out.put_slice(digits(number.to_be_bytes()).as_flattened()))
                    .unwrap_or(HeaderValue::from_static(""))
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
