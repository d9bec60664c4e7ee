//! The time as lines write it: RFC 3339 with milliseconds, UTC.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

thread_local! {
    /// The last whole second that was written, and its text without a fraction.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// Appends `2026-11-21T23:27:24.000Z`, of a time since the Unix epoch.
pub fn rfc3339(out: &mut Vec<u8>, since: Duration) {
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            *second = since.as_secs();
            *text = to_the_second(since);
        }
        out.extend_from_slice(text.as_bytes());
    });
    let [hundreds, tens, ones] = [100, 10, 1].map(|power| (since.subsec_millis() / power % 10) as u8 + b'0');
    out.extend_from_slice(&[b'.', hundreds, tens, ones, b'Z']);
}

fn to_the_second(since: Duration) -> String {
    // "Sun, 06 Nov 1994 08:49:37 GMT": fixed columns.
    let date = httpdate::HttpDate::from(SystemTime::UNIX_EPOCH + since).to_string();
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let part = |range: std::ops::Range<usize>| date.get(range).unwrap_or("");
    let month = MONTHS.find(part(8..11)).map_or(0, |at| at / 3 + 1);
    format!("{}-{month:02}-{}T{}", part(12..16), part(5..7), part(17..25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_rfc_3339() {
        for (milliseconds, text) in [
            (784_111_777_000, "1994-11-06T08:49:37.000Z"),
            (784_111_777_999, "1994-11-06T08:49:37.999Z"),
            (784_111_778_001, "1994-11-06T08:49:38.001Z"),
            (1_709_208_000_500, "2024-02-29T12:00:00.500Z"),
        ] {
            let mut out = Vec::new();
            rfc3339(&mut out, Duration::from_millis(milliseconds));
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
