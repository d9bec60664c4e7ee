//! Texts that can be written as they are, which nearly all are.

/// Whether a text is of printable ASCII and has none of these bytes. Eight bytes are looked at together, all of them,
/// which is quicker than to stop.
#[inline(always)]
pub fn is_plain<const OTHERS: usize>(text: &[u8], others: [u8; OTHERS]) -> bool {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = EACH << 7;
    // The high bit of each byte that is less than `least`, as long as that is at most 0x80; the borrow of a byte that
    // is found may find its neighbour too, which changes nothing.
    let below = |bytes: u64, least: u64| bytes.wrapping_sub(EACH * least) & !bytes;
    let found = |bytes: [u8; 8]| {
        let bytes = u64::from_le_bytes(bytes);
        let is = |byte: u8| below(bytes ^ (EACH * u64::from(byte)), 1);
        let outside = bytes | below(bytes, u64::from(b' ')) | is(0x7f);
        others.iter().fold(outside, |found, other| found | is(*other)) & HIGH
    };
    let Some(last) = text.last_chunk() else {
        return text.iter().all(|byte| (b' '..=b'~').contains(byte) && !others.contains(byte));
    };
    // The last eight are looked at whole, whether some of them were or not.
    text.as_chunks().0.iter().fold(found(*last), |all, bytes| all | found(*bytes)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_is_what_needs_no_look() {
        for byte in 0..=u8::MAX {
            let expected = (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte);
            for (before, after) in [(0, 0), (3, 0), (7, 0), (8, 2), (15, 9)] {
                let text = [&[b'a'].repeat(before)[..], &[byte], &[b'z'].repeat(after)].concat();
                assert_eq!(is_plain(&text, *b"\"\\"), expected, "{byte} behind {before}");
            }
        }
    }
}
