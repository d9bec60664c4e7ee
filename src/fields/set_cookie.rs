//! `Set-Cookie` (RFC 6265 5.2): the name of the cookie, and whether the line deletes it.

/// A cookie that a response sets or deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetCookie<'a> {
    pub name: &'a [u8],
    /// Whether the client has no cookie of this name afterwards, or an empty one.
    pub expires: bool,
}

impl<'a> SetCookie<'a> {
    /// Parses a line. `now` is in seconds since 1970. Returns `None` for a line that clients ignore.
    pub(crate) fn parse(line: &'a [u8], now: i64) -> Option<SetCookie<'a>> {
        let mut parts = line.split(|byte| *byte == b';');
        let pair = parts.next()?;
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
        let (mut max_age, mut expires) = (None, None);
        for attribute in parts {
            let at = attribute.iter().position(|byte| *byte == b'=').unwrap_or(attribute.len());
            let (key, text) = attribute.split_at(at);
            let (key, text) = (key.trim_ascii(), text.get(1..).unwrap_or_default().trim_ascii());
            // The last of several equal attributes counts (RFC 6265 5.3).
            if key.eq_ignore_ascii_case(b"max-age") {
                max_age = ends_at_once(text).or(max_age);
            } else if key.eq_ignore_ascii_case(b"expires") {
                expires = date(text).map(|date| date <= now).or(expires);
            }
        }
        let is_empty = value.is_empty() || value == b"\"\"";
        // `Max-Age` takes precedence over `Expires` (RFC 6265 5.3).
        let expires = is_empty || max_age.or(expires).unwrap_or(false);
        Some(SetCookie { name, expires })
    }
}

/// Returns whether a `Max-Age` is zero or negative; `None` if it is malformed (RFC 6265 5.2.2).
fn ends_at_once(text: &[u8]) -> Option<bool> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| negative || digits.iter().all(|digit| *digit == b'0'))
}

/// Parses the date of a cookie as seconds since 1970. Clients parse these dates far more leniently than other dates
/// (RFC 6265 5.1.1).
fn date(text: &[u8]) -> Option<i64> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    let is_delimiter =
        |byte: &u8| matches!(byte, b'\t' | b' '..=b'/' | b';'..=b'@' | b'['..=b'`' | b'{'..=b'~');
    for token in text.split(is_delimiter).filter(|token| !token.is_empty()) {
        if time.is_none()
            && let Some(found) = parse_time(token)
        {
            time = Some(found);
        } else if day.is_none()
            && let Some(found) = number(token, 1, 2)
        {
            day = Some(found);
        } else if month.is_none()
            && let Some(found) = parse_month(token)
        {
            month = Some(found);
        } else if year.is_none()
            && let Some(found) = number(token, 2, 4)
        {
            year = Some(found);
        }
    }
    let (seconds, day, month, year) = (time?, day?, month?, year?);
    let year = match year {
        70..=99 => year + 1900,
        0..=69 => year + 2000,
        year => year,
    };
    let fits = (1..=31).contains(&day) && year >= 1601;
    fits.then(|| days(year, month, day) * 86_400 + seconds)
}

/// Parses a number of `min` to `max` digits. Other characters may follow the digits.
fn number(token: &[u8], min: usize, max: usize) -> Option<i64> {
    let digits = token.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits < min || digits > max {
        return None;
    }
    Some(token[..digits].iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

fn parse_time(token: &[u8]) -> Option<i64> {
    let mut parts = token.splitn(3, |byte| *byte == b':');
    let whole = |part: &[u8]| number(part, 1, 2).filter(|_| part.len() <= 2);
    let (hours, minutes) = (whole(parts.next()?)?, whole(parts.next()?)?);
    let seconds = number(parts.next()?, 1, 2)?;
    (hours < 24 && minutes < 60 && seconds < 60).then_some(hours * 3600 + minutes * 60 + seconds)
}

fn parse_month(token: &[u8]) -> Option<i64> {
    const MONTHS: [&[u8]; 12] =
        [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
    let start = token.get(..3)?;
    let at = MONTHS.iter().position(|month| start.eq_ignore_ascii_case(month))?;
    i64::try_from(at + 1).ok()
}

/// Returns the days since 1970 in the Gregorian calendar, computed with years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, wanted) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Thu, 01-Jan-1970 00:00:00 GMT", Some(0)),
            ("Thu, 01 Jan 1970 00:00:01 UTC", Some(1)),
            ("1 mar 2000 0:0:0", Some(951_868_800)),
            ("Tue, 19 Jan 2038 03:14:07 GMT", Some(2_147_483_647)),
            ("01 Jan 68 00:00:00", Some(3_092_601_600)),
            ("Thu, 32 Jan 1970 00:00:00", None),
            ("Thu, 01 Jan 1600 00:00:00", None),
            ("Thu, 01 Jan 1970 24:00:00", None),
            ("0", None),
            ("", None),
        ] {
            assert_eq!(date(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn n1_9_which_cookies_are_taken_away() {
        let now = 1_800_000_000;
        for (line, wanted) in [
            ("session=1", Some(false)),
            ("session=1; Max-Age=3600; Path=/", Some(false)),
            ("session=", Some(true)),
            ("session=\"\"; Max-Age=3600", Some(true)),
            ("session = ; path=/", Some(true)),
            ("session=1; Max-Age=0", Some(true)),
            ("session=1; max-age=-1", Some(true)),
            ("session=1;MAX-AGE = 000", Some(true)),
            ("session=1; Max-Age=x", Some(false)),
            ("session=1; Max-Age=", Some(false)),
            ("session=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=0; path=/", Some(true)),
            ("session=deleted; expires=Thu, 01 Jan 1970 00:00:00 GMT", Some(true)),
            ("session=1; expires=Thu, 01 Jan 1970 00:00:00 GMT; max-age=60", Some(false)),
            ("session=1; max-age=0; max-age=60", Some(false)),
            ("session=1; expires=Fri, 01 Jan 2100 00:00:00 GMT", Some(false)),
            ("session=1; expires=never", Some(false)),
            ("session", None),
            ("", None),
        ] {
            let found = SetCookie::parse(line.as_bytes(), now);
            assert_eq!(found.map(|found| found.expires), wanted, "{line}");
            assert!(found.is_none_or(|found| found.name == b"session"), "{line}");
        }
    }
}
