//! Texts that can be written as they are, which nearly all are.

/// Which bytes are printable ASCII and none of `others`.
pub const fn plain(others: &[u8]) -> [bool; 256] {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        plain[byte as usize] = true;
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        plain[others[at] as usize] = false;
        at += 1;
    }
    plain
}

/// Whether a text is of these bytes. Looking at eight together took as many instructions for texts as short as most,
/// and a dozen lines of the instruction cache.
#[inline(always)]
pub fn is_plain(text: &[u8], plain: &[bool; 256]) -> bool {
    text.iter().all(|byte| plain[usize::from(*byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    static PLAIN: [bool; 256] = plain(b"\"\\");

    #[test]
    fn plain_is_what_needs_no_look() {
        for byte in 0..=u8::MAX {
            let expected = (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte);
            for (before, after) in [(0, 0), (3, 0), (7, 0), (8, 2), (15, 9)] {
                let text = [&[b'a'].repeat(before)[..], &[byte], &[b'z'].repeat(after)].concat();
                assert_eq!(is_plain(&text, &PLAIN), expected, "{byte} behind {before}");
            }
        }
    }
}
