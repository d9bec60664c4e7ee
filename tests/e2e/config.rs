//! Tests of `pillion check` on files as newcomers write them: it reports every problem at once, each with its key, its
//! line, a caret and the expected value. `${NAME}` comes from the environment.

use crate::harness;

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Folder, binary, printed};

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
        ("[server]\nlisten = \"127.0.0.1:80\"\n", &["server.listen", "an array of strings"]),
        ("[server]\nredirect_https = \"maybe\"\n", &["\"maybe\"", "true or false"]),
        ("[server]\nmax_headers = 5000\n", &["server.max_headers is 5000", "8 to 1024"]),
        ("[server]\nadmin = \"0.0.0.0:9900\"\n", &["without a token", "server.admin_token"]),
        ("[log]\nformat = \"xml\"\n", &["expected one of \"auto\", \"json\", \"pretty\""]),
        ("[metrics]\nbuckets = [1, 0.5]\n", &["metrics.buckets", "each greater than the one before"]),
        ("[[routes]]\nmatch = \"/x\"\ndeny = 404\n", &["METHOD[,METHOD] [host]path-template"]),
        ("[[routes]]\nmatch = \"get /x\"\ndeny = 404\n", &["written in capitals: GET"]),
        ("[[routes]]\nmatch = \"GET /a/{id\"\ndeny = 404\n", &["{name} and ** stand for whole segments"]),
        ("[[routes]]\nmatch = \"GET /{a}/{a}\"\ndeny = 404\n", &["{a} is there twice"]),
        ("[[routes]]\nmatch = \"GET /**/a\"\ndeny = 404\n", &["can only be the last segment"]),
        (
            "[[routes]]\nmatch = \"GET /a\"\ndeny = 404\nrewrite = \"/b\"\n",
            &["one of rewrite, deny and redirect"],
        ),
        (
            "[[routes]]\nmatch = \"GET /b\"\nupstream = \"medai\"\n",
            &["no upstream \"medai\"", "add [upstreams.medai]"],
        ),
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
fn sections_of_later_versions_are_refused_and_yet_read() {
    check(&format!("{UPSTREAM}[redis]\n")).refused_with(1).says(&[
        "error: [redis] is not there yet",
        "pillion.toml:3:1\n",
        "remove it for now",
    ]);
    check(&format!("{UPSTREAM}[redis]\nrate_limi = true\n"))
        .refused_with(2)
        .says(&["unknown key \"rate_limi\" in [redis]", "did you mean \"rate_limit\"?"]);
}

#[test]
fn traces_go_to_a_url_and_are_a_share() {
    check(&format!("{UPSTREAM}[tracing]\nsample = 7\n")).refused_with(1).says(&["a share from 0.0 to 1.0"]);
    check(&format!("{UPSTREAM}[tracing]\notlp_endpoint = \"collector:4318\"\n"))
        .refused_with(1)
        .says(&["tracing.otlp_endpoint is \"collector:4318\", which is not a URL"]);
}

const TIER: &str = "[rate_limit.tiers.free.limits]\nrequests = { rate = \"10/min\", burst = 2 }\n";

#[test]
fn limits_are_checked() {
    check(&format!("{UPSTREAM}{TIER}")).fine();
    let wrong = "[rate_limit]
default = \"fre\"
key = [\"api_key\", \"session\"]
unlisted_keys = \"deny\"
tier = [\"keys\", \"header:x-plan\", \"plan\", \"jwt:plan\"]
headers = [\"old\"]
max_keys = 0
ipv6_prefix = 129
[rate_limit.tiers.free.limits]
none = { burst = 2 }
fast = { rate = \"1000001/s\" }
slow = { rate = \"1/d\", burst = 400 }
zero = { rate = \"1/s\", burst = 0 }
odd = { rate = \"1/week\" }
concurrency = { rate = \"1/s\" }
\"a b\" = { rate = \"1/s\" }
[identity]
api_key = \"cookie:key\"
";
    check(&format!("{UPSTREAM}{wrong}")).refused_with(17).says(&[
        "there is no tier \"fre\", which rate_limit.default names",
        "did you mean \"free\"?",
        "rate_limit.key has \"session\"",
        "rate_limit.unlisted_keys is \"deny\"",
        "a tier from \"header:x-plan\", and no trusted proxy",
        "rate_limit.tier has \"plan\"",
        "a claim of a token, and no key to verify the token",
        "rate_limit.headers has \"old\"",
        "expected 1 to 128",
        "free.limits.none has no rate",
        "a rate above the maximum",
        "a burst that takes more than a year to refill",
        "burst is 0",
        "a rate like \"20/s\"",
        "this one belongs to the cap on requests in flight",
        "\"a b\" is not a valid name of a limit",
        "identity.api_key is \"cookie:key\"",
    ]);
    check(&format!("{UPSTREAM}[rate_limit]\nenabled = true\n"))
        .refused_with(1)
        .says(&["there is no tier \"free\"", "write one: [rate_limit.tiers.free.limits]"]);
    check(&format!("{UPSTREAM}[rate_limit]\nenabled = false\n{TIER}")).says(&["no limit is applied"]);
}

#[test]
fn limits_of_routes_are_checked_against_tiers() {
    let route = |keys: &str| format!("{UPSTREAM}{TIER}[[routes]]\nmatch = \"GET /a\"\n{keys}\n");
    check(&route("cost = 2\nconcurrency = 4")).fine();
    check(&route("limits = \"none\"")).fine();
    for (keys, said) in [
        ("cost = 3", "more than the burst of 2 of \"requests\" in tier \"free\""),
        ("cost = 0", "limits = \"none\" exempts a route"),
        ("concurrency = 0", "expected 1 to 1000000"),
        ("limits = [\"request\"]", "did you mean \"requests\"?"),
        ("limits = \"all\"", "\"none\", or an array of names of limits"),
        ("deny = 404\ncost = 2", "limits on a route that sends nothing to an upstream"),
    ] {
        check(&route(keys)).refused_with(1).says(&[said]);
    }
    check(&format!("{UPSTREAM}[rate_limit.tiers.free.limits]\na = {{ rate = \"1/s\", on = \"named\" }}\n"))
        .says(&["limit \"a\" of tier \"free\" has no effect"]);
    check(&format!("{UPSTREAM}[[routes]]\nmatch = \"GET /a\"\ncost = 2\n")).says(&["have no effect"]);
}

#[test]
fn problems_of_the_file_of_keys_are_shown_in_its_lines() {
    let folder = Folder::new();
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let keys = format!(
        "[[keys]]\nsha256 = \"{digest}\"\ntier = \"pro\"\n[[keys]]\nsha256 = \"abc\"\ntier = \"free\"\n\
         [[keys]]\ntier = \"free\"\nname = 7\n"
    );
    let file = folder.write("keys.toml", keys);
    for line in ["sha256 = \"S3CRET\"", "key = \"S3CRET\""] {
        let plain = folder.write("plain.toml", format!("[[keys]]\n{line}\ntier = \"free\"\n"));
        let checked = check(&format!("{UPSTREAM}[rate_limit]\nkeys = \"{}\"\n{TIER}", plain.display()));
        assert!(
            checked.said.contains("plain.toml:2:") && !checked.said.contains("S3CRET"),
            "{}",
            checked.said
        );
    }
    let config = format!("{UPSTREAM}[rate_limit]\nkeys = \"{}\"\n{TIER}", file.display());
    check(&config).refused_with(4).says(&[
        "there is no tier \"pro\"",
        "keys.toml:3:8",
        "sha256 is not a SHA-256 hash",
        "the key has no sha256",
        "keys.name is 7",
        "pillion.toml names this file",
    ]);
    folder.write("keys.toml", format!("[[keys]]\nsha256 = \"{digest}\"\ntier = \"free\"\n").repeat(2));
    check(&config).refused_with(1).says(&["this key is listed twice"]);
    std::fs::remove_file(&file).unwrap();
    check(&config).refused_with(1).says(&["cannot be read", "`pillion keys add` makes it"]);
}

#[test]
fn representations_are_checked() {
    check(&format!(
        "{UPSTREAM}[compression]\ncodings = [\"brotli\", \"gzip\", \"gzip\", \"deflat\"]\n\
         types = [\"*/*\", \"text/*\"]\neffort = \"bst\"\nmin_size = \"1GiB\"\n[etag]\nmax_size = \"1GiB\"\n"
    ))
    .refused_with(7)
    .says(&[
        "compression.min_size is 1073741824 bytes",
        "its name in HTTP is \"br\": write that",
        "names \"gzip\" twice",
        "there is no coding \"deflat\"",
        "\"*/*\" is not a media type",
        "compression.effort is \"bst\"",
        "at most \"16MiB\"",
    ]);
    check(&format!(
        "{UPSTREAM}[compression]\nenabled = false\n[etag]\ngenerate = false\n\
         [[routes]]\nmatch = \"GET /a\"\ncompress = true\netag = false\nbrowser_ttl = \"1h\"\n"
    ))
    .fine();
}

#[test]
fn the_cache_is_checked() {
    check(&format!(
        "{UPSTREAM}[cache]\nmax_size = \"1KiB\"\ntargeted = [\"a b\"]\nenabld = true\n\
         [identity]\nprincipal = [\"heder:x\", \"jwt:sub\", \"cookie:\"]\nhash_key = \"short\"\n"
    ))
    .refused_with(7)
    .says(&[
        "cache.max_size is 1024 bytes",
        "\"a b\" is not a field name",
        "did you mean \"enabled\"?",
        "did you mean \"header\"?",
        "no key to verify the token",
        "\"cookie:\" is not a source of a principal",
        "identity.hash_key is too short",
    ]);
    let route =
        |cache: &str| format!("{UPSTREAM}[[routes]]\nmatch = \"GET /a/{{id}}\"\ncache = {{ {cache} }}\n");
    for (cache, said) in [
        ("tier = \"lng\"", "did you mean \"long\"?"),
        ("tier = \"long\", ttl = \"1m\"", "tier and ttl both set the lifetime"),
        ("scope = \"usr\"", "one of"),
        ("scope = \"off\", ttl = \"1m\"", "contradict each other"),
        ("override = \"lifetime\"", "override without a lifetime"),
        ("ttl_by_status = { 304 = \"1m\" }", "is not a status that can be stored"),
        ("ttl_by_status = { x = \"1m\" }", "is not a status that can be stored"),
        ("ttl = \"1m\", tags = [\"a:{x}\"]", "{x} is not in the path that is matched"),
        ("ttl = \"1m\", key_body = true", "methods have no content"),
    ] {
        check(&route(cache)).refused_with(1).says(&[said]);
    }
    check(&format!("{UPSTREAM}[identity]\nprincipal = []\n[[routes]]\nmatch = \"GET /a\"\ncache = {{ ttl = \"1m\", scope = \"user\" }}\n"))
        .refused_with(1)
        .says(&["scope \"user\" without a principal"]);
    check(&format!("{UPSTREAM}[[routes]]\nmatch = \"GET /a\"\ndeny = 404\ncache = {{ ttl = \"1m\" }}\n"))
        .refused_with(1)
        .says(&["cache on a route that sends nothing to an upstream"]);
    for (rule, said) in [
        ("tags = [\"a\"]", "the rule has no on"),
        ("on = \"POST /a\"", "a rule that invalidates nothing"),
        ("on = \"GET /a\"\ntags = [\"a\"]", "GET is a safe method"),
        ("on = \"POST /a\"\npaths = [\"/x/{y}\"]", "{y} is not in the path"),
        ("on = \"POST /a\"\ntags = [\"a\"]\nsettle = \"2h\"", "longer than an hour"),
    ] {
        check(&format!("{UPSTREAM}[[invalidate]]\n{rule}\n")).refused_with(1).says(&[said]);
    }
    check(&format!("{UPSTREAM}[[invalidate]]\non = \"POST /a\"\ntags = [\"nobody\"]\n"))
        .fine()
        .says(&["names no tag of any cached route"]);
}

#[test]
fn n1_6_an_ignored_cookie_that_says_who_asks_is_an_error_or_a_warning() {
    for (config, said) in [
        (
            "[identity]\nprincipal = [\"cookie:sid\"]\n[cache]\nignore_cookies = [\"s*\"]\n",
            "\"cookie:sid\" is ignored",
        ),
        ("[identity]\nprincipal = [\"cookie:_ga_user\"]\n", "\"cookie:_ga_user\" is ignored"),
        (
            "[identity]\nprincipal = [\"cookie:session\"]\n[cache]\nignore_cookies = [\"__Host-session\"]\n",
            "\"cookie:session\" is ignored",
        ),
        (
            "[identity.jwt]\nhs256 = \"\"\njwks_url = \"http://127.0.0.1:1/\"\ntoken = \"cookie:jwt\"\n[cache]\nignore_cookies = [\"*\"]\n",
            "\"cookie:jwt\" is ignored",
        ),
    ] {
        check(&format!("{UPSTREAM}{config}")).refused_with(1).says(&[said]);
    }
    // Two patterns that some name matches both of, although neither includes the other.
    for (principal, ignored) in
        [("foo_*", "foo_b*"), ("foo_*", "*_bc"), ("foo_*", "foo_ab"), ("*_auth", "_g*")]
    {
        let config = format!(
            "[identity]\nprincipal = [\"cookie:{principal}\"]\n[cache]\nignore_cookies = [\"{ignored}\"]\n"
        );
        let said = format!("\"cookie:{principal}\" is ignored");
        check(&format!("{UPSTREAM}{config}")).refused_with(1).says(&[&said]);
    }
    // The default ignored cookies match no cookie that a pattern of `principal` matches.
    check(&format!("{UPSTREAM}[identity]\nprincipal = [\"cookie:*_auth\"]\n")).fine().lacks("warning");
    for (ignored, said) in [
        ("*", "no cookie identifies a user"),
        ("connect.sid", "covers session cookies of frameworks"),
        ("laravel_session", "covers session cookies of frameworks"),
        ("sess*", "covers session cookies of frameworks"),
    ] {
        check(&format!("{UPSTREAM}[cache]\nignore_cookies = [\"{ignored}\"]\n")).fine().says(&[said]);
    }
    check(&format!("{UPSTREAM}[cache]\nignore_cookies = [\"_ga*\", \"ai_session\"]\n"))
        .fine()
        .lacks("warning");
}

#[test]
fn n1_4_a_lifetime_on_scope_auto_is_warned_of() {
    let route = |cache: &str| format!("{UPSTREAM}[[routes]]\nmatch = \"GET /a\"\ncache = {{ {cache} }}\n");
    for cache in ["ttl = \"1m\"", "tier = \"short\", scope = \"auto\"", "ttl_by_status = { 404 = \"1m\" }"] {
        check(&route(cache)).fine().says(&["route \"GET /a\" has a lifetime and scope \"auto\""]);
    }
    for cache in ["ttl = \"1m\", scope = \"shared\"", "ttl = \"1m\", scope = \"user\"", "tags = [\"a\"]"] {
        check(&route(cache)).fine().lacks("warning");
    }
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
