//! Tests of `pillion check` on files as newcomers write them: it reports every problem at once, each with its key, its
//! line, a caret and the expected value. `${NAME}` comes from the environment.

mod cases;
mod connect;
mod diff;
mod effective;
mod permissions;
mod sections;

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use crate::harness::{self, Folder, binary, printed};

/// The output of `pillion check` for a file.
struct Checked {
    code: i32,
    said: String,
}

impl Checked {
    /// Asserts that every one of `parts` was printed.
    fn says(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(self.said.contains(part), "{part:?} is missing in:\n{}", self.said);
        }
        self
    }

    /// Asserts that the file was rejected with this number of problems.
    fn refused_with(&self, problems: usize) -> &Self {
        assert_eq!(self.code, 2, "{}", self.said);
        let plural = if problems == 1 { "" } else { "s" };
        self.says(&[&format!("{problems} problem{plural} in ")])
    }

    /// Asserts that `part` was not printed.
    fn lacks(&self, part: &str) -> &Self {
        assert!(!self.said.contains(part), "{part:?} is in:\n{}", self.said);
        self
    }

    fn fine(&self) -> &Self {
        assert_eq!(self.code, 0, "{}", self.said);
        self.says(&[": fine ("])
    }
}

fn check_with(config: &str, environment: &[(&str, &str)]) -> Checked {
    let folder = Folder::new();
    let file = folder.write("pillion.toml", config);
    let output = Command::new(binary())
        .arg("check")
        .arg(&file)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = printed(&said).replace(&folder.0.display().to_string(), "DIR");
    Checked { code: output.status.code().unwrap(), said }
}

fn check(config: &str) -> Checked {
    check_with(config, &[])
}

const UPSTREAM: &str = "[upstream]\nurl = \"http://127.0.0.1:3000\"\n";

#[test]
fn two_lines_are_a_whole_file() {
    check(UPSTREAM).fine();
}

#[test]
fn a_problem_is_shown_with_its_place_line_caret_and_remedy() {
    check(&format!("{UPSTREAM}retires = 3\n")).refused_with(1).says(&[
        "error: unknown key \"retires\" in [upstream]\n",
        " --> DIR/pillion.toml:3:1\n",
        "3 | retires = 3\n",
        "  | ^^^^^^^ did you mean \"retries\"?\n",
    ]);
}

#[test]
fn every_problem_of_a_file_is_shown_at_once_in_the_order_of_the_file() {
    let checked = check(
        "[server]\n\
         listne = [\"[::]:8080\"]\n\
         workers = \"many\"\n\
         header_timeout = \"10 parsecs\"\n\
         max_headers = 0\n\
         max_header_size = \"64KB\"\n\
         admin = \"0.0.0.0:9900\"\n\
         [upstream]\n\
         url = \"http//127.0.0.1\"\n\
         retries = -1\n\
         [[routes]]\n\
         match = \"get /x\"\n\
         [log]\n\
         format = \"xml\"\n\
         [servre]\n",
    );
    checked.refused_with(11).says(&["\"listen\"?", "a URL of an upstream: it has no scheme"]);
    let places = [
        "pillion.toml:2:1",
        "pillion.toml:3:11",
        "pillion.toml:4:18",
        "pillion.toml:5:15",
        "pillion.toml:6:19",
        "pillion.toml:7:9",
        "pillion.toml:9:7",
        "pillion.toml:10:11",
        "pillion.toml:12:9",
        "pillion.toml:14:10",
        "pillion.toml:15:2",
    ];
    let found: Vec<usize> =
        places.iter().map(|place| checked.said.find(&format!("{place}\n")).expect(place)).collect();
    assert!(found.is_sorted(), "{}", checked.said);
}

#[test]
fn what_is_wrong_is_told_without_secrets() {
    let checked = check(
        "[server]\nadmin_token = 53037\n[upstream]\nurl = \"http://me:S3CRET@h:1/x\"\n[identity]\nhash_key = \"S3CRET\"\n\
         [health]\nwebhook = \"https://me:S3CRET@h/x y\"\nwebhook_secret = [\"S3CRET\"]\n\
         [[routes]]\nmatch = \"GET /x\"\nset_request = { authorization = 53037, x-api-key = \"\\nS3CRET\" }\n",
    );
    assert!(checked.said.contains("7 problems"), "{}", checked.said);
    for told in ["S3CRET", "53037"] {
        assert!(!checked.said.contains(told), "{}", checked.said);
    }
    for (table, line) in [
        ("server", "admin-token = \"S3CRET\""),
        ("server", "admin_tokn = \"S3CRET\""),
        ("server", "whatever = \"S3CRET\""),
        ("server", "admin_token: \"S3CRET\""),
        ("server", "admin_token \"S3CRET\""),
        ("server", "admin_token = \"abc\"S3CRET\""),
        ("server", "admin_token = S3CRET"),
        ("server", "admin_token.value = \"S3CRET\""),
        ("server", "admin_token = \"\"\"\nS3CRET\\q\n\"\"\""),
        ("upstreams.a", "url = \"http://me:S3CRET#x@h:1\""),
        ("upstreams.a", "url = \"http://me:S3CRET/x@h:1\""),
        ("upstreams.a", "url = \"http://me:S3CRET x@h:1\""),
        ("health", "webhook = \"https://hooks.example/T0/S3CRET x\""),
    ] {
        let checked = check(&format!("{UPSTREAM}[{table}]\n{line}\n"));
        assert!(checked.said.contains("error: "), "{line}: {}", checked.said);
        assert!(!checked.said.contains("S3CRET"), "{line}: {}", checked.said);
    }
}

#[test]
fn each_mistake_names_what_was_expected() {
    for (lines, parts) in [
        ("[server]\nheader_timeout = 10\n", &["server.header_timeout is 10", "a duration like"][..]),
        ("[server]\nmax_body_size = \"1MB\"\n", &["\"1MB\"", "a size like"]),
        ("[server]\nlisten = true\n", &["server.listen", "an address, or a port"]),
        ("[server]\nredirect_https = \"maybe\"\n", &["\"maybe\"", "true or false"]),
        ("[server]\nmax_headers = 5000\n", &["server.max_headers is 5000", "8 to 1024"]),
        ("[server]\nadmin = \"0.0.0.0:9900\"\n", &["without a token", "server.admin_token"]),
        ("[log]\nformat = \"xml\"\n", &["expected one of \"auto\", \"json\", \"pretty\""]),
        ("[metrics]\nbuckets = [1, 0.5]\n", &["metrics.buckets", "each greater than the one before"]),
        ("[[routes]]\nmatch = \"/x\"\ndeny = 404\n", &["METHOD[,METHOD] [host]path-template"]),
        ("[[routes]]\nmatch = \"get /x\"\ndeny = 404\n", &["written in capitals: GET"]),
        ("[[routes]]\nmatch = \"GET /a/{id\"\ndeny = 404\n", &["a brace that is not closed"]),
        ("[[routes]]\nmatch = \"GET /{a}-{b}\"\ndeny = 404\n", &["a segment has one {name} at most"]),
        ("[[routes]]\nmatch = \"GET /*.css\"\ndeny = 404\n", &["a part of one is written {name}"]),
        ("[[routes]]\nmatch = \"GET /{a}/{a}\"\ndeny = 404\n", &["{a} is there twice"]),
        ("[[routes]]\nmatch = \"GET /**/a/**\"\ndeny = 404\n", &["\"**\" is there twice"]),
        (
            "[[routes]]\nmatch = \"GET /a\"\ndeny = 404\nrewrite = \"/b\"\n",
            &["one of rewrite, deny and redirect"],
        ),
        (
            "[[routes]]\nmatch = \"GET /b\"\nupstream = \"medai\"\n",
            &["no upstream \"medai\"", "add [upstreams.medai]"],
        ),
        ("[[routes]]\nmatch = \"GET /b\"\nwhen = {}\n", &["when without a condition"]),
        ("[[routes]]\nmatch = \"GET /b\"\nwhen = { query = { a = [] } }\n", &["has no value of \"a\""]),
        (
            "[[routes]]\nmatch = \"GET /b\"\nwhen = { query = \"a\" }\n",
            &["routes.when.query is", "names like"],
        ),
        ("[[routes]]\nmatch = \"GET /b\"\nwhen = { query = [\"a=b\"] }\n", &["not a name of a parameter"]),
        (
            "[[routes]]\nmatch = \"GET /b\"\nwhen = { query = [\"a\", \"a\"] }\n",
            &["\"a\" is twice in when.query"],
        ),
        ("[[routes]]\nmatch = \"GET /b\"\nwhen = { query = { a = 5 } }\n", &["a is a", "expected a string"]),
        (
            "[[routes]]\nmatch = \"GET /b\"\nwhen = { header = [\"cookie\"] }\n",
            &["when = { cookie = [\"NAME\"] }"],
        ),
        ("[[routes]]\nmatch = \"GET /b\"\nwhen = { header = [\"host\"] }\n", &["write the host in match"]),
        ("[[routes]]\nmatch = \"GET /b\"\nwhen = { header = [\"x_plan\"] }\n", &["write x-plan"]),
        ("[[routes]]\nmatch = \"GET /b\"\nwhen = { header = [\"x plan\"] }\n", &["not a field name"]),
        (
            "[[routes]]\nmatch = \"GET /b\"\nwhen = { header = [\"upgrade\"] }\n",
            &["belongs to one connection"],
        ),
        ("[[routes]]\nmatch = \"GET /b\"\nwhen = { cookie = [\"a=b\"] }\n", &["not a name of a cookie"]),
        (
            "[[routes]]\nmatch = \"GET /b\"\nwhen = { cookie = [\"a\"], not_cookie = [\"a\"] }\n",
            &["never holds"],
        ),
        (
            "[[routes]]\nmatch = \"GET /b\"\nwhen = { cookies = [\"a\"] }\n",
            &["unknown key \"cookies\" in [routes.when]", "cookie"],
        ),
        ("[[routes]]\nmatch = \"GET /b\"\nallow = []\n", &["allow is empty", "deny = 403"]),
        (
            "[[routes]]\nmatch = \"GET /b\"\nallow = [\"10.0.0.1/8\"]\n",
            &["allow holds \"10.0.0.1/8\"", "\"10.0.0.0/8\""],
        ),
        (
            "[[routes]]\nmatch = \"GET /b\"\nallow = [\"intern\"]\n",
            &["allow holds \"intern\"", "\"private\""],
        ),
        (
            "[[routes]]\nmatch = \"GET /b\"\nallow = [\"private\"]\ndeny = 404\n",
            &["a route with allow and deny"],
        ),
        ("[maintenance]\ndocument = \"down.exe\"\n", &["media type is not known", ".html"]),
        ("[maintenance]\ndocument = \"nowhere.html\"\n", &["nowhere.html cannot be read"]),
        ("[maintenance]\nexcept = [\"/x\"]\n", &["maintenance.except is \"/x\""]),
        ("[maintenance]\nallow = [\"x\"]\n", &["maintenance.allow holds \"x\""]),
        ("[[routes]]\nmatch = \"GET /b\"\nset_request = { content-length = \"5\" }\n", &["cannot be edited"]),
        ("[[routes]]\nmatch = \"GET /b\"\nset_request = { x = \"a\\r\\nb\" }\n", &["is not a field value"]),
        ("[[routes]]\nmatch = \"GET /b\"\nrewrite = \"/{nope}\"\n", &["{nope} is not in match"]),
        (
            "[[routes]]\nmatch = \"GET /b\"\nredirect = { to = \"/c\", status = 200 }\n",
            &["301, 302, 303, 307 or 308"],
        ),
        ("[[routes]]\ndeny = 404\n", &["the route has no match"]),
        ("[server]\ntrusted_proxies = [\"10.0.0.0/33\"]\n", &["\"private\" or a network"]),
        (
            "[upstream.tls]\nserver_name = \"a\"\n",
            &["without an https:// url", "write https://, or remove it"],
        ),
        ("[server.tls]\ncertificates = [{ cert = \"a\", key = \"b\" }]\n", &["cannot read DIR/a"]),
    ] {
        let checked = check(&format!("{UPSTREAM}{lines}"));
        assert_eq!(checked.code, 2, "{lines}\n{}", checked.said);
        checked.says(parts).says(&["pillion.toml:", "^"]);
    }
}

/// One mistake does not hide another one in the same section.
#[test]
fn mistakes_do_not_hide_each_other() {
    check(
        "[upstream]\nurl = \"ftp://x\"\nreplicas = [\"http://a:0\"]\nretries = 100000\n\
         [upstream.health]\npath = \"q\"\ninterval = \"0s\"\n",
    )
    .refused_with(5)
    .says(&[
        "ftp:// is not supported",
        "port 0",
        "upstream.retries is 100000",
        "health.path",
        "interval is zero",
    ]);
    check("[upstream]\nreplicas = [\"http://a:1\", \"http://a:1\"]\n[upstream.tls]\nca = \"missing.pem\"\n")
        .refused_with(3)
        .says(&["[upstream] has no url", "\"http://a:1\" is listed twice", "without an https:// url"]);
    check(&format!("{UPSTREAM}[[routes]]\nmatch = \"GET /a\"\nrewrite = \"/{{id}}\"\ndeny = 200\n"))
        .refused_with(3)
        .says(&["one of rewrite, deny and redirect", "{id} is not in match", "deny is 200"]);
    let redirect = "redirect = { to = \"ht tp://x/\", status = 200 }";
    check(&format!("{UPSTREAM}[[routes]]\nmatch = \"GET /a\"\n{redirect}\n"))
        .refused_with(2)
        .says(&["status is 200", "is not a scheme and a host"]);
    check(&format!("{UPSTREAM}[server]\nlisten = [\"127.0.0.1:80\", \"127.0.0.1:80\"]\n"))
        .refused_with(1)
        .says(&["server.listen is 127.0.0.1:80, which server.listen already uses", "pillion.toml:4:27\n"]);
    check(&format!("{UPSTREAM}[server]\nlisten = []\n"))
        .refused_with(1)
        .says(&["no address to listen on", "pillion.toml:4:10\n"]);
    check(&format!("{UPSTREAM}[[routes]]\nmatch = \"GET /a\"\nset_request = {{ \"a b\" = \"v\" }}\n"))
        .refused_with(1)
        .says(&["\"a b\" is not a field name", "pillion.toml:5:17\n"]);
}

#[test]
fn a_file_that_is_no_toml_is_shown_where_it_breaks_off() {
    check("[upstream\nurl = \"x\"\n").refused_with(1).says(&["pillion.toml:1:10", "1 | [upstream", "^"]);
    check(&format!("{UPSTREAM}url = \"x\"\n")).refused_with(1).says(&["duplicate key", "pillion.toml:3:1"]);
    check("").refused_with(1).says(&["no upstream", "run with --upstream URL"]);
    let missing = Command::new(binary()).args(["check", "/nowhere/pillion.toml"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(printed(&missing.stderr).contains("cannot read /nowhere/pillion.toml"));
}

#[test]
fn places_are_right_behind_letters_of_several_bytes_and_with_crlf() {
    check("[upstream] # häßlich\r\nurl = \"http://127.0.0.1:3000\"\r\nkeep_alive = \"4 x\" # é\r\n")
        .refused_with(1)
        .says(&[
            "pillion.toml:3:14\n",
            "3 | keep_alive = \"4 x\" # é\n",
            "  |              ^^^^^ expected a duration",
        ]);
    check("upstream = { url = \"http://127.0.0.1:3000\", x = \"é\", retires = 1 }\n")
        .refused_with(2)
        .says(&["pillion.toml:1:45\n", "pillion.toml:1:54\n"]);
}

#[test]
fn references_are_filled_from_the_environment() {
    let config = "[server]\n\
         listen = [\"${HOST:-127.0.0.1}:${PORT}\"]\n\
         max_connections = \"${MOST:-500}\"\n\
         redirect_https = \"${REDIRECT:-false}\"\n\
         [upstream]\n\
         url = \"http://127.0.0.1:3000\"\n\
         [[routes]]\n\
         match = \"GET /x\"\n\
         set_response = { x-plain = \"$${PORT}\" }\n";
    check_with(config, &[("PORT", "8081")]).fine();
    check_with(config, &[("PORT", "8081"), ("MOST", "7"), ("REDIRECT", "0")])
        .refused_with(1)
        .says(&["pillion.toml:4:18", "true or false"]);
    check_with(config, &[("PORT", "8081"), ("MOST", "7"), ("REDIRECT", "false"), ("HOST", "[::1]")]).fine();
    check(config).refused_with(1).says(&[
        "the environment variable PORT is not set",
        "pillion.toml:2:",
        "set it, or write ${PORT:-fallback}",
    ]);
    // A value from the environment is checked like a literal, and reported where it is referenced.
    let checked = check_with(config, &[("PORT", "8081"), ("MOST", "many")]);
    checked.refused_with(1).says(&[
        "pillion.toml:3:19",
        "max_connections = \"${MOST:-500}\"",
        "a whole number",
    ]);
    check_with(config, &[("PORT", "http")]).refused_with(1).says(&["pillion.toml:2:"]);
}

#[test]
fn an_environment_cannot_write_toml() {
    let config = "[upstream]\nurl = \"${APP}\"\n";
    check_with(config, &[("APP", "http://127.0.0.1:3000\"\nretries = \"x")])
        .refused_with(1)
        .says(&["pillion.toml:2:7", "is not a URL of an upstream"]);
}

#[test]
fn ten_thousand_routes_load_in_no_time() {
    let mut config = UPSTREAM.to_owned();
    for route in 0..10_000 {
        let folder = route % 7;
        write!(config, "[[routes]]\nmatch = \"GET /api/v{folder}/thing{route}/{{id}}/**\"\ndeny = 404\n")
            .unwrap();
    }
    let since = harness::now();
    check(&config).fine().says(&["routes: 10000"]);
    let took = since.elapsed();
    // The release build must need at most one second. This build is not optimized, and the machine may be busy.
    assert!(took < Duration::from_secs(5), "took {took:?}");
}
