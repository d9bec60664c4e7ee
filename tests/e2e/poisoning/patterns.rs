//! Tests of `pillion check` for patterns, networks and methods that are probably mistakes.

use std::process::Command;

use crate::harness::{Folder, binary};

const UPSTREAM: &str = "[upstream]\nurl = \"http://127.0.0.1:1\"\n";

/// The output of `pillion check` for a file.
struct Checked {
    code: i32,
    said: String,
}

impl Checked {
    fn says(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(self.said.contains(part), "{part:?} is missing in:\n{}", self.said);
        }
        self
    }

    fn lacks(&self, part: &str) -> &Self {
        assert!(!self.said.contains(part), "{part:?} is in:\n{}", self.said);
        self
    }

    fn refused_with(&self, problems: usize) -> &Self {
        assert_eq!(self.code, 2, "{}", self.said);
        self.says(&[&format!("{problems} problem")])
    }

    fn fine(&self) -> &Self {
        assert_eq!(self.code, 0, "{}", self.said);
        self
    }
}

fn check(config: &str) -> Checked {
    let folder = Folder::new();
    let file = folder.write("pillion.toml", config);
    let output = Command::new(binary()).arg("check").arg(&file).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    Checked { code: output.status.code().unwrap(), said }
}

#[test]
fn n2_7_patterns_that_never_match_what_was_meant() {
    let route = |pattern: &str| format!("{UPSTREAM}[[routes]]\nmatch = \"{pattern}\"\n");
    for (pattern, said) in [
        ("GET /search?q=1", "\"?\" ends a path"),
        ("GET /a#top", "\"#\" ends a path"),
        ("GET /users/:id", "named in braces: {id}"),
        ("GET /:lang/x", "named in braces: {lang}"),
        ("GTE /a", "did you mean GET?"),
        ("PSOT /a", "did you mean POST?"),
        ("GET,DELTE /a", "did you mean DELETE?"),
    ] {
        check(&route(pattern)).refused_with(1).says(&[said, "^"]);
    }
    for pattern in ["GET /things:verb", "PURGE /a", "GET /caf\u{e9}/my files", "GET /a:b"] {
        let checked = check(&route(pattern));
        checked.fine();
        checked.lacks("warning");
    }
    check(&route("FROBNICATE /a")).fine().says(&["FROBNICATE is not a method in common use"]);
    let rule = |on: &str| format!("{UPSTREAM}[[invalidate]]\non = \"{on}\"\npaths = [\"/x\"]\n");
    check(&rule("PSOT /a")).refused_with(1).says(&["did you mean POST?"]);
    check(&rule("POST /a?b")).refused_with(1).says(&["\"?\" ends a path"]);
    check(&format!("{UPSTREAM}[[invalidate]]\non = \"POST /a\"\npaths = [\"/x?y\"]\n"))
        .refused_with(1)
        .says(&["\"?\" ends a path"]);
    check(&format!("{}rewrite = \"/x?y\"\n", route("GET /a"))).refused_with(1).says(&["\"?\" ends a path"]);
    check(&format!("{}redirect = {{ to = \"/x?y\" }}\n", route("GET /a"))).fine();
    for (net, said) in [
        ("10.1.2.3/8", &["bits behind its prefix", "\"10.0.0.0/8\"", "\"10.1.2.3/32\""][..]),
        ("fd00::1/8", &["bits behind its prefix", "\"fd00::/8\""]),
    ] {
        check(&format!("[server]\ntrusted_proxies = [\"{net}\"]\n{UPSTREAM}")).refused_with(1).says(said);
    }
    check(&format!("[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"10.1.2.3\", \"::1\"]\n{UPSTREAM}")).fine();
}

#[test]
fn n2_7_routes_that_are_never_reached() {
    for (above, below, hidden) in [
        ("GET /**", "GET /api/users", true),
        ("* /users/{id}", "GET /users/me", true),
        ("* *.example.com/**", "GET a.example.com/x", true),
        ("GET /a", "HEAD /a", true),
        ("GET /**", "POST /a", false),
        ("GET /users/me", "GET /users/{id}", false),
        ("* a.example.com/**", "GET /x", false),
    ] {
        let checked = check(&format!(
            "{UPSTREAM}[[routes]]\nmatch = \"{above}\"\ndeny = 404\n[[routes]]\nmatch = \"{below}\"\ndeny = 403\n"
        ));
        checked.fine();
        assert_eq!(
            checked.said.contains("route 2 is never reached"),
            hidden,
            "{above}, {below}: {}",
            checked.said
        );
    }
    for (above, below, hidden) in [
        ("", "when = { cookie = [\"a\"] }\n", true),
        ("when = { cookie = [\"a\"] }\n", "", false),
        ("when = { cookie = [\"a\"] }\n", "when = { cookie = [\"b\"] }\n", false),
        (
            "when = { query = { a = \"1\", b = \"2\" } }\n",
            "when = { query = { b = \"2\", a = \"1\" } }\n",
            true,
        ),
    ] {
        let checked = check(&format!(
            "{UPSTREAM}[[routes]]\nmatch = \"GET /a/**\"\n{above}[[routes]]\nmatch = \"GET /a/b\"\n{below}"
        ));
        checked.fine();
        assert_eq!(checked.said.contains("never reached"), hidden, "{above}, {below}: {}", checked.said);
    }
    let rewritten =
        "[[routes]]\nmatch = \"GET /**\"\nrewrite = \"/x/**\"\n[[routes]]\nmatch = \"GET /x/**\"\n";
    check(&format!("{UPSTREAM}{rewritten}")).fine().lacks("never reached");
}
