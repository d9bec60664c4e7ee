//! Checks whether a text can be written without escapes, as nearly all can.

use std::borrow::Cow;
use std::io::Write as _;

/// Builds a table of the bytes that are printable ASCII and not in `others`.
pub(super) const fn plain(others: &[u8]) -> [bool; 256] {
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

/// Returns whether a text has only bytes of the table. Checking eight bytes at once took as many instructions for texts
/// of usual length, and a dozen lines of the instruction cache.
#[inline(always)]
pub(super) fn is_plain(text: &[u8], plain: &[bool; 256]) -> bool {
    text.iter().all(|byte| plain[usize::from(*byte)])
}

/// Returns whether a character is invisible or changes how others are shown: controls (C0, C1), format characters and
/// separators (Unicode Cc, Cf, Zl, Zp), default ignorable characters, blank letters, private use, and noncharacters.
pub(super) fn is_unprintable(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    matches!(c,
        '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{2800}' | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}' | '\u{110bd}' | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{10ffff}')
}

/// Escapes all unprintable characters except line ends as JSON does (RFC 8259 7), which is right in a JSON line and
/// good enough in a readable line. Terminal colors come from Pillion and stay.
pub(super) fn printable_lines(lines: &[u8]) -> Cow<'_, [u8]> {
    if lines.iter().all(|byte| *byte < 0x7f) {
        return Cow::Borrowed(lines);
    }
    let text = String::from_utf8_lossy(lines);
    let mut shown = Vec::with_capacity(lines.len() + 64);
    for c in text.chars() {
        if c < ' ' || !is_unprintable(c) {
            shown.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            // Writing to a vector cannot fail.
            let _ = c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(shown, "\\u{unit:04x}"));
        }
    }
    Cow::Owned(shown)
}

/// Escapes all unprintable characters of a text, line ends too.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_10_what_is_unprintable_is_escaped_and_nothing_else() {
        for c in ['\u{202e}', '\u{2066}', '\u{2028}', '\u{200b}', '\u{feff}', '\u{85}', '\u{7f}', '\u{e0041}']
        {
            let line = format!("{{\"path\":\"/a{c}b\"}}\n");
            let shown = String::from_utf8(printable_lines(line.as_bytes()).into_owned()).unwrap();
            assert!(!shown.contains(c), "{:x}", u32::from(c));
            let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(read["path"], format!("/a{c}b"));
        }
        for fine in ["Zoë", "日本", "مرحبا", "e\u{301}", "🙂", "\u{1b}[31mred\u{1b}[0m\n", "a\tb"] {
            assert_eq!(printable_lines(fine.as_bytes()), fine.as_bytes());
        }
        // The standard library escapes these too, along with combining marks and unassigned characters.
        for c in ('\u{80}'..='\u{ffff}').filter(|c| is_unprintable(*c)) {
            let known = c.escape_debug().len() > 1
                || matches!(c, '\u{2800}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}');
            assert!(known, "{:x}", u32::from(c));
        }
    }

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
