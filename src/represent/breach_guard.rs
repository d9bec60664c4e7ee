//! The guard against BREACH. An attacker who can make a client send guesses, and sees the length of the responses,
//! learns a secret that is in the same compressed response as the guess. So a response is not encoded if it sets a
//! cookie (and thus contains something personal) and repeats a part of the request.
//!
//! Not covered: secrets in responses that set no cookie, guesses of fewer than [`MIN`] bytes or altered by the
//! upstream, secrets split over several responses. The compression of responses with such secrets must be disabled
//! (`compress = false` on the route, or `no-transform`).

use memchr::memmem;

use crate::fields::query;

/// Minimum length of a value in bytes; shorter ones occur everywhere and mean nothing.
pub(crate) const MIN: usize = 3;
/// Maximum number of values of one request to search for; with more, an echo is assumed.
const MAX_VALUES: usize = 32;
/// Maximum bytes of request content that are examined; with more, an echo is assumed.
pub(crate) const MAX_INPUT: usize = 16 * 1024;
/// Maximum bytes of a response that are searched; with more, an echo is assumed.
pub(crate) const MAX_CONTENT: usize = 256 * 1024;

/// The values of a request that a response could repeat.
#[derive(Debug)]
pub(crate) enum Values {
    Some(Vec<Vec<u8>>),
    /// There are too many values, or the request content is not available.
    Unknown,
}

/// Collects the values of a query and of the request content; `input` is `None` if that is not available.
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
    /// Returns whether `content` repeats one of the values; `None` stands for incomplete content. In doubt it returns
    /// true.
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

/// Collects names and values of `a=b&c=d`, as written and decoded. Content that is not a form is one long value.
fn form_values(form: &[u8], values: &mut Vec<Vec<u8>>) {
    for part in form.split(|byte| matches!(byte, b'&' | b'=')) {
        let decoded = query::decoded(part);
        if decoded != part {
            add(decoded, values);
        }
        add(part.to_vec(), values);
    }
}

/// Collects every text and number of a JSON document; returns false if the input is not JSON.
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
                // The text as JSON writes it, without its quotes.
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
