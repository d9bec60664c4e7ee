//! Lists (RFC 9110 5.6.1): elements between commas outside of quotes. All lines of one field form one list.

use http::{HeaderMap, HeaderName};

/// Iterates over the trimmed elements of one value. Empty elements are skipped, as RFC 9110 requires of recipients.
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(value, b',').filter(|element| !element.is_empty())
}

/// Iterates over the elements of all lines of a field.
pub(crate) fn elements_in_field<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(|value| elements(value.as_bytes()))
}

/// Iterates over the elements of all lines of a field whose quoted parts have no escapes: entity tags (RFC 9110 8.8.3).
pub(crate) fn of_unescaped<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|value| parts(value.as_bytes(), b',', false)).filter(|element| !element.is_empty())
}

/// Iterates over the trimmed parts between `separator`s outside of quoted strings.
pub(crate) fn split(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    parts(value, separator, true)
}

fn parts(value: &[u8], separator: u8, escapes: bool) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut quotes) = (Some(value), Quotes::MayClose);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = unquoted(text, separator, escapes, &mut quotes);
        rest = end.and_then(|end| text.get(end + 1..));
        Some(text.get(..end.unwrap_or(text.len())).unwrap_or_default().trim_ascii())
    })
}

/// Whether quotes in the rest of a value can still close.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    MayClose,
    /// A quote stayed open to the end of the value, so no later quote closes either: all later quotes are escaped. A
    /// new search for each would take quadratic time.
    NeverClose,
}

/// Returns the position of the first `separator` outside of a quoted string (RFC 9110 5.6.4). An unclosed quote counts
/// as an ordinary byte, so that it cannot hide the rest of the value.
fn unquoted(text: &[u8], separator: u8, escapes: bool, quotes: &mut Quotes) -> Option<usize> {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte == separator {
            return Some(at);
        }
        if *byte == b'"' && *quotes == Quotes::MayClose {
            match closing(text, at, escapes) {
                Some(end) => at = end,
                None => *quotes = Quotes::NeverClose,
            }
        }
        at += 1;
    }
    None
}

/// Returns the end of the quoted string that begins at `start`.
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
            (r#"a="x\", b="\"y, c"#, &[r#"a="x\", b="\"y"#, "c"]),
            (r#"a="x\, "b\", c"#, &[r#"a="x\, "b\""#, "c"]),
        ] {
            let found: Vec<&[u8]> = elements(value.as_bytes()).collect();
            let wanted: Vec<&[u8]> = wanted.iter().map(|text| text.as_bytes()).collect();
            assert_eq!(found, wanted, "{value}");
        }
    }

    /// Does the same as [`parts`], but searches for the end of every quote again.
    fn plainly(value: &[u8], separator: u8, escapes: bool) -> Vec<&[u8]> {
        let (mut found, mut start, mut at) = (Vec::new(), 0, 0);
        while at < value.len() {
            if value[at] == separator {
                found.push(value[start..at].trim_ascii());
                start = at + 1;
            } else if value[at] == b'"' {
                at = closing(value, at, escapes).unwrap_or(at);
            }
            at += 1;
        }
        found.push(value[start..].trim_ascii());
        found
    }

    proptest::proptest! {
        #[test]
        fn n3_1_a_quote_that_never_closes_is_found_once(value in "[a,;\"\\\\ ]{0,24}", escapes: bool) {
            let found: Vec<&[u8]> = parts(value.as_bytes(), b',', escapes).collect();
            proptest::prop_assert_eq!(found, plainly(value.as_bytes(), b',', escapes));
        }
    }
}
