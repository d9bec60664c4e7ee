//! `Cookie` (RFC 6265 4.2): its pairs, and which of them count.

use http::{HeaderMap, HeaderName, header};

use super::glob;

/// `Set-Cookie`, and what it was called for a while; neither is ever replayed.
pub static SETTING: [HeaderName; 2] = [header::SET_COOKIE, HeaderName::from_static("set-cookie2")];

/// Name and value of every cookie of a request, as they stand there.
pub fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(header::COOKIE).iter();
    let parts = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    parts.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()).map(|pair| {
        match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()),
            // A value without a name; browsers send such.
            None => (&b""[..], pair),
        }
    })
}

/// A name or a value that some apps would read as further cookies, or in another way than others do.
pub fn is_odd(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b' ' | b'\t' | b',' | b'"' | b'\\'))
}

/// The cookies that count: those that no pattern of `ignored` covers, and those with an odd name or value.
pub fn counted<'a>(
    headers: &'a HeaderMap,
    ignored: &'a [String],
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    pairs(headers).filter(|(name, value)| is_odd(name) || is_odd(value) || !is_ignored(name, ignored))
}

/// Whether a pattern covers a name.
pub fn is_ignored(name: &[u8], ignored: &[String]) -> bool {
    ignored.iter().any(|pattern| glob::matches(pattern.as_bytes(), name))
}

/// Whether there is a cookie that counts.
pub fn counts(headers: &HeaderMap, ignored: &[String]) -> bool {
    counted(headers, ignored).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_cookies_count() {
        let ignored: Vec<String> = ["_ga*", "_gid"].map(str::to_owned).to_vec();
        for (lines, wanted) in [
            (&[][..], false),
            (&[""], false),
            (&["_ga=1; _gid=2"], false),
            (&["_ga_XY=1"], false),
            (&["_gid2=1"], true),
            (&["_ga=1; s=2"], true),
            (&["_ga=1", "s=2"], true),
            (&["naked"], true),
            (&[" ; ;_ga=1;"], false),
            (&["x_ga=1"], true),
            (&["_ga=1 session=2"], true),
            (&["_ga=1, session=2"], true),
            (&["_ga,session=2"], true),
            (&["_ga session=2"], true),
            (&["_ga\"session=2"], true),
            (&["_ga=\"1; session=2\""], true),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, line.parse().unwrap());
            }
            assert_eq!(counts(&headers, &ignored), wanted, "{lines:?}");
        }
    }
}
