//! The time as lines write it: RFC 3339 with milliseconds, UTC.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

/// Bytes of all of it; a year of five digits is none (RFC 3339 1).
const LENGTH: usize = "2026-11-21T23:27:24.000Z".len();
/// Where the milliseconds stand.
const MILLISECONDS: usize = "2026-11-21T23:27:24.".len();

thread_local! {
    /// The last whole second that was written, and its text.
    static SECOND: Cell<(u64, [u8; LENGTH])> = const { Cell::new((u64::MAX, [b'-'; LENGTH])) };
}

/// `2026-11-21T23:27:24.000Z`, of a time since the Unix epoch.
pub fn rfc3339(since: Duration) -> [u8; LENGTH] {
    let (mut second, mut text) = SECOND.get();
    if second != since.as_secs() {
        second = since.as_secs();
        text = to_the_second(since);
        SECOND.set((second, text));
    }
    let digit = |power: u32| (since.subsec_millis() / power % 10) as u8 + b'0';
    text[MILLISECONDS..MILLISECONDS + 3].copy_from_slice(&[digit(100), digit(10), digit(1)]);
    text
}

fn to_the_second(since: Duration) -> [u8; LENGTH] {
    // "Sun, 06 Nov 1994 08:49:37 GMT": fixed columns.
    let date = httpdate::HttpDate::from(SystemTime::UNIX_EPOCH + since).to_string();
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let part = |range: std::ops::Range<usize>| date.get(range).unwrap_or("");
    let month = MONTHS.find(part(8..11)).map_or(0, |at| at / 3 + 1);
    let text = format!("{}-{month:02}-{}T{}.000Z", part(12..16), part(5..7), part(17..25));
    text.as_bytes().try_into().unwrap_or([b'-'; LENGTH])
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
            assert_eq!(rfc3339(Duration::from_millis(milliseconds)), text.as_bytes());
        }
    }
}
