//! Files of another language that somebody gave to Pillion: told once, in place of what TOML says of each line.

/// Lines that are looked at.
const LINES: usize = 200;

/// Returns the language that a text is written in and the remedy, if the text has the marks of one.
pub(super) fn language(text: &str) -> Option<(&'static str, &'static str)> {
    let lines: Vec<&str> = text
        .lines()
        .take(LINES)
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let count = |fits: fn(&str) -> bool| lines.iter().filter(|line| fits(line)).count();
    // A table or an assignment: the text is TOML with a mistake in it.
    let toml =
        count(|line| line.starts_with('[') || line.split_once('=').is_some_and(|(key, _)| is_bare_key(key)));
    let nginx = count(|line| line.ends_with(';') || (line.ends_with('{') && opens_nginx(line)));
    let caddy = count(|line| opens_caddy(line) || is_directive(line));
    let yaml = count(|line| line == "---" || line.starts_with("- ") || is_mapping(line));
    let json = text.trim_start().starts_with('{');
    let max = nginx.max(caddy).max(yaml);
    if json && lines.iter().any(|line| line.starts_with('"')) {
        return Some(("JSON", "write it as TOML: [upstream] and below it url = \"http://127.0.0.1:3000\""));
    }
    if max == 0 || max <= toml {
        return None;
    }
    Some(if nginx == max {
        (
            "an nginx configuration",
            "write it as TOML; the guide \"Migration\" has what each directive becomes",
        )
    } else if caddy == max {
        ("a Caddyfile", "write it as TOML; the guide \"Migration\" has what each directive becomes")
    } else {
        ("YAML", "write key = \"value\" for key: value, and [table] for a key with an indented block")
    })
}

fn is_bare_key(key: &str) -> bool {
    let key = key.trim();
    !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'"'))
}

fn opens_nginx(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or("");
    matches!(word, "http" | "server" | "location" | "upstream" | "events" | "map" | "geo" | "types" | "if")
}

/// `example.com {`, `:8080 {` or `{`.
fn opens_caddy(line: &str) -> bool {
    let Some(site) = line.strip_suffix('{') else { return false };
    let site = site.trim();
    !opens_nginx(line) && !site.contains(['=', ';', '"']) && (site.is_empty() || site.contains(['.', ':']))
}

fn is_directive(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or("");
    !line.ends_with(';')
        && matches!(
            word,
            "reverse_proxy" | "encode" | "handle" | "handle_path" | "route" | "file_server" | "tls" | "redir"
        )
}

/// `key: value` or `key:`.
fn is_mapping(line: &str) -> bool {
    line.split_once(':').is_some_and(|(key, rest)| {
        is_bare_key(key) && (rest.is_empty() || rest.starts_with(' ')) && !line.ends_with(['{', ';'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_languages_are_told_and_toml_with_a_mistake_is_not() {
        for (text, wanted) in [
            ("upstream:\n  url: http://a\nroutes:\n  - match: GET /\n", Some("YAML")),
            (
                "server {\n  listen 80;\n  location / {\n    proxy_pass http://a;\n  }\n}\n",
                Some("an nginx configuration"),
            ),
            ("example.com {\n\treverse_proxy localhost:3000\n}\n", Some("a Caddyfile")),
            (":8080 {\n\tencode gzip\n\treverse_proxy localhost:3000\n}\n", Some("a Caddyfile")),
            ("{\n  \"upstream\": {\"url\": \"http://a\"}\n}\n", Some("JSON")),
            ("[upstream\nurl = \"http://a\"\n", None),
            ("[upstream]\nurl: \"http://a\"\n", None),
            ("[server]\nadmin_token: \"S\"\n", None),
            ("url = http://a\n", None),
            ("# nothing\n", None),
            ("x", None),
        ] {
            assert_eq!(language(text).map(|(language, _)| language), wanted, "{text}");
        }
    }
}
