//! A file's text as it may be shown: what is wrong with it is told to logs and to whoever asked for a reload, and the
//! secrets in it are not theirs.

use std::ops::Range;

/// Keys whose values are never shown: ours, and fields that carry credentials where fields are edited.
const SECRETS: [&str; 9] = [
    "admin_token",
    "webhook_secret",
    "hash_key",
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "password",
];

/// Whether what stands under a key is never shown.
pub fn is_secret(key: &str) -> bool {
    SECRETS.iter().any(|secret| secret.eq_ignore_ascii_case(key))
}

/// `text` with an asterisk for each byte of a secret, so that places in it stay where they are. It need not be well-formed.
pub fn hidden(text: &str) -> String {
    let mut secrets = values(text);
    secrets.extend(passwords(text));
    let mut shown = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        if !c.is_whitespace() && secrets.iter().any(|secret| secret.contains(&at)) {
            shown.extend(std::iter::repeat_n('*', c.len_utf8()));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Where the values of secret keys stand.
fn values(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut key = String::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        match c {
            '"' | '\'' => {
                let length = string(rest);
                key = rest[..length].trim_matches(c).to_owned();
                at += length;
            }
            '#' => at += rest.find('\n').unwrap_or(rest.len()),
            '=' => {
                at += 1;
                if is_secret(&key) {
                    let length = value(&text[at..]);
                    found.push(at..at + length);
                    at += length;
                }
                key.clear();
            }
            _ if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') => {
                let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
                let length = rest.find(|c| !is_bare(c)).unwrap_or(rest.len());
                key = rest[..length].to_owned();
                at += length;
            }
            _ => {
                if !c.is_whitespace() {
                    key.clear();
                }
                at += c.len_utf8();
            }
        }
    }
    found
}

/// How long the value is that `text` begins with: a string, a list to its end, else what stands on the line.
fn value(text: &str) -> usize {
    let begin = text.len() - text.trim_start_matches([' ', '\t']).len();
    let (mut at, mut depth) = (begin, 0usize);
    while let Some(c) = text[at..].chars().next() {
        match c {
            '"' | '\'' => {
                at += string(&text[at..]);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            '[' | '{' => depth += 1,
            ']' | '}' if depth <= 1 => return if depth == 0 { at } else { at + 1 },
            ']' | '}' => depth -= 1,
            ',' | '\n' if depth == 0 => return at,
            _ => {}
        }
        at += c.len_utf8();
    }
    at
}

/// How long the string is that `text` begins with, its quotes included. One that does not end ends with its line.
fn string(text: &str) -> usize {
    let quote = &text[..1];
    let triple = quote.repeat(3);
    let (close, lines) = if text.starts_with(&triple) { (triple.as_str(), true) } else { (quote, false) };
    let mut at = close.len();
    while let Some(c) = text[at..].chars().next() {
        if text[at..].starts_with(close) {
            return at + close.len();
        }
        if c == '\n' && !lines {
            return at;
        }
        let escaped = c == '\\' && quote == "\"";
        at += c.len_utf8();
        if escaped {
            at += text[at..].chars().next().filter(|next| *next != '\n').map_or(0, char::len_utf8);
        }
    }
    text.len()
}

/// Where passwords of URLs stand: `scheme://user:password@host`.
fn passwords(text: &str) -> Vec<Range<usize>> {
    let begins = text.match_indices("://").map(|(at, begin)| at + begin.len());
    begins
        .filter_map(|at| {
            let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '`' | ',');
            let authority = &text[at..at + text[at..].find(ends).unwrap_or(text.len() - at)];
            let user = &authority[..authority.rfind('@')?];
            Some(at + user.find(':')? + 1..at + user.len())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_not_shown_and_all_else_is() {
        for (text, shown) in [
            ("admin_token = \"S3CRET\"\nurl = \"a\"", "admin_token = ********\nurl = \"a\""),
            ("admin_token = 'S3\"CRET' # x", "admin_token = ********* # x"),
            ("hash_key = \"a\\\"b\" # \"", "hash_key = ****** # \""),
            (
                "identity = { hash_key = \"S\", token = \"t\" }",
                "identity = { hash_key = ***, token = \"t\" }",
            ),
            ("server.\"admin_token\" = 5\nx = 1", "server.\"admin_token\" = *\nx = 1"),
            ("admin_token = [\n\"S3\",\n]\nx = 1", "admin_token = *\n*****\n*\nx = 1"),
            ("admin_token = \"\"\"\nS3\n\"\"\"\nx = 1", "admin_token = ***\n**\n***\nx = 1"),
            ("admin_token = \"S3\nx = \"a\"", "admin_token = ***\nx = \"a\""),
            ("webhook_secret = S3 # why\nx = 1", "webhook_secret = ** * ***\nx = 1"),
            ("set_request = { Authorization = \"B S\" }", "set_request = { Authorization = ** ** }"),
            ("admin_token=\"\u{e9}\"", "admin_token=****"),
            ("url = \"http://me:S3@h:1/a:b@c\"", "url = \"http://me:**@h:1/a:b@c\""),
            ("the URL http://a:b:c@d@h is", "the URL http://a:*****@h is"),
            ("url = \"http://h:1/\"", "url = \"http://h:1/\""),
            (
                "admin_token_file = \"a\" # admin_token = \"b\"",
                "admin_token_file = \"a\" # admin_token = \"b\"",
            ),
            ("name = \"admin_token = x\"", "name = \"admin_token = x\""),
            ("admin_token", "admin_token"),
            ("admin_token = \"S\\", "admin_token = ***"),
        ] {
            assert_eq!(hidden(text), shown, "{text}");
        }
    }

    proptest! {
        #[test]
        fn places_stay_where_they_are(text in "((admin_token|x)? ?[=\"'\\[\\]{}#,\\\\\u{e9}\n]{0,3}( |://a:b@)?){0,8}") {
            let shown = hidden(&text);
            prop_assert_eq!(shown.len(), text.len());
            prop_assert_eq!(shown.lines().count(), text.lines().count());
        }
    }
}
