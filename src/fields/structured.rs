//! Structured Fields (RFC 9651), as far as Pillion needs them: dictionaries of bare items, and lists of strings. The
//! `sfv` crate parses; this file converts to simpler types.

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, List, ListEntry, Parser};

/// A bare item, reduced to the types that Pillion uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Integer(i64),
    Boolean(bool),
    Text(String),
    Other,
}

/// Joins all lines of a field to one list (RFC 9110 5.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut lines = headers.get_all(name).iter();
    let mut text = lines.next()?.as_bytes().to_vec();
    for line in lines {
        text.extend_from_slice(b", ");
        text.extend_from_slice(line.as_bytes());
    }
    Some(text)
}

/// Parses a Dictionary, in which the last value of a repeated key counts; `None` if the field is missing or malformed.
pub(crate) fn dictionary(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<(String, Value)>> {
    let text = joined(headers, name)?;
    let members: Dictionary = Parser::new(&text).parse().ok()?;
    let value = |entry: &ListEntry| match entry {
        ListEntry::Item(item) => match &item.bare_item {
            BareItem::Integer(integer) => Value::Integer(i64::from(*integer)),
            BareItem::Boolean(boolean) => Value::Boolean(*boolean),
            BareItem::String(text) => Value::Text(text.as_str().to_owned()),
            _ => Value::Other,
        },
        ListEntry::InnerList(_) => Value::Other,
    };
    Some(members.iter().map(|(key, entry)| (key.as_str().to_owned(), value(entry))).collect())
}

/// Parses a List of Strings and ignores parameters; `None` if the field is missing or malformed.
pub(crate) fn strings(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<String>> {
    let text = joined(headers, name)?;
    let members: List = Parser::new(&text).parse().ok()?;
    members
        .into_iter()
        .map(|entry| match entry {
            ListEntry::Item(item) => match item.bare_item {
                BareItem::String(text) => Some(text.as_str().to_owned()),
                _ => None,
            },
            ListEntry::InnerList(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_strings() {
        let name = HeaderName::from_static("cache-groups");
        for (lines, wanted) in [
            (&["\"a\", \"b c\""][..], Some(&["a", "b c"][..])),
            (&["\"a\";x=1", "\"b\""], Some(&["a", "b"])),
            (&["a"], None),
            (&["\"a\", b"], None),
            (&["\"a"], None),
            (&["(\"a\")"], None),
            (&[""], Some(&[])),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(&name, line.parse().unwrap());
            }
            let found = strings(&headers, &name);
            let wanted = wanted.map(|texts| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
            assert_eq!(found, wanted, "{lines:?}");
        }
    }
}
