//! The timestamp of log lines: RFC 3339 with milliseconds, in UTC.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use tz::TimeZone;

use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// Length of a timestamp in bytes. RFC 3339 1 has no years of five digits.
const LENGTH: usize = "2026-11-21T23:27:24.000Z".len();
const MILLISECONDS: usize = "2026-11-21T23:27:24.".len();

/// A millisecond of the wall clock and its formatted text.
#[derive(Clone, Copy)]
struct Written {
    second: u64,
    begins: Instant,
    ends: Instant,
    text: [u8; LENGTH],
}

thread_local! {
    /// The latest timestamp of this thread. A busy worker writes many lines in the same millisecond.
    static LAST: Cell<Option<Written>> = const { Cell::new(None) };
}

/// Formats a recent moment like `2026-11-21T23:27:24.000Z`.
#[inline(always)]
pub(super) fn rfc3339(moment: Instant) -> [u8; LENGTH] {
    match LAST.get() {
        Some(last) if (last.begins..last.ends).contains(&moment) => last.text,
        _ => anew(moment),
    }
}

#[inline(never)]
fn anew(moment: Instant) -> [u8; LENGTH] {
    let since = clock::unix_at(moment);
    let second = since.as_secs();
    let mut text = match LAST.get() {
        Some(last) if last.second == second => last.text,
        _ => to_the_second(since),
    };
    let digit = |power: u32| (since.subsec_millis() / power % 10) as u8 + b'0';
    text[MILLISECONDS..MILLISECONDS + 3].copy_from_slice(&[digit(100), digit(10), digit(1)]);
    let begins = moment.checked_sub(Duration::from_nanos((since.subsec_nanos() % 1_000_000).into()));
    LAST.set(begins.map(|begins| Written { second, begins, ends: begins + Duration::from_millis(1), text }));
    text
}

/// Formats any time since 1970 in this way, without milliseconds.
pub(crate) fn of_unix(since: Duration) -> String {
    let text = String::from_utf8_lossy(&to_the_second(since)).into_owned();
    text.replace(".000Z", "Z")
}

/// Formats a recent moment as the time of day where the process is, like `23:27:24.000`, by `TZ` or `/etc/localtime`.
pub(super) fn local(moment: Instant) -> String {
    of_day(clock::unix_at(moment), LOCAL.get_or_init(zone).as_ref())
}

/// Formats a timestamp of a log line as the time of day where this process is; `None` if it is no such timestamp.
pub(crate) fn local_of(text: &str) -> Option<String> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u32>().ok();
    let byte = |range: std::ops::Range<usize>| number(range)?.try_into().ok();
    let (year, milliseconds) = (i32::try_from(number(0..4)?).ok()?, number(20..23)?);
    let (month, day, hour, minute, second) =
        (byte(5..7)?, byte(8..10)?, byte(11..13)?, byte(14..16)?, byte(17..19)?);
    let moment = tz::UtcDateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let since = Duration::from_secs(u64::try_from(moment.unix_time()).ok()?);
    let since = since + Duration::from_millis(milliseconds.into());
    Some(of_day(since, LOCAL.get_or_init(zone).as_ref()))
}

/// The time zone of the process; `None` for UTC.
static LOCAL: OnceLock<Option<TimeZone>> = OnceLock::new();

fn zone() -> Option<TimeZone> {
    match std::env::var("TZ").ok().filter(|name| !name.is_empty()) {
        Some(name) => TimeZone::from_posix_tz(&name).ok(),
        None => TimeZone::local().ok(),
    }
}

fn of_day(since: Duration, zone: Option<&TimeZone>) -> String {
    const DAY: i64 = 86_400;
    let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
    let local = zone.and_then(|zone| zone.find_local_time_type(seconds).ok());
    let offset = local.map_or(0, |local| i64::from(local.ut_offset()));
    let second = (seconds + offset).rem_euclid(DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{:03}", since.subsec_millis())
}

fn to_the_second(since: Duration) -> [u8; LENGTH] {
    // The columns are fixed: "Sun, 06 Nov 1994 08:49:37 GMT".
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
        for (seconds, text) in [
            (784_111_777, "1994-11-06T08:49:37.000Z"),
            (784_111_778, "1994-11-06T08:49:38.000Z"),
            (1_709_208_000, "2024-02-29T12:00:00.000Z"),
        ] {
            assert_eq!(to_the_second(Duration::from_secs(seconds)), text.as_bytes());
        }
    }

    #[test]
    fn time_of_day_is_local() {
        let at = Duration::from_millis(1_709_208_000_250);
        let (east, west) = (TimeZone::from_posix_tz("IST-5:30"), TimeZone::from_posix_tz("X+13"));
        for (zone, text) in [(None, "12:00:00.250"), (east.ok(), "17:30:00.250"), (west.ok(), "23:00:00.250")]
        {
            assert_eq!(of_day(at, zone.as_ref()), text);
        }
    }

    #[test]
    fn timestamp_of_a_line_is_read_as_it_was_written() {
        let now = clock::now();
        let text = rfc3339(now);
        assert_eq!(local_of(str::from_utf8(&text).unwrap()), Some(local(now)));
        for wrong in
            ["", "2026", "2026-13-01T00:00:00.000Z", "2026-11-21T23:27:24Z", "yesterday, at noon, or so"]
        {
            assert_eq!(local_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_text_is_of_its_millisecond_only() {
        let now = clock::now();
        let within = Duration::from_nanos((clock::unix_at(now).subsec_nanos() % 1_000_000).into());
        let next = now - within + Duration::from_millis(1);
        let last = next - Duration::from_nanos(1);
        for moment in
            [now, last, next, last, now - within, now, last, next + Duration::from_micros(2_000_500)]
        {
            let since = clock::unix_at(moment);
            let text = to_the_second(since);
            let text =
                str::from_utf8(&text).unwrap().replace(".000", &format!(".{:03}", since.subsec_millis()));
            assert_eq!(str::from_utf8(&rfc3339(moment)), Ok(&*text));
        }
    }
}
