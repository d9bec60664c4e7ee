//! The dates of a certificate, read from its DER.

use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::units;

/// From when until when a certificate is valid (RFC 5280 4.1.2.5), since the epoch, read from its DER by walking past
/// what stands before; `None` if it is not shaped like a certificate.
pub(crate) fn validity(certificate: &CertificateDer<'_>) -> Option<(Duration, Duration)> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    if rest.first() == Some(&0xa0) {
        rest = element(rest)?.2;
    }
    // serialNumber, signature, issuer
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (begin_tag, begin, rest) = element(validity)?;
    let (end_tag, end, _) = element(rest)?;
    Some((time(begin_tag, begin)?, time(end_tag, end)?))
}

/// UTCTime or GeneralizedTime; what lies before the epoch counts as the epoch.
fn time(tag: u8, time: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(time).ok()?;
    let (year, rest) = match tag {
        // UTCTime: two digits of the year, 50 and above are 19xx.
        0x17 => {
            let short: i64 = text.get(..2)?.parse().ok()?;
            (if short >= 50 { 1900 + short } else { 2000 + short }, text.get(2..)?)
        }
        0x18 => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let field = |at: usize| rest.get(at..at + 2).and_then(|digits| digits.parse::<i64>().ok());
    let (month, day) = (field(0)?, field(2)?);
    let seconds =
        units::days_from_civil(year, month, day) * 86_400 + field(4)? * 3600 + field(6)? * 60 + field(8)?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// One DER element: tag, content, what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
