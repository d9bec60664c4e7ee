//! Builds field values that are new for every request, without an allocation for each.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};

use bytes::BytesMut;
use http::HeaderValue;

/// Size in bytes of the buffers that values are cut from. A buffer lives as long as any of its values, so values for
/// stored responses must not be made here.
const PIECE: usize = 4096;

thread_local! {
    static REST: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Builds a value of at most `max` bytes with `write`; `None` if the bytes are no valid field value.
pub(crate) fn value(max: usize, write: impl FnOnce(&mut BytesMut)) -> Option<HeaderValue> {
    let text = REST.with_borrow_mut(|rest| {
        if rest.capacity() < max {
            *rest = BytesMut::with_capacity(PIECE.max(max));
        }
        write(rest);
        rest.split().freeze()
    });
    HeaderValue::from_maybe_shared(text).ok()
}

/// A number with the value 1 in each of its eight bytes.
const EACH: u64 = u64::from_le_bytes([1; 8]);

/// Formats a number as eight lowercase hexadecimal digits, all at once. A table would need a lookup for each byte and
/// would displace other data in the processor's cache; an inlined copy at every call would do so too.
#[inline(never)]
fn eight(number: u32) -> [u8; 8] {
    let apart = u64::from(number);
    let apart = (apart | apart << 16) & 0x0000_ffff_0000_ffff;
    let apart = (apart | apart << 8) & 0x00ff_00ff_00ff_00ff;
    let digits = (apart | apart << 4) & (EACH * 0xf);
    // Adding 6 carries into the next half-byte for digits of ten and more.
    let letters = (digits + EACH * 6) >> 4 & EACH;
    (digits + EACH * u64::from(b'0') + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

/// Formats 128 bits as lowercase hexadecimal digits.
#[inline(always)]
pub(crate) fn hex(number: u128) -> [u8; 32] {
    let mut text = [0; 32];
    let parts = [96, 64, 32, 0].map(|shift| eight((number >> shift) as u32));
    text.copy_from_slice(parts.as_flattened());
    text
}

/// Formats 64 bits as lowercase hexadecimal digits.
#[inline(always)]
pub(crate) fn hex_64(number: u64) -> [u8; 16] {
    let mut text = [0; 16];
    text.copy_from_slice([eight((number >> 32) as u32), eight(number as u32)].as_flattened());
    text
}

/// Exclusive upper bound of the numbers that [`decimal`] can format.
pub(crate) const DECIMAL: u32 = 100_000_000;

/// Formats a number below [`DECIMAL`] as eight decimal digits, the first in the lowest byte. It splits all digits at
/// once: first into halves, then into pairs.
#[inline(always)]
pub(crate) fn decimal(number: u32) -> u64 {
    let halves = u64::from(number / 10_000) | u64::from(number % 10_000) << 32;
    // 10486 / 2^20 approximates 1/100 and 103 / 2^10 approximates 1/10, exactly enough below 10,000 and 100.
    let hundreds = (halves * 10_486) >> 20 & 0x0000_007f_0000_007f;
    let pairs = hundreds | (halves - hundreds * 100) << 16;
    let tens = (pairs * 103) >> 10 & 0x000f_000f_000f_000f;
    tens | (pairs - tens * 10) << 8
}

/// Calls `with` with an address as text. IPv4 addresses, which most clients have, avoid the formatting machinery.
#[inline(always)]
pub(crate) fn with_address<R>(address: IpAddr, with: impl FnOnce(&[u8]) -> R) -> R {
    let IpAddr::V4(address) = address else { return with(address.to_string().as_bytes()) };
    let (text, length) = octets(address);
    with(&text[..length])
}

/// For each octet its decimal digits, then a dot, and in the last byte the length of both.
static OCTETS: [[u8; 5]; 256] = {
    let mut octets = [[b'.', b'.', b'.', b'.', 0]; 256];
    let mut octet = 0;
    while octet < 256 {
        let digits = 1 + (octet >= 10) as usize + (octet >= 100) as usize;
        let (mut at, mut rest) = (digits, octet);
        while at > 0 {
            at -= 1;
            octets[octet][at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        octets[octet][4] = digits as u8 + 1;
        octet += 1;
    }
    octets
};

/// Formats an IPv4 address. It is not inlined, like [`eight`], to keep the code small.
#[inline(never)]
fn octets(address: Ipv4Addr) -> ([u8; 16], usize) {
    let (mut text, mut length) = ([0; 16], 0);
    for octet in address.octets() {
        let [digits @ .., more] = &OCTETS[usize::from(octet)];
        // The text has room for four times four bytes, so this always succeeds.
        if let Some(room) = text.get_mut(length..length + 4) {
            room.copy_from_slice(digits);
        }
        length += usize::from(*more);
    }
    (text, length - 1)
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses() {
        for text in ["127.0.0.1", "255.10.0.9", "0.99.100.255", "255.255.255.255", "::1", "2001:db8::7"] {
            with_address(text.parse().unwrap(), |written| assert_eq!(written, text.as_bytes()));
        }
    }

    #[test]
    fn digits_are_in_lower_case() {
        assert_eq!(&hex(0x0009_0a90_afff << 80), b"00090a90afff00000000000000000000");
    }

    proptest! {
        #[test]
        fn hexadecimal_is_as_the_library_writes_it(number: u128, half: u64) {
            let (all, of_half) = (hex(number), hex_64(half));
            prop_assert_eq!(str::from_utf8(&all), Ok(&*format!("{number:032x}")));
            prop_assert_eq!(str::from_utf8(&of_half), Ok(&*format!("{half:016x}")));
        }

        #[test]
        fn decimal_is_too(number in 0..DECIMAL) {
            let text = (decimal(number) + EACH * u64::from(b'0')).to_le_bytes();
            prop_assert_eq!(str::from_utf8(&text), Ok(&*format!("{number:08}")));
        }
    }

    #[test]
    fn values_stand_apart() {
        let values: Vec<_> = (0..2000u32)
            .map(|number| {
                value(8, |out| out.put_slice(&eight(number))).unwrap_or(HeaderValue::from_static(""))
            })
            .collect();
        for (number, value) in values.iter().enumerate() {
            assert_eq!(value, &format!("{number:08x}"));
        }
        assert_eq!(
            value(PIECE + 1, |out| out.put_bytes(b'x', PIECE + 1)).map(|value| value.len()),
            Some(PIECE + 1)
        );
        assert_eq!(value(1, |out| out.put_u8(0)), None);
    }
}
