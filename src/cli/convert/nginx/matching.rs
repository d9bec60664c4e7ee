//! How locations are matched, as paths of routes.

use super::read::Directive;

/// How a location is matched; nginx tries them in this order, and prefixes the longest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    Exact,
    FirmPrefix,
    Regex,
    Prefix,
}

/// A location in the order in which it is tried.
#[derive(Clone, Copy)]
pub(super) struct Location<'a> {
    pub directive: &'a Directive,
    pub form: Match,
    pub path: &'a str,
    /// The prefix to which a regular expression is narrowed: that of the location in which it is; "" for none.
    pub within: &'a str,
}

pub(super) fn matching(directive: &Directive) -> Location<'_> {
    let (form, path) = match (directive.arg(0), directive.arg(1)) {
        ("=", path) => (Match::Exact, path),
        ("^~", path) => (Match::FirmPrefix, path),
        ("~" | "~*", path) => (Match::Regex, path),
        (path, _) => (Match::Prefix, path),
    };
    Location { directive, form, path, within: "" }
}

impl<'a> Location<'a> {
    /// The place in the order in which nginx tries locations: exact ones, then firm prefixes and what is in them, regular
    /// expressions in the order of the file (a stable sort keeps it), and prefixes; the longest first.
    pub(super) fn order(&self, firm: &[&str]) -> (u8, std::cmp::Reverse<usize>) {
        let group = match self.form {
            Match::Exact => 0,
            Match::FirmPrefix => 1,
            Match::Prefix if self.is_inside(firm) => 1,
            Match::Regex => 2,
            Match::Prefix => 3,
        };
        let length = if self.form == Match::Regex { 0 } else { self.path.len() };
        (group, std::cmp::Reverse(length))
    }

    /// Returns whether the location is in one of these prefixes.
    pub(super) fn is_inside(&self, prefixes: &[&str]) -> bool {
        prefixes.iter().any(|prefix| self.path.starts_with(prefix))
    }

    /// The prefix of what is in it. What is in a regular expression is in no path.
    pub(super) fn begin(&self) -> &'a str {
        match self.form {
            Match::Regex => NOWHERE,
            _ => self.path,
        }
    }
}

/// A prefix that no path has.
const NOWHERE: &str = "\0";

/// The paths of the routes of a location.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Patterns {
    pub paths: Vec<String>,
    /// Paths that the location takes too, and that matter only where it keeps requests out.
    pub wider: Vec<String>,
    /// A remark on what the location matches otherwise.
    pub comment: Option<&'static str>,
    /// Whether it takes other cases of letters too, which no route does.
    pub any_case: bool,
}

/// Returns the paths of a location; `None` if they have no equivalent.
pub(super) fn patterns(location: &Location<'_>) -> Option<Patterns> {
    let path = location.path;
    let is_plain = location.form == Match::Regex || !path.contains(['*', '{', '}']);
    if location.within == NOWHERE || !is_plain {
        return None;
    }
    let prefix = || Patterns { paths: vec![format!("{path}**")], ..Patterns::default() };
    match location.form {
        Match::Exact => Some(Patterns { paths: vec![path.to_owned()], ..Patterns::default() }),
        Match::Regex => {
            let any_case = location.directive.arg(0) == "~*";
            let any_case = any_case && path.chars().any(|c| c.is_ascii_alphabetic());
            let (paths, wider) = of_regex(path)?;
            let (paths, more) = narrowed(&paths, location.within);
            let (mut wider, even) = narrowed(&wider, location.within);
            wider.extend(more.into_iter().chain(even));
            Some(Patterns { paths, wider, comment: None, any_case })
        }
        _ if path.ends_with('/') => Some(prefix()),
        _ => Some(Patterns {
            paths: vec![format!("{path}/**")],
            wider: vec![format!("{path}{{rest}}/**")],
            comment: Some("nginx takes longer names too, such as this one with letters behind it"),
            any_case: false,
        }),
    }
}

/// Returns the paths of a regular expression of the kinds that people write, and those that matter for guards alone: file
/// extensions (`\.(css|js)$`), and literal beginnings with alternatives (`^/(a|b)/`).
fn of_regex(regex: &str) -> Option<(Vec<String>, Vec<String>)> {
    if let Some(extensions) = regex.strip_prefix("\\.").and_then(|rest| rest.strip_suffix('$')) {
        let (extensions, rest) = alternatives(extensions)?;
        let is_plain = |text: &String| !text.contains('/') && !text.is_empty();
        if !rest.is_empty() || !extensions.iter().all(is_plain) {
            return None;
        }
        let of = |file: &str| extensions.iter().map(|extension| format!("/**/{file}.{extension}")).collect();
        return Some((of("{file}"), of("")));
    }
    let (begins, rest) = alternatives(regex.strip_prefix('^')?)?;
    if !begins.iter().all(|begin| begin.starts_with('/')) {
        return None;
    }
    let each = |paths: &dyn Fn(&str) -> Vec<String>| begins.iter().flat_map(|begin| paths(begin)).collect();
    let paths = match rest {
        "$" => each(&|begin| vec![begin.to_owned()]),
        "/?$" => each(&|begin| vec![begin.to_owned(), format!("{begin}/")]),
        "(/|$)" | "(?:/|$)" | "(/.*)?$" | "(?:/.*)?$" | "($|/)" => each(&|begin| vec![format!("{begin}/**")]),
        "" | ".*" | ".*$" | "(.*)" | "(.*)$" => each(&|begin| match begin.ends_with('/') {
            true => vec![format!("{begin}**")],
            false => vec![format!("{begin}/**"), format!("{begin}{{rest}}/**")],
        }),
        _ => return None,
    };
    Some((paths, Vec::new()))
}

/// Returns those of the paths that begin with a prefix, and those that matter for guards alone.
fn narrowed(paths: &[String], prefix: &str) -> (Vec<String>, Vec<String>) {
    if prefix.is_empty() {
        return (paths.to_vec(), Vec::new());
    }
    let (mut narrowed, mut wider) = (Vec::new(), Vec::new());
    for path in paths {
        match path.strip_prefix("/**/") {
            Some(file) if prefix.ends_with('/') => narrowed.push(format!("{prefix}**/{file}")),
            Some(file) => {
                narrowed.push(format!("{prefix}/**/{file}"));
                wider.push(format!("{prefix}{{rest}}/**/{file}"));
            }
            None if path.starts_with(prefix) => narrowed.push(path.clone()),
            None => {
                let begin = path.split(['*', '{']).next().unwrap_or("").trim_end_matches('/');
                // All in the prefix is matched.
                if path.ends_with("**") && prefix.starts_with(begin) {
                    let slash = if prefix.ends_with('/') { "" } else { "/" };
                    narrowed.push(format!("{prefix}{slash}**"));
                }
            }
        }
    }
    (narrowed, wider)
}

/// Maximum number of paths of one regular expression.
const MAX_PATHS: usize = 64;

/// Reads literal text with groups of literal alternatives from the beginning of a regular expression. Returns all texts
/// that it stands for, and the rest.
fn alternatives(regex: &str) -> Option<(Vec<String>, &str)> {
    let mut all = vec![String::new()];
    let mut rest = regex;
    loop {
        let (choices, after): (Vec<String>, &str) = if let Some(group) = rest.strip_prefix('(') {
            let group = group.strip_prefix("?:").unwrap_or(group);
            let Some((inner, after)) = group.split_once(')') else { break };
            let choices: Option<Vec<String>> = inner.split('|').map(literal).collect();
            match choices {
                Some(choices) if !after.starts_with(['?', '*', '+', '{']) => (choices, after),
                _ => break,
            }
        } else {
            let end = rest.find('(').unwrap_or(rest.len());
            let length = literal_length(&rest[..end]);
            if length == 0 {
                break;
            }
            (vec![literal(&rest[..length])?], &rest[length..])
        };
        all = all.iter().flat_map(|one| choices.iter().map(move |choice| format!("{one}{choice}"))).collect();
        if all.len() > MAX_PATHS {
            return None;
        }
        rest = after;
    }
    Some((all, rest))
}

/// Returns the length of the literal text at the beginning of a regular expression. A character that is repeated or
/// optional is not in it.
fn literal_length(regex: &str) -> usize {
    let mut length = 0;
    let mut chars = regex.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let end = match c {
            '\\' => match chars.next() {
                Some((next, escaped)) if !escaped.is_ascii_alphanumeric() => next + escaped.len_utf8(),
                _ => break,
            },
            c if is_literal(c) => at + c.len_utf8(),
            _ => break,
        };
        if regex[end..].starts_with(['?', '*', '+', '{']) {
            break;
        }
        length = end;
    }
    length
}

/// Characters that mean themselves in a regular expression and in a path of a route.
fn is_literal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '~' | '%' | '@' | ':' | ',' | '=' | '!' | '&')
}

/// Returns the text that a literal regular expression stands for.
fn literal(regex: &str) -> Option<String> {
    (literal_length(regex) == regex.len()).then(|| regex.replace('\\', ""))
}

/// Returns the target of a redirect of the route with `path`; `None` if it has another variable than the path.
pub(super) fn redirect(url: &str, path: &str) -> Option<String> {
    let to = match url.strip_suffix("$request_uri").or_else(|| url.strip_suffix("$uri")) {
        Some(base) => format!("{}{path}", base.strip_suffix('/').unwrap_or(base)),
        None => url.to_owned(),
    };
    (!to.contains('$') && !to.is_empty()).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_narrowed_to_a_prefix() {
        for (path, prefix, wanted) in [
            ("/**/{file}.sql", "/a/", Some("/a/**/{file}.sql")),
            ("/**/{file}.sql", "/a", Some("/a/**/{file}.sql")),
            ("/a/b/**", "/a/", Some("/a/b/**")),
            ("/a/**", "/a/b/", Some("/a/b/**")),
            ("/a{rest}/**", "/ab", Some("/ab/**")),
            ("/x/**", "/a/", None),
            ("/x", "/x/a/", None),
        ] {
            let (narrowed, _) = narrowed(&[path.to_owned()], prefix);
            assert_eq!(narrowed.first().map(String::as_str), wanted, "{path} {prefix}");
        }
    }

    #[test]
    fn regular_expressions_as_people_write_them_are_paths() {
        for (regex, wanted) in [
            (r"\.(css|js)$", Some(&["/**/{file}.css", "/**/{file}.js"][..])),
            (r"\.(?:png)$", Some(&["/**/{file}.png"])),
            (r"\.php$", Some(&["/**/{file}.php"])),
            (r"^/api/", Some(&["/api/**"])),
            (r"^/(a|b)/", Some(&["/a/**", "/b/**"])),
            (r"^/admin", Some(&["/admin/**", "/admin{rest}/**"])),
            (r"^/admin(/|$)", Some(&["/admin/**"])),
            (r"^/robots\.txt$", Some(&["/robots.txt"])),
            (r"^/v1/(?:users|items)$", Some(&["/v1/users", "/v1/items"])),
            (r"^/x(.*)$", Some(&["/x/**", "/x{rest}/**"])),
            (r"/\.(?!well-known)", None),
            (r"^/v[0-9]+/", None),
            (r"^/a?/", None),
            (r"^/(a|b)?/", None),
            (r"^/a+b", None),
            (r"\.(css|js)", None),
            (r"\.ph(p|tml)\d?$", None),
            (r"admin", None),
            (r"^/a.b$", None),
        ] {
            let paths = of_regex(regex).map(|(paths, _)| paths);
            assert_eq!(
                paths.as_deref(),
                wanted.map(|all| all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>()).as_deref(),
                "{regex}"
            );
        }
    }
}
