//! The guard against BREACH: whoever can make a client send guesses, and see how long the answers are,
//! learns a secret that stands in the same compressed answer as the guess. An answer that sets a cookie (so
//! holds something personal) and repeats what the request said is therefore not coded.
//!
//! What it does not see: secrets in answers that set no cookie, guesses of fewer than [`MIN`] bytes or
//! altered by the app, answers split over several requests. An app with such secrets must not let them be
//! compressed (`compress = false` on the route, or `no-transform`).

use memchr::memmem;

use crate::fields::query;

/// Shorter values are found everywhere, and tell nothing.
pub(crate) const MIN: usize = 3;
/// The most values of one request that are looked for; with more, an echo is assumed.
const MAX_VALUES: usize = 32;
/// The longest request content that is looked through; with more, an echo is assumed.
pub(crate) const MAX_INPUT: usize = 16 * 1024;
/// The longest answer that is searched; with more, an echo is assumed.
pub(crate) const MAX_CONTENT: usize = 256 * 1024;

/// What a request said that an answer could repeat.
#[derive(Debug)]
pub(crate) enum Values {
    Some(Vec<Vec<u8>>),
    /// More than is looked for, or what is not at hand.
    Unknown,
}

/// Of a query and the request's content; `input` is `None` where that is not at hand.
pub(crate) fn values(query: Option<&str>, input: Option<&[u8]>) -> Values {
    let Some(input) = input.filter(|input| input.len() <= MAX_INPUT) else { return Values::Unknown };
    let mut values = Vec::new();
    if let Some(query) = query {
        form_values(query.as_bytes(), &mut values);
    }
    if !input.is_empty() && !json_values(input, &mut values) {
        form_values(input, &mut values);
    }
    if values.len() > MAX_VALUES { Values::Unknown } else { Values::Some(values) }
}

impl Values {
    /// Whether `content` repeats one of them; `None` where it is not here whole. When in doubt, it does.
    pub(crate) fn echo_in(&self, content: Option<&[u8]>) -> bool {
        match (self, content) {
            (Values::Some(values), _) if values.is_empty() => false,
            (Values::Some(values), Some(content)) if content.len() <= MAX_CONTENT => {
                values.iter().any(|value| memmem::find(content, value).is_some())
            }
            _ => true,
        }
    }
}

/// Names and values of `a=b&c=d`, as written and decoded. What is no form is one long value.
fn form_values(form: &[u8], values: &mut Vec<Vec<u8>>) {
    for part in form.split(|byte| matches!(byte, b'&' | b'=')) {
        let decoded = query::decoded(part);
        if decoded != part {
            add(decoded, values);
        }
        add(part.to_vec(), values);
    }
}

/// Every text and number in a JSON document; false where it is none.
fn json_values(input: &[u8], values: &mut Vec<Vec<u8>>) -> bool {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(input) else { return false };
    let mut open = vec![&document];
    while let Some(value) = open.pop() {
        if values.len() > MAX_VALUES {
            break;
        }
        match value {
            serde_json::Value::String(text) => {
                add(text.clone().into_bytes(), values);
                // As JSON writes it.
                let written = value.to_string().into_bytes();
                add(written.get(1..written.len() - 1).unwrap_or_default().to_vec(), values);
            }
            serde_json::Value::Number(number) => add(number.to_string().into_bytes(), values),
            serde_json::Value::Array(items) => open.extend(items),
            serde_json::Value::Object(members) => open.extend(members.values()),
            serde_json::Value::Null | serde_json::Value::Bool(_) => {}
        }
    }
    true
}

fn add(value: Vec<u8>, values: &mut Vec<Vec<u8>>) {
    if value.len() >= MIN && values.len() <= MAX_VALUES && !values.contains(&value) {
        values.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_found() {
        let page = br#"<form>Results for "csrf=abc d", name "Ada", 1234 {"q":"a\"b"}</form>"#;
        for (query, input, wanted) in [
            (None, Some(&b""[..]), false),
            (Some(""), Some(b""), false),
            (Some("page=2&sort=up"), Some(b""), false),
            (Some("q=Ada"), Some(b""), true),
            (Some("q=%41da"), Some(b""), true),
            (Some("q=abc+d"), Some(b""), true),
            (Some("q=ab"), Some(b""), false),
            (Some("Results"), Some(b""), true),
            (None, Some(b"user=Ada&x=y"), true),
            (None, Some(br#"{"user":{"name":["Ada"]}}"#), true),
            (None, Some(br#"{"user":"Grace","n":1234}"#), true),
            (None, Some(br#"{"user":"a\"b"}"#), true),
            (None, Some(br#"{"user":"Grace"}"#), false),
            (None, Some(b"Ada"), true),
            (None, None, true),
        ] {
            assert_eq!(values(query, input).echo_in(Some(page)), wanted, "{query:?} {input:?}");
        }
        let many: String = (0..40).map(|at| format!("name{at}=value{at}&")).collect();
        assert!(values(Some(&many), Some(b"")).echo_in(Some(b"nothing of it")), "too many to look for");
        let long = vec![b'x'; MAX_CONTENT + 1];
        assert!(values(Some("q=Ada"), Some(b"")).echo_in(Some(&long)), "too long to search");
        assert!(!values(None, Some(b"")).echo_in(Some(&long)), "nothing to look for");
        assert!(!values(Some("p=1"), Some(b"")).echo_in(None), "nothing to look for");
        assert!(values(Some("q=Ada"), Some(b"")).echo_in(None), "not all of it is here");
        let long = vec![b'x'; MAX_INPUT + 1];
        assert!(values(None, Some(&long)).echo_in(Some(b"nothing of it")), "too long to look through");
    }
}
