//! Lines of a file as they may be shown: what is wrong with it is told to logs and to whoever asked for a reload, and the
//! secrets in it are not theirs. In a file that is TOML, the values of secrets are known and nothing else is hidden. A
//! file that is none cannot be read so: what follows a name that may be that of a secret is not shown then.

use std::borrow::Cow;
use std::ops::Range;

use crate::log;

/// Parts of the names of secrets, without what is neither letter nor digit: of keys, and of fields that edits set.
const SECRETS: [&str; 12] = [
    "auth",
    "token",
    "secret",
    "password",
    "passwd",
    "apikey",
    "hashkey",
    "cookie",
    "credential",
    // The value of any field that is set may be a secret, whatever the name of the field.
    "setrequest",
    // Where the key itself was written in place of its hash, and a URL whose path is the secret.
    "sha256",
    "webhook",
];

/// Keys whose values are shown also where the line is not TOML: no secret stands under them.
const PLAIN: [&str; 24] = [
    "url", "replicas", "listen", "admin", "probes", "workers", "match", "deny", "rewrite", "upstream",
    "timeout", "cache", "tags", "on", "paths", "rate", "burst", "types", "codings", "level", "format",
    "access", "retries", "interval",
];

/// Whether what stands under a key is not shown.
pub(super) fn is_secret(key: &str) -> bool {
    let name = log::bare(key);
    SECRETS.iter().any(|secret| name.contains(secret))
}

/// The line of `text` that begins at `start`, with an asterisk for each letter that is not shown: places stay where they
/// are. Where the value has nothing to do with what is wrong, or it cannot be told, nothing of it is.
pub(super) fn line(text: &str, start: usize, of_value: bool) -> String {
    let line = text[start..].lines().next().unwrap_or("");
    let mut hidden = passwords(line);
    let is_plain = |end: &usize| PLAIN.contains(&line[..*end].trim());
    let value = line.find(['=', ':']).filter(|end| !of_value && !is_plain(end));
    let from = secret_in(line).into_iter().chain(value).min();
    let from = from.or_else(|| continues_secret(&text[..start]).then_some(0));
    hidden.extend(from.map(|from| from..line.len()));
    starred(line, &hidden)
}

/// The line of `text` that begins at `start`, where it is known which values are secrets: those, the passwords of URLs,
/// and what a comment says of a secret are not shown.
pub(super) fn line_without(text: &str, start: usize, secrets: &[Range<usize>]) -> String {
    let line = text[start..].lines().next().unwrap_or("");
    let mut hidden = passwords(line);
    let within = |at: usize| at.saturating_sub(start).min(line.len());
    hidden.extend(secrets.iter().map(|span| within(span.start)..within(span.end)));
    if let Some(comment) = comment_in(line) {
        hidden.extend(secret_in(&line[comment..]).map(|name| comment + name..line.len()));
    }
    starred(line, &hidden)
}

/// Where the comment of a line begins; a sign in quotes begins none.
fn comment_in(line: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') => return Some(at),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if c == open && !escaped => quote = None,
            _ => {}
        }
        escaped = c == '\\' && !escaped && quote == Some('"');
    }
    None
}

/// Returns a message without the passwords of its URLs.
pub(super) fn message(text: &str) -> Cow<'_, str> {
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

/// Where the first name of a secret ends that something may be written under, in comments too.
fn secret_in(line: &str) -> Option<usize> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let mut at = 0;
    while let Some(found) = line[at..].find(is_of_name) {
        let begin = at + found;
        let end = begin + line[begin..].find(|c| !is_of_name(c)).unwrap_or(line.len() - begin);
        let rest = &line[end..];
        // In quotes of its own it may be a member of a list.
        let beside = rest.strip_prefix(['"', '\'']).unwrap_or(rest).trim_start();
        let has_value = rest.contains(['=', ':']) || beside.starts_with(['"', '\'']);
        if has_value && is_secret(&line[begin..end]) {
            return Some(end);
        }
        at = end;
    }
    None
}

/// Whether the value of a secret goes on after these lines, as strings and lists do.
fn continues_secret(before: &str) -> bool {
    /// A line further up is not looked for.
    const FARTHEST: usize = 1000;
    let lines: Vec<&str> = before.lines().rev().take(FARTHEST).collect();
    let goes_on = |(at, line): (usize, &&str)| {
        let Some(name) = secret_in(line) else { return false };
        let (value, later) = (&line[name..], &lines[..at]);
        let count =
            |what: &str| later.iter().chain([&value]).map(|line| line.matches(what).count()).sum::<usize>();
        ["\"\"\"", "\'\'\'"].iter().any(|quotes| value.contains(quotes) && count(quotes) % 2 == 1)
            || value.contains('[') && count("[") > count("]")
    };
    lines.iter().enumerate().any(goes_on)
}

/// Where passwords and queries of URLs stand, `scheme://user:password@host/?query`: passwords to the last `@`, as what
/// makes it no URL may be in them. Without `://` all of the word before it.
fn passwords(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if let Some(end) = text.rfind('@') {
        let before = &text[..end];
        let begin = match before.find("://") {
            Some(at) => {
                let user = at + "://".len();
                before[user..].find(':').map_or(user, |colon| user + colon + 1)
            }
            None => before.rfind(['"', '\'', ' ', '=', '`']).map_or(0, |at| at + 1),
        };
        found.push(begin..end);
    }
    for (at, _) in text.match_indices("://") {
        let rest = &text[at..];
        let rest = &rest[..rest.find(['"', '\'', '`', '\n']).unwrap_or(rest.len())];
        found.extend(rest.find('?').map(|begin| at + begin + 1..at + rest.len()));
    }
    found
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
            ("identity = { hash_key = \"S\", x = 1 }", "identity = { hash_key = **** * = * *"),
            ("set_request = { X-Auth-Token = \"S\" }", "set_request = * ************ = *** *"),
            ("x = 1 # admin_token = \"S3\"", "x = 1 # admin_token = ****"),
            ("admin_token=\"\u{e9}\"", "admin_token=***"),
            ("webhook = \"https://h/T0/S3\"", "webhook = *****************"),
            ("url = \"http://me:S3@h:1/a\"", "url = \"http://me:**@h:1/a\""),
            ("url = \"http://me:S/3#@h\"", "url = \"http://me:****@h\""),
            ("url = \"http://me:S'3@h\"", "url = \"http://me:***@h\""),
            ("url = \"http://S3@h\"", "url = \"http://**@h\""),
            ("url = \"me:S3@h\"", "url = \"*****@h\""),
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
            assert_eq!(line(text, 0, true), shown, "{text}");
        }
        assert_eq!(line("admin_tokn = \"S3\"", 0, false), "admin_tokn = ****");
        assert_eq!(line("admin_tokn: \"S3", 0, false), "admin_tokn* ***");
        assert_eq!(line("url = http://a", 0, false), "url = http://a");
        assert_eq!(line("url = http://me:S3@a", 0, false), "url = http://me:**@a");
        assert_eq!(line("match = \"GET /x # token = S3", 0, false), "match = \"GET /x # token = **");
        assert_eq!(message("\"http://a:b:c@d@h\" is none"), "\"http://a:*****@h\" is none");
    }

    #[test]
    fn only_secrets_are_hidden_where_they_are_known() {
        for (text, secret, shown) in [
            ("admin_token = \"S3CRET\" # mine", Some("\"S3CRET\""), "admin_token = ******** # mine"),
            ("a = { hash_key = \"S\", x = 1 }", Some("\"S\""), "a = { hash_key = ***, x = 1 }"),
            ("ignore_cookies = [\"a\"]", None, "ignore_cookies = [\"a\"]"),
            ("set_response = { x = \"#token=\" }", None, "set_response = { x = \"#token=\" }"),
            ("x = 1 # admin_token = \"S3\"", None, "x = 1 # admin_token = ****"),
            ("url = \"http://me:S3@h:1/a\"", None, "url = \"http://me:**@h:1/a\""),
        ] {
            let spans: Vec<Range<usize>> = secret
                .map(|secret| text.find(secret).map(|at| at..at + secret.len()))
                .into_iter()
                .flatten()
                .collect();
            assert_eq!(line_without(text, 0, &spans), shown, "{text}");
        }
        let text = "a = \"\"\"\nS3\n\"\"\"\n";
        let secret = 4..14;
        assert_eq!(line_without(text, 8, std::slice::from_ref(&secret)), "**");
    }

    #[test]
    fn values_over_several_lines_are_not_shown_either() {
        for (text, hides) in [
            ("admin_token = [\n\"S3\",\n]\nx", [false, true, true, false]),
            ("admin_token = \"\"\"\nS3=\n\"\"\"\nx", [false, true, true, false]),
            ("principal = [\n\"S3\",\n]\nx", [false, false, false, false]),
            ("S3\nS3\n[a]\nx", [false, false, false, false]),
        ] {
            let mut start = 0;
            for (at, (raw, hides)) in text.lines().zip(hides).enumerate() {
                let stars = line(text, start, true).trim().chars().all(|c| matches!(c, '*' | '='));
                assert_eq!(stars, hides, "line {at} of {text}");
                start += raw.len() + 1;
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_around_a_name_and_its_value_the_value_is_not_shown(
            before in "([a-z]{1,3} = [\"']?[a-z]{0,3}[\"']?|- |; |export |\\[[a-z]\\])?[,{#\\])] ?",
            name in "(admin[_ -]?token|webhook_secret|hash-?key|[xX]-Api-Key|ADMIN_TOKEN)",
            between in "([,\\] \"'.{\\[]{0,3}[=:][ \"'\\[{]{0,3}| \"| ')",
            after in "[ \"',}\\]#=a-z]{0,6}",
        ) {
            let text = format!("{before}{name}{between}S3CRET{after}");
            let shown = line(&text, 0, true);
            prop_assert!(!shown.contains("S3CRET"), "{text} -> {shown}");
            prop_assert_eq!(shown.chars().count(), text.chars().count());
        }
    }
}
