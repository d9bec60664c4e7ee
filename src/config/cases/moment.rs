//! Reads a moment as RFC 3339 writes it in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::diagnostic::Diagnostics;
use crate::config::table_reader::Section;
use crate::config::units::days_from_civil;

/// The remedy for a wrong moment.
const HELP: &str = "expected a moment in UTC like \"2026-07-01T12:00:00Z\"";

/// Reads the key `now`.
pub(super) fn read(section: &mut Section<'_>, problems: &mut Diagnostics) -> Option<SystemTime> {
    let written = section.get::<String>("now", problems)?;
    let moment = parse(&written.value);
    if let (None, Some(span)) = (moment, &written.span) {
        problems.at(span, format!("case.now is {:?}", written.value)).help(HELP);
    }
    moment
}

fn parse(text: &str) -> Option<SystemTime> {
    let bytes = text.as_bytes();
    let is_form = bytes.len() == 20
        && bytes.iter().zip(b"0000-00-00T00:00:00Z").all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            form => byte == form,
        });
    if !is_form {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_is_read_only_in_utc_and_only_if_it_exists() {
        for (text, wanted) in [
            ("1970-01-01T00:00:01Z", Some(1)),
            ("2026-07-01T12:00:00Z", Some(1_782_907_200)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800)),
            ("2026-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-07-01T24:00:00Z", None),
            ("2026-07-01T12:00:00+02:00", None),
            ("2026-07-01 12:00:00Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("now", None),
        ] {
            let found = parse(text).map(|at| at.duration_since(UNIX_EPOCH).unwrap().as_secs());
            assert_eq!(found, wanted, "{text}");
        }
    }
}
