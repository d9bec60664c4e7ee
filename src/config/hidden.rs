//! Lines of a file as they may be shown: what is wrong with it is told to logs and to whoever asked for a reload, and the
//! secrets in it are not theirs. A line that is wrong need not be well-formed, so this does not read it as TOML does:
//! what follows a name that may be that of a secret is not shown.

use std::borrow::Cow;
use std::ops::Range;

use crate::log;

/// What names of secrets hold, without what is neither letter nor digit: of keys, and of fields that edits set.
const SECRETS: [&str; 11] = [
    "auth",
    "token",
    "secret",
    "password",
    "passwd",
    "apikey",
    "hashkey",
    "cookie",
    "credential",
    // Where the key itself was written in place of its hash, and a URL whose path is the secret.
    "sha256",
    "webhook",
];

/// Whether what stands under a key is not shown.
pub fn is_secret(key: &str) -> bool {
    let name = log::bare(key);
    SECRETS.iter().any(|secret| name.contains(secret))
}

/// The line of `text` that begins at `start`, with an asterisk for each letter that is not shown: places stay where they
/// are. What stands from `value` on is not shown whatever it is; bytes of the line.
pub fn line(text: &str, start: usize, value: Option<usize>) -> String {
    let line = text[start..].lines().next().unwrap_or("");
    let mut hidden = passwords(line);
    let from =
        value.or_else(|| secret_in(line)).or_else(|| continues_secret(&text[..start], line).then_some(0));
    hidden.extend(from.map(|from| from..line.len()));
    starred(line, &hidden)
}

/// What a message says, without passwords of URLs.
pub fn message(text: &str) -> Cow<'_, str> {
    match passwords(text) {
        found if found.is_empty() => Cow::Borrowed(text),
        found => Cow::Owned(starred(text, &found)),
    }
}

fn starred(text: &str, hidden: &[Range<usize>]) -> String {
    let shown = |(at, c): (usize, char)| {
        let stands = c.is_whitespace() || c == '=' || !hidden.iter().any(|range| range.contains(&at));
        if stands { c } else { '*' }
    };
    text.char_indices().map(shown).collect()
}

/// Where the first name of a secret ends that something is written under, in comments too.
fn secret_in(line: &str) -> Option<usize> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let mut at = 0;
    while let Some(found) = line[at..].find(is_of_name) {
        let begin = at + found;
        let end = begin + line[begin..].find(|c| !is_of_name(c)).unwrap_or(line.len() - begin);
        let before = line[..begin].trim_end_matches(['"', '\'', ' ', '\t']).chars().next_back();
        let after = line[end..].trim_start_matches(['"', '\'']).trim_start();
        let is_key = before.is_none_or(|c| matches!(c, '{' | '[' | ',' | '.' | '#' | '?' | '&'));
        // A member of a list, or the name of a table.
        let is_alone = after.is_empty() || after.starts_with([',', ']', '}']);
        if is_key && !is_alone && is_secret(&line[begin..end]) {
            return Some(end);
        }
        at = end;
    }
    None
}

/// Whether a line goes on with the value of a secret, as strings and lists do over several lines.
fn continues_secret(before: &str, line: &str) -> bool {
    /// A line further up is not looked for.
    const FARTHEST: usize = 1000;
    // It begins something of its own, or may do so: a key or a table.
    let begins = |line: &str| {
        let line = line.trim_start();
        line.starts_with('[') || line.split_once('=').is_some_and(|(key, _)| is_key(key))
    };
    if begins(line) {
        return false;
    }
    let first = before.lines().rev().take(FARTHEST).find(|line| begins(line));
    first.is_some_and(|line| secret_in(line).is_some())
}

/// Whether this is what a key is written of.
fn is_key(text: &str) -> bool {
    !text.trim().is_empty()
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'' | ' ' | '\t'))
}

/// Where passwords and queries of URLs stand, `scheme://user:password@host/?query`: passwords to the last `@` before the
/// quotes close, as what makes it no URL may be in them.
fn passwords(text: &str) -> Vec<Range<usize>> {
    let begins = text.match_indices("://").map(|(at, begin)| at + begin.len());
    begins
        .flat_map(|at| {
            let rest = &text[at..];
            let rest = &rest[..rest.find(['"', '\'', '`', '\n']).unwrap_or(rest.len())];
            let user = rest.rfind('@').map(|end| &rest[..end]);
            let password = user.and_then(|user| Some(at + user.find(':')? + 1..at + user.len()));
            let query = rest.find('?').map(|begin| at + begin + 1..at + rest.len());
            [password, query].into_iter().flatten()
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
            ("admin_token = \"S3CRET\"", "admin_token = ********"),
            ("admin-token = 'S3\"CRET' # x", "admin-token = ********* * *"),
            ("admin_token: \"S3\"", "admin_token* ****"),
            ("admin_token \"S3\"", "admin_token ****"),
            ("admin_token = \"a\"S3\"", "admin_token = ******"),
            ("admin_token = S3,S3", "admin_token = *****"),
            ("admin_token.value = \"S3\"", "admin_token****** = ****"),
            ("identity = { hash_key = \"S\", x = 1 }", "identity = { hash_key = **** * = * *"),
            ("set_request = { X-Auth-Token = \"S\" }", "set_request = { X-Auth-Token = *** *"),
            ("x = 1 # admin_token = \"S3\"", "x = 1 # admin_token = ****"),
            ("admin_token=\"\u{e9}\"", "admin_token=***"),
            ("webhook = \"https://h/T0/S3\"", "webhook = *****************"),
            ("sha256 = \"S3\"", "sha256 = ****"),
            ("url = \"http://me:S3@h:1/a\"", "url = \"http://me:**@h:1/a\""),
            ("url = \"http://me:S/3#@h\"", "url = \"http://me:****@h\""),
            ("url = \"http://me:S 3@h\"", "url = \"http://me:* *@h\""),
            ("url = \"http://h:1/\"", "url = \"http://h:1/\""),
            ("otlp_endpoint = \"http://h/?k=S3\"", "otlp_endpoint = \"http://h/?*=**\""),
            ("to = \"/in?token=S3\"", "to = \"/in?token=***"),
            ("principal = [\"header:authorization\"]", "principal = [\"header:authorization\"]"),
            ("key_headers = [\"authorization\", \"a\"]", "key_headers = [\"authorization\", \"a\"]"),
            ("match = \"GET /{token}\"", "match = \"GET /{token}\""),
            ("[server.admin_token]", "[server.admin_token]"),
            ("admin_token", "admin_token"),
            ("\u{e9} = 1", "\u{e9} = 1"),
        ] {
            assert_eq!(line(text, 0, None), shown, "{text}");
        }
        assert_eq!(line("admin_tokn = \"S3\"", 0, Some(10)), "admin_tokn = ****");
        assert_eq!(message("\"http://a:b:c@d@h\" is none"), "\"http://a:*****@h\" is none");
    }

    #[test]
    fn values_over_several_lines_are_not_shown_either() {
        for (text, hides) in [
            ("admin_token = [\n\"S3\",\n]\nx = 1", [false, true, true, false]),
            ("admin_token = \"\"\"\nS3\\q\n\"\"\"\nx = 1", [false, true, true, false]),
            ("principal = [\n\"S3\",\n]\nx = 1", [false, false, false, false]),
            ("S3\nS3\n[a]\nx", [false, false, false, false]),
        ] {
            let mut start = 0;
            for (at, (raw, hides)) in text.lines().zip(hides).enumerate() {
                let stars = line(text, start, None).trim().chars().all(|c| c == '*');
                assert_eq!(stars, hides, "line {at} of {text}");
                start += raw.len() + 1;
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_between_a_name_and_its_value_the_value_is_not_shown(
            before in "([a-z]{1,3} = [\"']?[a-z]{0,3}[\"']?[,{#] ?)?",
            name in "(admin[_-]?token|webhook_secret|hash-?key|[xX]-Api-Key)",
            between in "[ \"':=.{\\[]{1,6}",
            after in "[ \"',}\\]#=a-z]{0,6}",
        ) {
            let is_list = between.trim_matches(|c| matches!(c, '"' | '\'' | ' ')).is_empty() && before.is_empty();
            prop_assume!(is_list || between.contains(['=', ':', '.']) || between.contains(' '));
            let text = format!("{before}{name}{between}S3CRET{after}");
            let shown = line(&text, 0, None);
            prop_assert!(!shown.contains("S3CRET"), "{text} -> {shown}");
            prop_assert_eq!(shown.chars().count(), text.chars().count());
        }
    }
}
