//! Masks secrets in a request target before it is logged, by the names that the configuration lists.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::plain::{is_plain, is_unprintable, plain};
use crate::fields::query;
use crate::policy::secrets::{FoundSegments, SecretSegments};

/// The text in place of a masked value.
const MASKED: &str = "***";

/// The default value of the setting `log.mask`.
pub(crate) const MASK: [&str; 25] = [
    "authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "password",
    "token",
    "secret",
    "api_key",
    "ssn",
    "session",
    "sid",
    "jsessionid",
    "sig",
    "signature",
    "jwt",
    "otp",
    "pwd",
    "pass",
    "pin",
    "auth",
    "credential",
    "credentials",
    "csrf",
    "code",
    "state",
];

/// Bytes of targets that need no masking: a target of only these has no parameters, no escapes that could hide one, and
/// no bytes that JSON escapes.
static PLAIN: [bool; 256] = plain(b"=:%\"'\\<>[]{}");

/// The secrets of a target: their names in the form of [`bare`], and the path segments that are secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secrets<'a> {
    /// Names of secret parameters, also searched for within values.
    pub names: &'a [String],
    /// Path segments that a route template gives a secret name.
    pub segments: &'a SecretSegments,
}

/// Masks the values of secrets in a target: of parameters in its query and its path (`;token=...`), and of path
/// segments with a secret name in a route template.
///
/// Names are compared decoded, ignoring case and all characters but letters and digits. A name that contains a listed
/// one (`accessToken2` contains `token`) is secret too. A value that contains a secret itself (`{"token":"..."}`,
/// `/login?token=...`, `Bearer ...`) is masked as a whole. A borrowed result needs no JSON escapes.
#[inline(always)]
pub(crate) fn masked<'t>(target: &'t str, secrets: Secrets<'_>) -> Cow<'t, str> {
    if secrets.segments.are_none() && is_plain(target.as_bytes(), &PLAIN) {
        return Cow::Borrowed(target);
    }
    // The parts are passed separately: passing `secrets` as one would force it into memory.
    Cow::Owned(without(target, secrets.names, secrets.segments))
}

#[inline(never)]
fn without(target: &str, names: &[String], segments: &SecretSegments) -> String {
    let target = printable(target);
    let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
    let mut text = String::with_capacity(target.len());
    match segments.find(path) {
        FoundSegments::Somewhere => {
            text.push('/');
            text.push_str(MASKED);
        }
        FoundSegments::These(secrets) => {
            for (at, segment) in path.split('/').enumerate() {
                if at > 0 {
                    text.push('/');
                }
                // The text before the first slash is empty and no segment.
                if secrets.iter().any(|secret| secret + 1 == at) {
                    text.push_str(MASKED);
                } else {
                    parameters(&mut text, segment, ';', names);
                }
            }
        }
    }
    if let Some(query) = query {
        text.push('?');
        parameters(&mut text, query, '&', names);
    }
    text
}

/// Percent-encodes unprintable characters. A target may contain C1 controls, which terminals obey, and format
/// characters, which reorder the text after them.
fn printable(target: &str) -> Cow<'_, str> {
    if !target.contains(is_unprintable) {
        return Cow::Borrowed(target);
    }
    let mut text = String::with_capacity(target.len());
    for c in target.chars() {
        if is_unprintable(c) {
            // Writing to a string cannot fail.
            let _ = c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(text, "%{byte:02X}"));
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

fn parameters(text: &mut String, all: &str, separator: char, names: &[String]) {
    let of_query = all.split(separator).filter_map(|pair| Some(decoded(pair.split_once('=')?.0)));
    let together = separator == '&' && names.iter().any(|name| name == BOTH) && {
        let of_query: Vec<Vec<u8>> = of_query.collect();
        are_together(of_query.iter().map(Vec::as_slice), names)
    };
    let is_one = |name: &[u8]| together && TOGETHER.iter().any(|known| is_named(name, known));
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
        let secret = value.is_some() && {
            let name = decoded(name);
            is_secret(&name, names) || is_one(&name)
        };
        let secret = secret || tells(&decoded(content), names);
        text.push_str(if secret { MASKED } else { content });
    }
}

/// Percent-decodes up to twice, because links inside links are encoded twice.
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

/// Reduces a name to its letters and digits in lower case, for comparison.
pub(crate) fn bare(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Minimum length of names that are searched for anywhere. Shorter ones must be whole words: `ssn` is no secret in
/// `classname`.
const SHORTEST_PART: usize = 5;
/// Longer names that must be whole words too: `session` is no secret in `possession` and `sessions`.
const WORDS: [&[u8]; 4] = [b"session", b"signature", b"credential", b"credentials"];

/// Names that are secret if both occur in one query, which is the response of an authorization server (RFC 6749 4.1.2).
/// Many apps use each of them alone for something else.
pub(crate) const TOGETHER: [&str; 2] = ["code", "state"];
/// The entry of a list of names that stands for both. No parameter can have this name.
pub(crate) const BOTH: &str = "code+state";

/// Returns whether a parameter has this name, with or without brackets: PHP and Rails also read `state[]` as `state`.
fn is_named(name: &[u8], wanted: &str) -> bool {
    let plain = name.split(|byte| *byte == b'[').next().unwrap_or(name);
    plain.eq_ignore_ascii_case(wanted.as_bytes())
}

/// Returns whether the names that are secret together all occur among these.
fn are_together<'n>(mut names: impl Iterator<Item = &'n [u8]> + Clone, listed: &[String]) -> bool {
    listed.iter().any(|name| name == BOTH)
        && TOGETHER.iter().all(|wanted| {
            let mut names = names.by_ref().clone();
            names.any(|name| is_named(name, wanted))
        })
}

/// Returns whether a name equals or contains a listed one: `access_token`, `passwordConfirm`, `user[api-key][]`.
pub(crate) fn is_secret(name: &[u8], names: &[String]) -> bool {
    let letters: Vec<u8> =
        name.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect();
    names.iter().map(String::as_bytes).filter(|secret| !secret.is_empty()).any(|secret| {
        letters == secret
            || if secret.len() < SHORTEST_PART || WORDS.contains(&secret) {
                (0..name.len()).any(|at| is_word(name, at, secret))
            } else {
                letters.windows(secret.len()).any(|part| part == secret)
            }
    })
}

/// Returns whether `word` stands at this position as a word of its own: `user_ssn`, `userSsn`, `ssn2`.
fn is_word(name: &[u8], at: usize, word: &[u8]) -> bool {
    let (before, rest) = name.split_at(at);
    let Some((found, after)) = rest.split_at_checked(word.len()) else { return false };
    let begins = before.last().is_none_or(|last| {
        !last.is_ascii_alphabetic()
            || last.is_ascii_lowercase() && found.first().is_some_and(u8::is_ascii_uppercase)
    });
    // Ignores a suffix `id`, as in `sessionid`.
    let after = match after.get(..2) {
        Some(id) if id.eq_ignore_ascii_case(b"id") => &after[2..],
        _ => after,
    };
    let ends = after.first().is_none_or(|next| {
        !next.is_ascii_alphabetic()
            || next.is_ascii_uppercase() && found.last().is_some_and(u8::is_ascii_lowercase)
    });
    begins && ends && found.eq_ignore_ascii_case(word)
}

/// Returns whether a value contains a secret: a secret name in a value with names (`"token": "..."`, `token=...`,
/// `<token>`), letters written as `\u` escapes, credentials (RFC 9110 11.4), or a URL with a password.
fn tells(value: &[u8], names: &[String]) -> bool {
    let text = value.trim_ascii_start();
    let scheme = |scheme: &[u8]| {
        text.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
            && text.get(scheme.len()).is_some_and(|next| matches!(next, b' ' | b'+'))
    };
    if scheme(b"bearer") || scheme(b"basic") || has_password(value) {
        return true;
    }
    let has_names = value.iter().any(|byte| matches!(byte, b':' | b'=' | b'<' | b'{' | b'[' | b'"' | b'\''));
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let said = || value.split(|byte: &u8| !is_of_name(byte));
    has_names
        && (value.windows(2).any(|two| two == b"\\u")
            || said().any(|name| is_secret(name, names))
            || are_together(said(), names))
}

/// Returns whether a value contains a URL such as `scheme://user:password@host`.
fn has_password(value: &[u8]) -> bool {
    let starts = value.windows(3).enumerate().filter(|(_, three)| *three == b"://").map(|(at, _)| at + 3);
    starts.map(|at| &value[at..]).any(|rest| {
        let authority = rest.split(|byte| matches!(byte, b'/' | b'?' | b'#')).next().unwrap_or(rest);
        let user = authority.iter().rposition(|byte| *byte == b'@').map(|at| &authority[..at]);
        user.is_some_and(|user| user.contains(&b':'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::sync::Arc;

    use super::*;
    use crate::policy::secrets::{NO_SECRET_SEGMENTS, SecretPaths};
    use crate::policy::template::Template;

    #[test]
    fn secrets_are_masked_however_they_are_spelt() {
        let names = ["token", "api_key", "ssn"].map(bare);
        for (target, shown) in [
            ("/a", "/a"),
            ("/a?x=1", "/a?x=1"),
            ("/a?token=s3cret&x=1", "/a?token=***&x=1"),
            ("/a?x=1&TOKEN=s3cret", "/a?x=1&TOKEN=***"),
            ("/a?%74oken=s3cret", "/a?%74oken=***"),
            ("/a?api%5fkey=s3cret=more", "/a?api%5fkey=***"),
            ("/a?token", "/a?token"),
            ("/a?access_token=x&tokens=3&total=3", "/a?access_token=***&tokens=***&total=3"),
            ("/\u{9b}31mx", "/%C2%9B31mx"),
            ("/a;token=s3cret/b;v=2?x=1", "/a;token=***/b;v=2?x=1"),
            (r#"/a?q={"token":"s3cret"}&x=1"#, "/a?q=***&x=1"),
            ("/a?q=%7B%22Access_Token%22%20:%20%22s3cret%22%7D", "/a?q=***"),
            (r#"/a?{"token":"s3cret"}"#, "/a?***"),
            (r#"/a?q={\"token\":\"s3cret\"}"#, "/a?q=***"),
            ("/a?next=/in%3Ftoken%3Ds3cret", "/a?next=***"),
            ("/a?next=%252Fin%253Ftoken%253Ds3cret", "/a?next=***"),
            (r#"/a?q={"totals":3}"#, r#"/a?q={"totals":3}"#),
            (
                "/a?accessToken=x&user[token]=y&a.token=z&ptoken=1",
                "/a?accessToken=***&user[token]=***&a.token=***&ptoken=***",
            ),
            (
                "/a?token[]=x&u[token][]=y&token%5B0%5D=z&token+=w",
                "/a?token[]=***&u[token][]=***&token%5B0%5D=***&token+=***",
            ),
            (
                "/a?apikey=x&xApiKey=y&api.key=z&api-key2=w",
                "/a?apikey=***&xApiKey=***&api.key=***&api-key2=***",
            ),
            ("/a?tokenConfirm=x&csrftoken=y&token%00=z", "/a?tokenConfirm=***&csrftoken=***&token%00=***"),
            (
                "/a?ssn=1&userSsn=2&ssn_2=3&classname=4&assn=5",
                "/a?ssn=***&userSsn=***&ssn_2=***&classname=4&assn=5",
            ),
            ("/a?d=Bearer%20s3cret&e=basic+s3cret&f=bearer", "/a?d=***&e=***&f=bearer"),
            ("/a?u=http://me:s3cret@h/&v=http://me@h:80/", "/a?u=***&v=http://me@h:80/"),
            ("/a?x=<token>s3cret</token>&y=<b>1</b>", "/a?x=***&y=<b>1</b>"),
            (r#"/a?x={"to\u006ben":"s3cret"}&y={"name":"token","value":"s3cret"}"#, "/a?x=***&y=***"),
            (r#"/a?x=["token","s3cret"]"#, "/a?x=***"),
            ("/a?q=forgot+my+token", "/a?q=forgot+my+token"),
            ("/a?t=12:30&u=%zz%", "/a?t=12:30&u=%zz%"),
        ] {
            assert_eq!(masked(target, Secrets { names: &names, segments: &NO_SECRET_SEGMENTS }), shown);
        }
    }

    #[test]
    fn n3_12_words_of_sessions_and_logins_are_masked() {
        let listed = [
            "session",
            "sid",
            "jsessionid",
            "sig",
            "signature",
            "jwt",
            "otp",
            "pwd",
            "pass",
            "pin",
            "auth",
            "credential",
            "credentials",
            "csrf",
        ];
        let names: Vec<String> = listed.map(bare).into_iter().chain([BOTH.to_owned()]).collect();
        for (target, shown) in [
            (
                "/a?session=1&sessionid=2&session_id=3&PHPSESSION=4&userSession=5",
                "/a?session=***&sessionid=***&session_id=***&PHPSESSION=4&userSession=***",
            ),
            ("/a?sessions=3&possession=4&sessionless=5", "/a?sessions=3&possession=4&sessionless=5"),
            (
                "/a;jsessionid=1?sid=2&side=3&connect.sid=4",
                "/a;jsessionid=***?sid=***&side=3&connect.sid=***",
            ),
            (
                "/a?sig=1&X-Amz-Signature=2&sign=3&signatures=4",
                "/a?sig=***&X-Amz-Signature=***&sign=3&signatures=4",
            ),
            (
                "/a?jwt=1&otp=2&pwd=3&pass=4&pin=5&user_pin=6",
                "/a?jwt=***&otp=***&pwd=***&pass=***&pin=***&user_pin=***",
            ),
            (
                "/a?pins=1&passed=2&spin=3&passenger=4&option=5",
                "/a?pins=1&passed=2&spin=3&passenger=4&option=5",
            ),
            ("/a?auth=1&oauth=2&author=3&authKey=4", "/a?auth=***&oauth=2&author=3&authKey=***"),
            (
                "/a?X-Amz-Credential=1&credentials=2&csrf=3",
                "/a?X-Amz-Credential=***&credentials=***&csrf=***",
            ),
            ("/cb?code=1&state=2&x=3", "/cb?code=***&state=***&x=3"),
            ("/cb?STATE=2&x=3&c%6fde=1", "/cb?STATE=***&x=3&c%6fde=***"),
            ("/cb?code[]=1&state%5B%5D=2", "/cb?code[]=***&state%5B%5D=***"),
            ("/cb?code[x]=1&state=2", "/cb?code[x]=***&state=***"),
            ("/a?code=1&country=2", "/a?code=1&country=2"),
            ("/a?state=open", "/a?state=open"),
            ("/a?code=1&estate=2", "/a?code=1&estate=2"),
            ("/in?next=/cb%3Fcode%3D1%26state%3D2", "/in?next=***"),
            ("/in?next=/cb%3Fcode%3D1", "/in?next=/cb%3Fcode%3D1"),
        ] {
            assert_eq!(masked(target, Secrets { names: &names, segments: &NO_SECRET_SEGMENTS }), shown);
        }
    }

    #[test]
    fn segments_that_a_route_names_as_secrets_are_masked() {
        let template = Template::parse("/reset/{token}/**").expect("well-formed");
        let is_secret = |name: &str| name == "token";
        let paths = Arc::new(SecretPaths::new([&template], is_secret));
        let segments = SecretSegments::new(Some(&template), is_secret, &paths);
        for (target, shown) in [
            ("/reset/s3cret/now?a=b", "/reset/***/now?a=b"),
            ("/reset", "/reset"),
            ("/a/../reset/s3cret", "/***"),
            ("//reset/s3cret?a=b", "/***?a=b"),
            ("/reset%2Fs3cret", "/***"),
        ] {
            assert_eq!(masked(target, Secrets { names: &[], segments: &segments }), shown);
        }
    }

    proptest! {
        /// The value of a secret is masked in any surroundings.
        #[test]
        fn no_secret_gets_through(
            before in "(/[a-z;=%]{0,6}){1,3}\\?([a-z]{1,3}=[a-z%:=\"]{0,6}&){0,3}",
            name in "([a-z]{0,3}[-_.]?)?(t|%74|T|%54)(oken|OKEN|%6fken)(\\[[a-z0-9]?\\]|[a-z0-9]){0,2}",
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
            let names = ["token".to_owned()];
            let shown = masked(&target, Secrets { names: &names, segments: &NO_SECRET_SEGMENTS });
            prop_assert!(!shown.contains("S3CRET"), "{target} -> {shown}");
        }
    }
}
