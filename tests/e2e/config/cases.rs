//! Tests of `pillion test`: it runs cases as the proxy would treat them, and its failures say what was expected, what
//! came of it and why.

use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use crate::harness::origin::*;
use crate::harness::*;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// The output of `pillion test`.
struct Tested {
    code: i32,
    said: String,
}

fn test(folder: &Folder, args: &[&str]) -> Tested {
    let output =
        Command::new(binary()).arg("test").args(args).current_dir(&folder.0).env_clear().output().unwrap();
    let said = printed(&[output.stdout, output.stderr].concat());
    Tested { code: output.status.code().unwrap(), said }
}

/// Runs cases of a configuration.
fn cases_of(config: &str, cases: &str) -> Tested {
    let folder = Folder::new();
    folder.write("a.toml", format!("[upstream]\nurl = \"http://127.0.0.1:9\"\n{config}"));
    folder.write("a.test.toml", cases);
    test(&folder, &["a.test.toml"])
}

impl Tested {
    #[track_caller]
    fn says(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{}", self.said);
        for part in parts {
            assert!(self.said.contains(part), "{part:?} is missing in:\n{}", self.said);
        }
    }
}

/// The examples, without files of keys and of cases.
fn examples() -> Vec<String> {
    let files = std::fs::read_dir(EXAMPLES).unwrap().map(|file| file.unwrap().file_name());
    let names = files.filter_map(|name| Some(name.to_str()?.strip_suffix(".toml")?.to_owned()));
    names.filter(|name| !name.ends_with("-keys") && !name.ends_with(".test")).collect()
}

#[test]
fn every_example_has_four_cases_that_pass() {
    let files: Vec<String> = examples().iter().map(|name| format!("{EXAMPLES}/{name}.test.toml")).collect();
    assert!(files.len() >= 9, "{files:?}");
    let args: Vec<&str> = ["--format", "json"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let tested = test(&Folder::new(), &args);
    assert_eq!(tested.code, 0, "{}", tested.said);
    let document: Value = serde_json::from_str(&tested.said).unwrap();
    assert_eq!(document["files"].as_array().unwrap().len(), files.len());
    for file in document["files"].as_array().unwrap() {
        assert!(file["cases"].as_array().unwrap().len() >= 4, "{file}");
    }
}

#[test]
fn example_whose_scope_is_changed_fails_with_the_place_and_the_reason() {
    let folder = Folder::new();
    let example = std::fs::read_to_string(format!("{EXAMPLES}/clinic.toml")).unwrap();
    let changed = example
        .replace("scope = \"user\", tags = [\"patient\", ", "scope = \"shared\", tags = [\"patient\", ");
    assert_ne!(changed, example);
    folder.write("clinic.toml", changed);
    let cases = std::fs::read_to_string(format!("{EXAMPLES}/clinic.test.toml")).unwrap();
    folder.write("clinic.test.toml", &cases);
    let line = 1 + cases.lines().position(|line| line == "scope = \"user\"").unwrap();
    test(&folder, &["clinic.test.toml"]).says(
        1,
        &[
            "FAIL  each user has a copy of a patient's page",
            &format!("clinic.test.toml:{line}:9: scope\n"),
            "expected  \"user\"\n",
            "got       \"shared\"\n",
            "because   cache: scope shared: one copy for all\n",
            "FAIL  another user does not get that copy",
            "expected  another key than \"each user has a copy of a patient's page, under its tags\"",
        ],
    );
}

/// Runs one case with one expectation that fails.
#[track_caller]
fn fails(config: &str, case: &str, expect: &str, parts: &[&str]) {
    let cases = format!("[[case]]\nname = \"it\"\n{case}\n[case.expect]\n{expect}\n");
    cases_of(config, &cases).says(1, &[&["FAIL  it"], parts].concat());
}

const SHOP: &str = "[[routes]]\nmatch = \"* /admin/**\"\ndeny = 403\n[[routes]]\nmatch = \"GET /old/**\"\nrewrite = \"/new/**\"\n\
                    [[routes]]\nmatch = \"GET /shop/{id}\"\ncache = { ttl = \"1m\", scope = \"shared\", tags = [\"shop:{id}\"] }\n\
                    set_response = { x-by = \"shop\" }\nset_request = { x-to = \"shop\" }\n\
                    [[invalidate]]\non = \"* /shop/{id}\"\ntags = [\"shop:{id}\"]\n";

cases! { fails:
    route_of_another_path_is_told => SHOP, "request = \"GET /shop\"", "route = \"GET /shop/{id}\"",
        &["expected  \"GET /shop/{id}\"", "got       \"none\"", "route: not 3, GET /shop/{id}: another path"];
    route_that_does_not_exist_is_told => SHOP, "request = \"GET /shop/7\"", "route = \"GET /shop\"",
        &["got       \"GET /shop/{id}\"", "route: no route has match = \"GET /shop\"\n                    route: 3 of 3: GET /shop/{id}\n\n"];
    denied_request_is_no_success => SHOP, "request = \"GET /admin/x\"", "status = 200",
        &["expected  200", "got       403", "because   403: this path is not served", "refused: 403"];
    denied_request_reaches_no_upstream => SHOP, "request = \"GET /admin/x\"", "upstream = \"upstream\"",
        &["expected  \"upstream\"", "got       \"none\""];
    rewritten_path_is_told => SHOP, "request = \"GET /old/a?b=1\"", "upstream_path = \"/old/a?b=1\"",
        &["expected  \"/old/a?b=1\"", "got       \"/new/a?b=1\"", "rewritten: by /old/** to /new/a?b=1"];
    response_that_must_not_be_stored_is_told => SHOP,
        "request = \"GET /shop/7\"\nresponse = { headers = { cache-control = \"no-store\" } }", "cache = \"stored\"",
        &["expected  \"stored\"", "got       \"no-store\"", "because   no-store: the response has Cache-Control: no-store"];
    lifetime_of_the_route_is_told => SHOP, "request = \"GET /shop/7\"", "lifetime = \"5m\"",
        &["expected  \"5m\"", "got       \"1m\"", "lifetime: 60s, by the route"];
    lifetime_of_what_is_not_stored_is_none => SHOP,
        "request = \"GET /shop/7\"\nresponse = { status = 503 }", "lifetime = \"1m\"", &["got       \"none\""];
    tags_are_an_exact_set => SHOP, "request = \"GET /shop/7\"", "tags = [\"shop:7\", \"shop\"]",
        &["expected  [\"shop:7\", \"shop\"]", "got       [\"shop:7\"]", "tags: shop:7"];
    drops_are_an_exact_set => SHOP, "request = \"PUT /shop/7\"", "drops = [\"shop:7\"]",
        &["expected  [\"shop:7\"]", "got       [\"/shop/7\", \"shop:7\"]", "invalidates: its own path: /shop/7"];
    failed_write_drops_nothing => SHOP, "request = \"PUT /shop/7\"\nresponse = { status = 500 }",
        "drops = [\"/shop/7\", \"shop:7\"]", &["got       []"];
    scope_is_told => SHOP, "request = \"GET /x\"", "scope = \"user\"", &["got       \"auto\""];
    coding_that_is_not_accepted_is_told => SHOP,
        "request = \"GET /x\"\nresponse = { headers = { content-type = \"text/html\" }, size = \"9KiB\" }", "coding = \"br\"",
        &["expected  \"br\"", "got       \"not-asked\"", "coding: none: the client accepts none"];
    field_of_another_value_is_told => SHOP, "request = \"GET /shop/7\"", "headers = { x-by = \"stop\" }",
        &["expected  x-by: stop", "got       x-by: shop"];
    field_that_is_absent_is_told => SHOP, "request = \"GET /x\"", "headers = { x-by = true }",
        &["expected  a field x-by", "got       no field x-by"];
    field_for_the_upstream_is_told => SHOP, "request = \"GET /shop/7\"", "upstream_headers = { x-to = false }",
        &["expected  no field x-to", "got       x-to: shop"];
    request_that_is_refused_has_no_fields_for_the_upstream => SHOP, "request = \"GET /admin/x\"",
        "upstream_headers = { x-to = true }", &["got       no request to the upstream"];
    principal_is_told => SHOP, "request = \"GET /x\"\ntoken = \"ada\"", "principal = []",
        &["expected  []", "got       [\"header:authorization\"]"];
    tier_that_is_not_configured_is_told => SHOP, "request = \"GET /x\"", "tier = \"free\"",
        &["got       \"none\"", "limits: none: no tier is configured"];
    limit_that_is_spent_is_told => "[rate_limit.tiers.free.limits]\nall = { rate = \"1/min\", burst = 1 }\n",
        "request = \"GET /x\"\ntimes = 2", "status = 200",
        &["got       429", "limits: all: 1 in 60s, 1 at once"];
}

/// Runs one case whose expectations are met.
#[track_caller]
fn passes(config: &str, case: &str, expect: &str) {
    let cases = format!("[[case]]\nname = \"it\"\n{case}\n[case.expect]\n{expect}\n");
    cases_of(config, &cases).says(0, &["ok    it", "1 passed, 0 failed"]);
}

/// Tokens in a cookie, from an issuer whose keys are fetched; the plan is a claim.
const TOKENS: &str = "[identity]\nprincipal = [\"jwt:sub\"]\n[identity.jwt]\njwks_url = \"http://127.0.0.1:9/keys\"\ntoken = \"cookie:session\"\n\
                      [rate_limit]\ntier = [\"jwt:plan\"]\ndefault = \"free\"\n[rate_limit.tiers.free.limits]\nall = { rate = \"1/s\" }\n\
                      [rate_limit.tiers.pro.limits]\nall = { rate = \"9/s\" }\n\
                      [[routes]]\nmatch = \"GET /me\"\ncache = { ttl = \"1m\", scope = \"user\" }\n";
const RULES: &str = "[[routes]]\nmatch = \"* /v1/**\"\nrewrite = \"/v2/**\"\n\
                     [[invalidate]]\non = \"* /v2/cart/**\"\ntags = [\"cart\"]\nprincipal = true\n\
                     [[invalidate]]\non = \"* /v2/me/**\"\nprincipal = true\n\
                     [[invalidate]]\non = \"* /soft/{id}\"\ntags = [\"soft:{id}\"]\npaths = [\"/list/**\"]\nmode = \"soft\"\n\
                     [[invalidate]]\non = \"GET /logout\"\nprincipal = true\n\
                     [cache]\ngroups = true\n";
const IN_QUERY: &str =
    "[identity]\napi_key = \"query:k\"\n[rate_limit.tiers.free.limits]\nall = { rate = \"1/s\" }\n";
const IN_AUTHORIZATION: &str = "[identity]\napi_key = \"header:authorization\"\n[rate_limit.tiers.free.limits]\nall = { rate = \"1/s\" }\n";

cases! { passes:
    claims_name_the_principal_without_a_key => TOKENS, "request = \"GET /me\"\nclaims = { sub = \"ada\" }",
        "cache = \"stored\"\nprincipal = [\"jwt:sub\"]\ntier = \"free\"\nupstream_headers = { cookie = \"session=test\" }";
    claims_name_the_tier => TOKENS, "request = \"GET /me\"\nclaims = { sub = \"ada\", plan = \"pro\" }", "tier = \"pro\"";
    token_that_does_not_verify_stands_where_it_is_read => TOKENS, "request = \"GET /me\"\ntoken = \"a.b.c\"",
        "cache = \"token\"\nupstream_headers = { cookie = \"session=a.b.c\" }";
    token_of_a_plain_configuration_is_a_bearer => "", "request = \"GET /\"\ntoken = \"a\"",
        "upstream_headers = { authorization = \"Bearer a\" }";
    key_stands_in_the_query => IN_QUERY, "request = \"GET /?a=1\"\nkey = \"b\"", "upstream_path = \"/?a=1&k=b\"";
    key_stands_after_the_scheme => IN_AUTHORIZATION, "request = \"GET /\"\nkey = \"b\"",
        "upstream_headers = { authorization = \"Bearer b\" }";
    rule_of_the_principal_drops_only_its_copies => RULES, "request = \"POST /v2/cart\"\ntoken = \"ada\"",
        "drops = [\"/v2/cart\", \"cart of the principal\"]";
    rule_of_the_principal_drops_nothing_of_nobody => RULES, "request = \"POST /v2/cart\"", "drops = [\"/v2/cart\"]";
    rule_without_tags_drops_everything_of_the_principal => RULES, "request = \"POST /v2/me\"\ntoken = \"ada\"",
        "drops = [\"/v2/me\", \"everything of the principal\"]";
    rewritten_write_drops_the_path_of_the_upstream => RULES, "request = \"POST /v1/x\"", "drops = [\"/v2/x\"]";
    webdav_write_drops_trees => "", "request = \"MOVE /dav/a\"\nheaders = { destination = \"/dav/b\" }\nresponse = { status = 201, headers = { dav = \"1\" } }",
        "drops = [\"/dav/a\", \"/dav/a/**\", \"/dav/b/**\"]";
    soft_rule_drops_like_a_hard_one => RULES, "request = \"PUT /soft/7\"",
        "drops = [\"/soft/7\", \"soft:7\", \"/list/**\"]";
    read_that_a_rule_names_drops => RULES, "request = \"GET /logout\"\ntoken = \"ada\"", "drops = [\"everything of the principal\"]";
    other_read_drops_nothing => RULES, "request = \"GET /soft/7\"", "drops = []";
    response_names_further_paths_and_groups => RULES,
        "request = \"POST /a/b\"\nresponse = { status = 201, headers = { location = \"c\", content-location = \"http://elsewhere.example/d\", cache-group-invalidation = '\"g\"' } }",
        "drops = [\"/a/b\", \"/a/c\", 'group \"g\"']";
    redirect_to_a_login_drops_only_the_path => SHOP,
        "request = \"PUT /shop/7\"\nresponse = { status = 302, headers = { location = \"/login\" } }", "drops = [\"/shop/7\"]";
    trusted_proxy_names_the_client => "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n",
        "request = \"GET /\"\nclient = \"10.0.0.1\"\nheaders = { x-forwarded-for = \"192.0.2.7\", x-forwarded-proto = \"https\" }",
        "upstream_headers = { x-forwarded-for = \"192.0.2.7, 10.0.0.1\", x-forwarded-proto = \"https\" }";
    stranger_names_no_client => "", "request = \"GET /\"\nclient = \"192.0.2.1\"\nheaders = { x-forwarded-for = \"10.0.0.1\" }",
        "upstream_headers = { x-forwarded-for = \"192.0.2.1\" }";
    ambiguous_path_is_refused => "", "request = \"GET /a/%2e%2e/b\"", "status = 400\nroute = \"none\"\nupstream = \"none\"";
    head_is_no_reason_to_store => SHOP, "request = \"HEAD /x\"", "status = 200\ncoding = \"none\"";
}

#[test]
fn relations_between_keys_follow_key_and_vary() {
    let case = |name: &str, language: &str, vary: bool, expect: &str| {
        let vary = if vary { "vary = \"accept-language\", " } else { "" };
        format!(
            "[[case]]\nname = {name:?}\nrequest = \"GET /shop/7\"\nheaders = {{ accept-language = {language:?} }}\n\
             response = {{ headers = {{ {vary}x-a = \"b\" }} }}\n[case.expect]\n{expect}\n"
        )
    };
    let all = [
        case("en", "en", true, "cache = \"stored\""),
        case("en again", "en", true, "same_key_as = \"en\""),
        case("de", "de", true, "other_key_than = [\"en\", \"en again\"]"),
        case("plain en", "en", false, "cache = \"stored\""),
        case("plain de", "de", false, "same_key_as = \"plain en\""),
    ];
    cases_of(SHOP, &all.concat()).says(0, &["5 passed, 0 failed"]);
    let wrong = case("fr", "fr", true, "same_key_as = \"en\"");
    let parts = ["FAIL  fr", "expected  the key of \"en\"", "key: localhost/shop/7", "1 passed, 1 failed"];
    cases_of(SHOP, &(all[0].clone() + &wrong)).says(1, &parts);
    let wrong = case("fr", "en", true, "other_key_than = \"en\"");
    cases_of(SHOP, &(all[0].clone() + &wrong)).says(1, &["expected  another key than \"en\""]);
}

/// Runs a file of cases that is wrong.
#[track_caller]
fn is_refused(cases: &str, parts: &[&str]) {
    cases_of(SHOP, cases).says(2, parts);
}

cases! { is_refused:
    unknown_expectation_is_refused_with_its_place =>
        "[[case]]\nname = \"a\"\nrequest = \"GET /\"\n[case.expect]\nstatsu = 200\n",
        &["--> a.test.toml:5:1", "unknown key \"statsu\" in [case.expect]", "^^^^^^ did you mean \"status\"?"];
    unknown_key_of_a_case_is_refused =>
        "[[case]]\nname = \"a\"\nrequst = \"GET /\"\nrequest = \"GET /\"\nexpect = { status = 200 }\n",
        &["--> a.test.toml:3:1", "unknown key \"requst\" in [case]", "did you mean \"request\"?"];
    unknown_word_of_the_cache_is_refused =>
        "[[case]]\nname = \"a\"\nrequest = \"GET /\"\nexpect = { cache = \"no-stor\" }\n",
        &["case.expect.cache is \"no-stor\"", "did you mean \"no-store\"?"];
    request_without_a_method_is_refused =>
        "[[case]]\nname = \"a\"\nrequest = \"/\"\nexpect = { status = 200 }\n",
        &["--> a.test.toml:3:11", "case.request is \"/\"", "like \"GET /path?query\""];
    case_without_a_request_is_refused => "[[case]]\nname = \"a\"\nexpect = { status = 200 }\n", &["the case has no request"];
    case_without_expectations_is_refused => "[[case]]\nname = \"a\"\nrequest = \"GET /\"\n", &["the case expects nothing"];
    file_without_cases_is_refused => "[variables]\nA = \"b\"\n", &["the file has no case"];
    case_that_names_no_other_is_refused =>
        "[[case]]\nname = \"a\"\nrequest = \"GET /\"\nexpect = { same_key_as = \"b\" }\n", &["no case is named \"b\""];
    case_that_names_itself_is_refused =>
        "[[case]]\nname = \"a\"\nrequest = \"GET /\"\nexpect = { same_key_as = \"a\" }\n", &["same_key_as names its own case"];
    two_cases_of_one_name_are_refused =>
        "[[case]]\nname = \"a\"\nrequest = \"GET /\"\nexpect = { status = 200 }\n[[case]]\nname = \"a\"\nrequest = \"GET /b\"\nexpect = { status = 200 }\n",
        &["--> a.test.toml:6:8", "two cases are named \"a\""];
    moment_that_does_not_exist_is_refused =>
        "[[case]]\nname = \"a\"\nrequest = \"GET /\"\nnow = \"2026-02-30T00:00:00Z\"\nexpect = { status = 200 }\n",
        &["case.now is \"2026-02-30T00:00:00Z\"", "like \"2026-07-01T12:00:00Z\""];
    too_many_requests_are_refused =>
        "[[case]]\nname = \"a\"\nrequest = \"GET /\"\ntimes = 1001\nexpect = { status = 200 }\n", &["case.times is 1001", "expected 1 to 1000"];
    body_beside_size_is_refused =>
        "[[case]]\nname = \"a\"\nrequest = \"GET /\"\nresponse = { body = \"a\", size = \"1KiB\" }\nexpect = { status = 200 }\n",
        &["case.response.size stands beside body"];
    client_with_a_port_is_refused =>
        "[[case]]\nname = \"a\"\nrequest = \"GET /\"\nclient = \"192.0.2.1:80\"\nexpect = { status = 200 }\n", &["case.client is \"192.0.2.1:80\""];
    field_of_a_wrong_name_is_refused =>
        "[[case]]\nname = \"a\"\nrequest = \"GET /\"\nheaders = { \"x y\" = \"z\" }\nexpect = { status = 200 }\n", &["\"x y\" is not the name of a field"];
    status_that_does_not_exist_is_refused =>
        "[[case]]\nname = \"a\"\nrequest = \"GET /\"\nexpect = { status = 1000 }\n", &["case.expect.status is 1000"];
    key_that_nothing_reads_is_refused =>
        "[[case]]\nname = \"a\"\nrequest = \"GET /\"\nkey = \"k\"\nexpect = { status = 200 }\n", &["the configuration reads no API keys"];
    claims_that_nothing_verifies_are_refused =>
        "[[case]]\nname = \"a\"\nrequest = \"GET /\"\nclaims = { sub = \"a\" }\nexpect = { status = 200 }\n",
        &["--> a.test.toml:4:10", "the configuration verifies no tokens"];
    empty_expectations_are_refused => "[[case]]\nname = \"a\"\nrequest = \"GET /\"\nexpect = {}\n", &["the case expects nothing"];
    text_that_is_not_toml_is_refused => "[[case]\n", &["error: ", "--> a.test.toml:1:"];
}

#[test]
fn variables_of_the_file_stand_for_those_of_the_environment() {
    let config = "[[routes]]\nmatch = \"GET /a\"\nset_request = { x-secret = \"${SECRET}\" }\n";
    let case = "[[case]]\nname = \"a\"\nrequest = \"GET /a\"\n[case.expect]\nupstream_headers = { x-secret = \"${SECRET}\" }\n";
    cases_of(config, &format!("[variables]\nSECRET = \"s1\"\n{case}")).says(0, &["1 passed"]);
    cases_of(config, case).says(2, &["the environment variable SECRET is not set"]);
}

#[test]
fn moment_of_a_case_decides_what_has_expired() {
    let case = |name: &str, now: &str, expect: &str| {
        format!(
            "[[case]]\nname = {name:?}\nrequest = \"GET /x\"\nnow = {now:?}\n\
             response = {{ headers = {{ expires = \"Wed, 01 Jul 2026 12:00:00 GMT\" }} }}\nexpect = {{ {expect} }}\n"
        )
    };
    let before = case("before", "2026-07-01T11:59:00Z", "cache = \"stored\", lifetime = \"1m\"");
    let after = case("after", "2026-07-01T12:01:00Z", "cache = \"no-lifetime\"");
    cases_of("", &(before + &after)).says(0, &["2 passed"]);
}

#[test]
fn results_are_printed_for_programs_and_for_github() {
    let folder = Folder::new();
    folder.write("p.toml", "[upstream]\nurl = \"http://127.0.0.1:9\"\n");
    let good =
        "config = \"p.toml\"\n[[case]]\nname = \"good\"\nrequest = \"GET /\"\nexpect = { status = 200 }\n";
    let bad = "[[case]]\nname = \"bad\"\nrequest = \"GET /\"\nexpect = { status = 404 }\n";
    folder.write("c.toml", format!("{good}{bad}"));
    let tested = test(&folder, &["c.toml", "--format", "json"]);
    assert_eq!(tested.code, 1);
    let document: Value = serde_json::from_str(&tested.said).unwrap();
    let failure = &document["files"][0]["cases"][1]["failures"][0];
    assert_eq!((&document["passed"], &document["failed"]), (&1.into(), &1.into()));
    assert_eq!(
        (&failure["key"], &failure["line"], &failure["got"]),
        (&"status".into(), &9.into(), &"200".into())
    );
    let tested = test(&folder, &["c.toml", "--format", "github"]);
    tested.says(1, &["::error file=c.toml,line=9,col=21,endColumn=24::bad: status: expected 404, got 200"]);
    test(&folder, &["c.toml", "--only", "good"]).says(0, &["1 passed, 0 failed"]);
    test(&folder, &["c.toml", "--only", "nothing"])
        .says(2, &["no case has a name that contains \"nothing\""]);
    folder.write("pillion.test.toml", good.replace("good", "usual"));
    test(&folder, &[]).says(0, &["pillion.test.toml\n  ok    usual\n"]);
    test(&folder, &["absent.toml"]).says(2, &["cannot read absent.toml"]);
    folder.write("wrong.toml", "[upstream]\nurl = true\n");
    test(&folder, &["c.toml", "--config", "wrong.toml"]).says(2, &["wrong.toml:2:7"]);
    let tested = test(&folder, &["c.toml", "--config", "wrong.toml", "--format", "github"]);
    tested.says(2, &["::error file=wrong.toml,line=2"]);
}

/// The stand-in for the upstream is as good as one: the running proxy does what a case says.
#[test]
fn case_says_what_becomes_of_a_request() {
    for (fields, stored) in [
        (&["cache-control: max-age=60"][..], "stored"),
        (&["cache-control: no-store"], "no-store"),
        (&["cache-control: private"], "private"),
        (&["cache-control: max-age=60", "set-cookie: a=b"], "set-cookie"),
        (&["cache-control: max-age=60", "vary: *"], "vary"),
        (&["content-type: text/plain"], "no-lifetime"),
        (&["cache-control: max-age=60", "content-type: text/event-stream"], "endless"),
    ] {
        let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let app = Script::answering(move |_| {
            format!("HTTP/1.1 200 OK\r\n{lines}content-length: 5\r\n\r\nhello").into_bytes()
        });
        let folder = Arc::new(Folder::new());
        let pillion = Pillion::in_folder(
            folder.clone(),
            &format!("[upstream]\nurl = \"http://{}\"\n[cache]\ndebug_header = true\n", app.address),
        );
        let status = status_of(&get(&pillion, "/a"));
        let wanted = if stored == "stored" { "; stored".to_owned() } else { format!("detail={stored}") };
        assert!(status.contains(&wanted), "{fields:?}: {status}");
        let pairs: Vec<String> = fields
            .iter()
            .map(|field| field.split_once(": ").unwrap())
            .map(|(name, value)| format!("{name} = {value:?}"))
            .collect();
        let case = format!(
            "config = \"pillion.toml\"\n[[case]]\nname = \"a\"\nrequest = \"GET /a\"\nresponse = {{ headers = {{ {} }}, body = \"hello\" }}\n\
             expect = {{ cache = {stored:?} }}\n",
            pairs.join(", ")
        );
        folder.write("a.test.toml", case);
        test(&folder, &["a.test.toml"]).says(0, &["1 passed"]);
    }
}

/// The upstream of the running proxy gets the path and the fields that a case states.
#[test]
fn case_states_what_the_upstream_gets() {
    const NAMES: [&str; 8] = [
        "host",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-added",
        "x-kept",
        "x_user",
    ];
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let app = Script::answering(move |request| {
        let fields = NAMES.map(|name| request.field(name).map(str::to_owned));
        sender.lock().unwrap().send((request.line.clone(), fields)).unwrap();
        ok("hello")
    });
    for is_trusted in [false, true] {
        let folder = Arc::new(Folder::new());
        let config = Config::new(app.address)
            .route("GET /old/**", "rewrite = \"/new/**\"\n")
            .route("GET /new/**", "set_request = { x-added = \"yes\" }\n");
        let config = if is_trusted { config.server("trusted_proxies", ["127.0.0.1"]) } else { config };
        let pillion = config.start_in(folder.clone());
        let sent = ["x-forwarded-for: 192.0.2.7", "x-forwarded-proto: https", "x-kept: 1", "x_user: 2"];
        assert_eq!(ask(&pillion, "GET /old/a%2Cb?c=d", &sent).status, 200);
        let (line, fields) = receiver.recv().unwrap();
        let got: Vec<String> = NAMES
            .iter()
            .zip(&fields)
            .map(|(name, value)| match value {
                Some(value) => format!("{name} = {value:?}"),
                None => format!("{name} = false"),
            })
            .collect();
        let given: Vec<String> = sent
            .iter()
            .map(|field| field.split_once(": ").unwrap())
            .map(|(name, value)| format!("{name} = {value:?}"))
            .collect();
        let case = format!(
            "config = \"pillion.toml\"\n[[case]]\nname = \"a\"\nrequest = \"GET http://a.example/old/a%2Cb?c=d\"\n\
             headers = {{ {} }}\n[case.expect]\nupstream_path = {:?}\nupstream_headers = {{ {} }}\n",
            given.join(", "),
            line.split(' ').nth(1).unwrap(),
            got.join(", ")
        );
        folder.write("a.test.toml", case);
        test(&folder, &["a.test.toml"]).says(0, &["1 passed"]);
    }
}
