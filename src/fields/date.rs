//! HTTP-date (RFC 9110 5.6.7) in its three formats.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::runtime::clock;

const MONTHS: [&[u8; 3]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
/// Full day names. The short names are their first three letters.
const DAYS: [&[u8]; 7] =
    [b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday", b"sunday"];

/// Parses the date of a field; `None` if the field is missing or malformed.
pub(crate) fn from_headers(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    of_value(headers.get(name)?)
}

/// Parses the date of a field value.
pub(crate) fn of_value(value: &HeaderValue) -> Option<SystemTime> {
    parse(value.as_bytes(), clock::wall())
}

/// Returns whether two values denote the same date, in any format. Malformed values are equal if their bytes are.
pub(crate) fn is_same(one: &HeaderValue, other: &HeaderValue) -> bool {
    one == other || of_value(one).is_some_and(|date| of_value(other) == Some(date))
}

/// Parses a date. Day and month names are case-insensitive (RFC 9111 4.2), and the day name need not be correct. `now`
/// resolves two-digit years.
fn parse(text: &[u8], now: SystemTime) -> Option<SystemTime> {
    let text = text.trim_ascii();
    let Some(comma) = text.iter().position(|byte| *byte == b',') else { return asctime(text) };
    let (day_name, rest) = text.split_at(comma);
    let rest = rest.strip_prefix(b", ")?;
    // The format IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`.
    if let [d1, d2, b' ', month @ .., y1, y2, y3, y4, b' '] = rest.get(..12)? {
        let year = digits(&[*y1, *y2, *y3, *y4])?;
        let month = month.strip_suffix(b" ").filter(|_| is_day(day_name, 3))?;
        return at(year, month, digits(&[*d1, *d2])?, rest.get(12..)?, b" GMT");
    }
    // The format rfc850-date: `Sunday, 06-Nov-94 08:49:37 GMT`.
    if let [d1, d2, b'-', month @ .., b'-', y1, y2, b' '] = rest.get(..10)? {
        let year = century(digits(&[*y1, *y2])?, now);
        let known = is_day(day_name, usize::MAX);
        return at(year, month, digits(&[*d1, *d2])?, rest.get(10..)?, b" GMT").filter(|_| known);
    }
    None
}

/// Parses the format asctime-date: `Sun Nov 6 08:49:37 1994`.
fn asctime(text: &[u8]) -> Option<SystemTime> {
    let (front, year) = text.split_at_checked(20)?;
    let [name @ .., b' ', m1, m2, m3, b' ', d1, d2, b' '] = front.get(..11)? else { return None };
    let day = if *d1 == b' ' { digits(&[*d2])? } else { digits(&[*d1, *d2])? };
    let time = front.get(11..)?.strip_suffix(b" ")?;
    let year = digits(year).filter(|_| year.len() == 4 && is_day(name, 3))?;
    at(year, &[*m1, *m2, *m3], day, time, b"")
}

/// Returns the year of a two-digit year. A year more than 50 years in the future means the most recent past year with
/// these digits (RFC 9110 5.6.7).
fn century(year: u64, now: SystemTime) -> u64 {
    let days = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    // 400 years have 146,097 days. The day within the year does not matter here.
    let this = 1970 + days * 400 / 146_097;
    let found = this - this % 100 + year;
    if found > this + 50 { found - 100 } else { found }
}

fn is_day(name: &[u8], length: usize) -> bool {
    DAYS.iter().any(|day| day.get(..length.min(day.len())).is_some_and(|day| day.eq_ignore_ascii_case(name)))
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

/// Combines the parts of a date. `time` is like `08:49:37`, followed by the zone.
fn at(year: u64, month: &[u8], day: u64, time: &[u8], zone: &[u8]) -> Option<SystemTime> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = time else { return None };
    let (hour, minute, second) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?, digits(&[*s1, *s2])?);
    let place = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))?;
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, 28 + u64::from(is_leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    // A leap second counts as the last second of its minute.
    let fits = (1..=*lengths.get(place)?).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !fits || !rest.eq_ignore_ascii_case(zone) || year < 1970 {
        return None;
    }
    let before = year - 1;
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let days =
        (year - 1970) * 365 + leaps(before) - leaps(1969) + lengths[..place].iter().sum::<u64>() + day - 1;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second.min(59);
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// 30 November 2026, the current time of these tests.
    fn now() -> SystemTime {
        seconds(1_796_000_000)
    }

    fn read(text: &str) -> Option<SystemTime> {
        parse(text.as_bytes(), now())
    }

    #[test]
    fn n4_20_all_three_forms_are_read() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "sun, 06 nov 1994 08:49:37 gmt",
            "SUN, 06 NOV 1994 08:49:37 GMT",
            "sunday, 06-nov-94 08:49:37 GMT",
            "sun nov  6 08:49:37 1994",
            " Sun, 06 Nov 1994 08:49:37 GMT\t",
            // The day name is wrong, which is accepted.
            "Mon, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(read(text), Some(seconds(784_111_777)), "{text}");
        }
        for (text, wanted) in [
            ("Sun Nov 16 08:49:37 1994", Some(784_975_777)),
            ("Sat, 31 Dec 2016 23:59:60 GMT", Some(1_483_228_799)),
            ("Thu, 29 Feb 2024 00:00:00 GMT", Some(1_709_164_800)),
            ("Wed, 29 Feb 2023 00:00:00 GMT", None),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", None),
            // A two-digit year is at most 50 years in the future.
            ("Saturday, 01-Jan-00 00:00:00 GMT", Some(946_684_800)),
            ("Wednesday, 01-Jan-76 00:00:00 GMT", Some(3_345_062_400)),
            ("Saturday, 01-Jan-77 00:00:00 GMT", Some(220_924_800)),
        ] {
            assert_eq!(read(text), wanted.map(seconds), "{text}");
        }
        for text in [
            "",
            "0",
            "-1",
            "Sun, 06 Nov 1994 08:49:37 EST",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 1994 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Xyz, 06 Nov 1994 08:49:37 GMT",
            "784111777",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn n4_20_the_same_date_in_another_form_is_the_same() {
        let value = HeaderValue::from_static;
        let one = value("Sun, 06 Nov 1994 08:49:37 GMT");
        for (other, wanted) in [
            ("Sunday, 06-Nov-94 08:49:37 GMT", true),
            ("Sun Nov  6 08:49:37 1994", true),
            ("Sun, 06 Nov 1994 08:49:38 GMT", false),
            ("x", false),
        ] {
            assert_eq!(is_same(&one, &value(other)), wanted, "{other}");
        }
        assert!(is_same(&value("x"), &value("x")) && !is_same(&value("x"), &value("y")));
    }

    proptest! {
        #[test]
        fn n4_20_what_is_written_is_read(at in 0u64..253_402_300_800) {
            prop_assert_eq!(read(&httpdate::fmt_http_date(seconds(at))), Some(seconds(at)));
        }
    }
}
