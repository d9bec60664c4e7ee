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

/// Where `separator` first stands outside a quoted string (RFC 9110 5.6.4).
fn unquoted(text: &[u8], separator: u8, escapes: bool) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.iter().position(|byte| {
        if escaped {
            escaped = false;
        } else if quoted {
            escaped = escapes && *byte == b'\\';
            quoted = *byte != b'"';
        } else if *byte == b'"' {
            quoted = true;
        } else {
            return *byte == separator;
        }
        false
    })
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
            (r#"a="never closed, b"#, &[r#"a="never closed, b"#]),
        ] {
            let found: Vec<&[u8]> = elements(value.as_bytes()).collect();
            let wanted: Vec<&[u8]> = wanted.iter().map(|text| text.as_bytes()).collect();
            assert_eq!(found, wanted, "{value}");
        }
    }
}
