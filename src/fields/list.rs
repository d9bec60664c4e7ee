//! Lists of RFC 9110 5.6.1: elements between commas that do not stand in quotes. Field lines of one name
//! are one list.

use http::{HeaderMap, HeaderName};

/// The elements of one value, trimmed; empty ones are left out, as a recipient must.
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(value, b',').filter(|element| !element.is_empty())
}

/// The elements of all lines of a field.
pub fn of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(|value| elements(value.as_bytes()))
}

/// The elements of all lines of a field whose quoted parts know no escapes: entity tags (RFC 9110 8.8.3).
pub fn of_unescaped<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|value| parts(value.as_bytes(), b',', false)).filter(|element| !element.is_empty())
}

/// The parts between `separator`s outside quoted strings, trimmed.
pub fn split(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    parts(value, separator, true)
}

fn parts(value: &[u8], separator: u8, escapes: bool) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = unquoted(text, separator, escapes);
        rest = end.and_then(|end| text.get(end + 1..));
        Some(text.get(..end.unwrap_or(text.len())).unwrap_or_default().trim_ascii())
    })
}

/// Where `separator` first stands outside a quoted string (RFC 9110 5.6.4). A quote that is never closed is an
/// octet like another: it must not hide what comes after it.
fn unquoted(text: &[u8], separator: u8, escapes: bool) -> Option<usize> {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte == separator {
            return Some(at);
        }
        let closed = if *byte == b'"' { closing(text, at, escapes) } else { None };
        at = closed.unwrap_or(at) + 1;
    }
    None
}

/// Where the quoted string ends that begins at `start`.
fn closing(text: &[u8], start: usize, escapes: bool) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' if escapes => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_do_not_separate() {
        for (value, wanted) in [
            ("", &[][..]),
            (" , ,", &[]),
            ("a", &["a"]),
            ("a , b,,c", &["a", "b", "c"]),
            (r#"a="x,y", b"#, &[r#"a="x,y""#, "b"]),
            (r#"a="x\",y", b"#, &[r#"a="x\",y""#, "b"]),
            (r#"a="never closed, b"#, &[r#"a="never closed"#, "b"]),
            (r#""a", "b, c"#, &[r#""a""#, r#""b"#, "c"]),
        ] {
            let found: Vec<&[u8]> = elements(value.as_bytes()).collect();
            let wanted: Vec<&[u8]> = wanted.iter().map(|text| text.as_bytes()).collect();
            assert_eq!(found, wanted, "{value}");
        }
    }
}
