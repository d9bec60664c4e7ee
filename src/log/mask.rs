//! Takes secrets out of a target before it is written, by the names the configuration lists.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::plain::{is_plain, plain};
use crate::fields::query;

/// What stands in place of a masked value.
const MASKED: &str = "***";

/// A target of these has no parameter, nothing that is not what it looks like, and nothing that JSON escapes.
static PLAIN: [bool; 256] = plain(b"=:%\"\\");

/// A target with the values of secret parameters taken out, in its query and its path (`;token=...`). Names are
/// compared decoded and without regard to case; a name that ends in a listed one (`access_token` in `token`) is as
/// secret. A value that itself says a secret (`{"token":"..."}`, `/login?token=...`) is taken out whole. What is borrowed
/// stands in JSON as it is.
pub fn masked<'t>(target: &'t str, names: &[String]) -> Cow<'t, str> {
    if is_plain(target.as_bytes(), &PLAIN) {
        return Cow::Borrowed(target);
    }
    let target = printable(target);
    let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
    let mut text = String::with_capacity(target.len());
    for (at, segment) in path.split('/').enumerate() {
        if at > 0 {
            text.push('/');
        }
        parameters(&mut text, segment, ';', names);
    }
    if let Some(query) = query {
        text.push('?');
        parameters(&mut text, query, '&', names);
    }
    Cow::Owned(text)
}

/// Control characters percent-encoded: a target may hold C1 ones, which terminals obey.
fn printable(target: &str) -> Cow<'_, str> {
    if !target.contains(char::is_control) {
        return Cow::Borrowed(target);
    }
    let mut text = String::with_capacity(target.len());
    for c in target.chars() {
        if c.is_control() {
            // Writing to a string cannot fail.
            let _ = c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(text, "%{byte:02X}"));
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

fn parameters(text: &mut String, all: &str, separator: char, names: &[String]) {
    for (at, pair) in all.split(separator).enumerate() {
        if at > 0 {
            text.push(separator);
        }
        let (name, value) = pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value)));
        let (before, content) = if value.is_some() { (name, value.unwrap_or("")) } else { ("", name) };
        text.push_str(before);
        if value.is_some() {
            text.push('=');
        }
        let secret = value.is_some() && is_secret(&decoded(name), names) || tells(&decoded(content), names);
        text.push_str(if secret { MASKED } else { content });
    }
}

/// Percent-decoded, as often as it was encoded (twice is what links in links do).
fn decoded(text: &str) -> Vec<u8> {
    let mut content = text.as_bytes().to_vec();
    for _ in 0..2 {
        if !content.contains(&b'%') {
            break;
        }
        content = query::percent_decoded(&content);
    }
    content
}

/// Whether a name is a listed one, or ends in one as a word: `access_token`, `accessToken`, `user[token]`.
fn is_secret(name: &[u8], names: &[String]) -> bool {
    let name = name.strip_suffix(b"]").unwrap_or(name);
    names.iter().any(|secret| {
        let Some(at) = name.len().checked_sub(secret.len()) else { return false };
        let (before, word) = name.split_at(at);
        let begins = match (before.last(), word.first()) {
            (Some(last), Some(first)) => {
                !last.is_ascii_alphanumeric() || first.is_ascii_uppercase() && last.is_ascii_lowercase()
            }
            _ => true,
        };
        begins && word.eq_ignore_ascii_case(secret.as_bytes())
    })
}

/// Whether a value has the name of a secret, and then a value for that: `"token": "..."`, `token=...`.
fn tells(value: &[u8], names: &[String]) -> bool {
    let assigned = |(at, byte): (usize, &u8)| matches!(byte, b':' | b'=').then_some(at);
    value.iter().enumerate().filter_map(assigned).any(|at| {
        let before = value[..at].trim_ascii_end();
        let closed = before.len()
            - before.iter().rev().take_while(|byte| matches!(byte, b'"' | b'\'' | b'\\')).count();
        let before = &before[..closed];
        let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(**byte, b'_' | b'-');
        let start = before.len() - before.iter().rev().take_while(is_name).count();
        start < before.len() && is_secret(&before[start..], names)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_masked_however_they_are_spelt() {
        let names = ["token".to_owned(), "api_key".to_owned()];
        for (target, shown) in [
            ("/a", "/a"),
            ("/a?x=1", "/a?x=1"),
            ("/a?token=s3cret&x=1", "/a?token=***&x=1"),
            ("/a?x=1&TOKEN=s3cret", "/a?x=1&TOKEN=***"),
            ("/a?%74oken=s3cret", "/a?%74oken=***"),
            ("/a?api%5fkey=s3cret=more", "/a?api%5fkey=***"),
            ("/a?token", "/a?token"),
            ("/a?access_token=x&tokens=3", "/a?access_token=***&tokens=3"),
            ("/\u{9b}31mx", "/%C2%9B31mx"),
            ("/a;token=s3cret/b;v=2?x=1", "/a;token=***/b;v=2?x=1"),
            (r#"/a?q={"token":"s3cret"}&x=1"#, "/a?q=***&x=1"),
            ("/a?q=%7B%22Access_Token%22%20:%20%22s3cret%22%7D", "/a?q=***"),
            (r#"/a?{"token":"s3cret"}"#, "/a?***"),
            (r#"/a?q={\"token\":\"s3cret\"}"#, "/a?q=***"),
            ("/a?next=/in%3Ftoken%3Ds3cret", "/a?next=***"),
            ("/a?next=%252Fin%253Ftoken%253Ds3cret", "/a?next=***"),
            (r#"/a?q={"tokens":3}"#, r#"/a?q={"tokens":3}"#),
            (
                "/a?accessToken=x&user[token]=y&a.token=z&ptoken=1",
                "/a?accessToken=***&user[token]=***&a.token=***&ptoken=1",
            ),
            ("/a?t=12:30&u=%zz%", "/a?t=12:30&u=%zz%"),
        ] {
            assert_eq!(masked(target, &names), shown);
        }
    }

    proptest! {
        /// Whatever stands around it, the value of a secret does not get through.
        #[test]
        fn no_secret_gets_through(
            before in "(/[a-z;=%]{0,6}){1,3}\\?([a-z]{1,3}=[a-z%:=\"]{0,6}&){0,3}",
            name in "(t|%74|T|%54)(oken|OKEN|%6fken)",
            shape in 0..4usize,
            after in "(&[a-z]{1,3}=[a-z%:]{0,6}){0,3}",
        ) {
            let said = match shape {
                0 => format!("{name}=S3CRET"),
                1 => format!("q={{\"{name}\":\"S3CRET\"}}"),
                2 => format!("q=%7B%22{name}%22:%22S3CRET%22%7D"),
                _ => format!("next=/in?{name}=S3CRET"),
            };
            let target = format!("{before}{said}{after}");
            let shown = masked(&target, &["token".to_owned()]);
            prop_assert!(!shown.contains("S3CRET"), "{target} -> {shown}");
        }
    }
}
