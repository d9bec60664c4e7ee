//! Tests of `pillion explain`: its output matches what happens to the request.

use std::process::Command;
use std::sync::Arc;

use crate::harness::origin::*;
use crate::harness::*;

fn explain(args: &[&str]) -> String {
    let output = Command::new(binary()).arg("explain").args(args).output().unwrap();
    assert!(output.status.success(), "{}", printed(&output.stderr));
    printed(&output.stdout)
}

const CLINIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/clinic.toml");
const SAAS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/saas.toml");

#[test]
fn the_route_and_why_not_the_earlier_ones() {
    let said = explain(&["-c", CLINIC, "GET", "/api/reports/visits", "-H", "Authorization: Bearer x"]);
    for part in [
        "route        6 of 6: GET /api/reports/{what}",
        "not 1, GET /api/patients/{id}/{what}: another path",
        "principal    the keyed hash of header:authorization",
        "cache        scope user",
        "key          localhost/api/reports/visits, of this principal",
        "tags         reports, report:visits",
        "lifetime     300s, by the route",
        "then stale for 60s while it is revalidated",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let said = explain(&["-c", CLINIC, "GET", "/api/reports/visits"]);
    assert!(said.contains("bypassed") && said.contains("none: the request carries none"), "{said}");
    let said = explain(&["-c", CLINIC, "POST", "/api/patients/7"]);
    assert!(said.contains("another method") && said.contains("none matches"), "{said}");
    let said = explain(&["-c", CLINIC, "GET", "/a/%2e%2e/b"]);
    assert!(said.contains("refused      400"), "{said}");
}

#[test]
fn conditions_that_hold_and_that_do_not_are_told() {
    let file = std::env::temp_dir().join(format!("pillion-when-{}.toml", std::process::id()));
    let text = "[upstream]\nurl = \"http://127.0.0.1:9\"\n\
                [[routes]]\nmatch = \"GET /a\"\nwhen = { header = { x-plan = \"pro\" } }\n\
                [[routes]]\nmatch = \"GET /a\"\nwhen = { query = [\"q\"], not_cookie = [\"sid\"] }\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let said = explain(&["-c", file, "GET", "/a?q=1"]);
    for part in [
        "route        2 of 2: GET /a",
        "its when holds: query q, not_cookie sid",
        "not 1, GET /a: its when does not hold: header x-plan",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let said = explain(&["-c", file, "GET", "/a?q=1", "-H", "Cookie: sid=1"]);
    assert!(said.contains("not 2, GET /a: its when does not hold: not_cookie sid"), "{said}");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn who_reads_no_further_makes_nothing_fail() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (args, code) in [
        (["explain", "-c", CLINIC, "GET", "/"].as_slice(), 0),
        (&["check", CLINIC], 0),
        (&["check", "/nowhere.toml"], 2),
        (&["run", "-c", "/nowhere.toml"], 1),
    ] {
        let status = Command::new(binary()).args(args).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn n5_7_a_purge_is_explained_as_it_is_answered() {
    let folder = Folder::new();
    let config = |purge_from: &str| {
        let text = format!(
            "[upstream]\nurl = \"http://127.0.0.1:1\"\n[cache]\npurge_from = [{purge_from}]\n\
             [[invalidate]]\non = \"* /**\"\ntags = [\"all\"]\n"
        );
        folder.write("pillion.toml", text).display().to_string()
    };
    let said = explain(&["-c", &config("\"127.0.0.0/8\""), "PURGE", "/a"]);
    assert!(said.contains("answered by Pillion") && !said.contains("all by"), "{said}");
    let said = explain(&["-c", &config(""), "PURGE", "/a"]);
    assert!(said.contains("a write") && said.contains("its own path") && !said.contains("all by"), "{said}");
}

#[test]
fn what_a_write_takes_away() {
    let said = explain(&["-c", CLINIC, "PUT", "http://clinic.example/api/patients/7/notes"]);
    assert!(said.contains("invalidates  its own path: /api/patients/7/notes"), "{said}");
    assert!(said.contains("patient:7, patients, visits, billing, reports"), "{said}");
    let said = explain(&["-c", CLINIC, "GET", "/api/patients/7"]);
    assert!(
        said.contains("a write here would invalidate its own path") && said.contains("patient:7, patients"),
        "{said}"
    );
}

#[test]
fn limits_and_codings() {
    let said = explain(&[
        "-c",
        SAAS,
        "POST",
        "/api/analysis",
        "-H",
        "x-api-key: demo-key",
        "-H",
        "accept-encoding: gzip, br",
    ]);
    for part in [
        "as api_key (demo), tier \"pro\"",
        "requests: 1000 in 60s, 100 at once",
        "it counts as 2",
        "at most 4 in flight",
        "coding       br",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let said = explain(&["-c", SAAS, "GET", "/", "-H", "x-api-key: wrong"]);
    assert!(said.contains("401: its API key is not listed"), "{said}");
    let said = explain(&["-c", SAAS, "GET", "/api/status"]);
    assert!(said.contains("limits = \"none\""), "{said}");
    let output =
        Command::new(binary()).args(["explain", "-c", SAAS, "GET", "/", "-H", "nonsense"]).output().unwrap();
    assert!(!output.status.success());
}

#[test]
fn what_it_says_is_what_becomes_of_a_request() {
    let origin = Origin::new();
    let folder = Arc::new(Folder::new());
    let text = format!(
        "[upstream]\nurl = \"http://{}\"\n[cache]\nenabled = true\n[[routes]]\nmatch = \"GET /gone/**\"\ndeny = 404\n\
         [[routes]]\nmatch = \"GET /no/**\"\ndeny = 403\n[[routes]]\nmatch = \"GET /a\"\ncache = {{ ttl = \"1m\" }}\n",
        origin.script.address
    );
    let pillion = Pillion::in_folder(folder.clone(), &text);
    let file = folder.path("pillion.toml");
    let long = format!("x-long: {}", "a".repeat(70_000));
    for (target, fields, content, said, status, why) in [
        ("/gone/x", vec![], "", "refused      404", 404, ""),
        ("/no/x", vec![], "", "refused      403", 403, ""),
        ("/a", vec!["host: a", "host: b"], "", "refused      400", 400, ""),
        ("/a", vec!["host: a b"], "", "refused      400", 400, ""),
        ("/a", vec!["host: a", &long], "", "refused      431", 431, ""),
        ("/a%00", vec!["host: a"], "", "refused      400", 400, ""),
        (
            "/a",
            vec!["host: a", "content-length: 4"],
            "abcd",
            "cache        bypassed: it has content",
            200,
            "content",
        ),
        (
            "/a",
            vec!["host: a", "transfer-encoding: chunked"],
            "1\r\na\r\n0\r\n\r\n",
            "bypassed: it has content",
            200,
            "content",
        ),
        ("/a", vec!["host: a", "cache-control: only-if-cached"], "", "says only-if-cached: 504 if", 504, ""),
        (
            "/a",
            vec!["host: a", "cache-control: no-cache"],
            "",
            "says no-cache: a stored response is revalidated",
            200,
            "",
        ),
        ("/a", vec!["host: a", "content-length: 4", "content-length: 5"], "", "refused      400", 400, ""),
    ] {
        let mut args = vec!["-c", file.to_str().unwrap(), "GET", target];
        fields.iter().for_each(|field| args.extend(["-H", field]));
        let told = explain(&args);
        assert!(told.contains(said), "{target} {fields:?}: {said}\n{told}");
        let fields = if fields.is_empty() { vec!["host: a"] } else { fields };
        let head = fields.join("\r\n");
        let request = format!("GET {target} HTTP/1.1\r\nconnection: close\r\n{head}\r\n\r\n{content}");
        let answer = exchange(pillion.http, &request);
        assert_eq!(answer.status, status, "{target} {fields:?}");
        if !why.is_empty() {
            pillion.access(why, |line| line["not_stored"] == why);
        }
    }
    let told = explain(&[
        "-c",
        file.to_str().unwrap(),
        "GET",
        "/a",
        "-H",
        "connection: upgrade",
        "-H",
        "upgrade: websocket",
    ]);
    assert!(told.contains("bypassed: the request asks for an upgrade to websocket"), "{told}");
    let told = explain(&["-c", file.to_str().unwrap(), "POST", "/a", "-H", "content-type: application/grpc"]);
    assert!(told.contains("a write, and bypassed: gRPC"), "{told}");
}

#[test]
fn what_is_stored_by_another_key_is_not_shown_and_verdicts_are_those_of_the_limits() {
    let origin = Origin::new();
    origin.says("/x", &["cache-control: max-age=60"]);
    let folder = Arc::new(Folder::new());
    folder.write("keys.toml", "");
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [upstream]\nurl = \"http://{}\"\n[rate_limit]\nkeys = \"keys.toml\"\nunlisted_keys = \"reject\"\n\
         [rate_limit.tiers.free.limits]\nrequests = {{ rate = \"9/h\" }}\n\
         [[routes]]\nmatch = \"GET /some\"\nconcurrency = 1\n",
        origin.script.address
    );
    let pillion = Pillion::in_folder(folder.clone(), &text);
    let (admin, file) = (pillion.admin.to_string(), folder.path("pillion.toml"));
    let asks = |url: &str, fields: &[&str]| {
        let mut args = vec!["-c", file.to_str().unwrap(), "--admin", &admin, "--live", "GET", url];
        fields.iter().for_each(|field| args.extend(["-H", field]));
        explain(&args)
    };
    for target in ["/x", "/x?a=1"] {
        exchange(
            pillion.http,
            &format!(
                "GET {target} HTTP/1.1\r\nhost: one\r\nconnection: close\r\nx-forwarded-for: 9.9.9.9\r\n\r\n"
            ),
        );
    }
    for (url, fields, stored) in [
        ("http://one/x", vec![], true),
        ("/x", vec!["host: ONE"], true),
        ("http://one/x?a=1", vec![], true),
        ("/x", vec![], false),
        ("/x", vec!["host: two"], false),
        ("https://one/x", vec![], false),
        ("http://one/x?a=2", vec![], false),
    ] {
        let told = asks(url, &fields);
        assert_eq!(
            told.matches("\"state\": \"fresh\"").count(),
            usize::from(stored),
            "{url} {fields:?}\n{told}"
        );
    }
    for (url, field, verdict) in [
        ("http://one/x", "x-forwarded-for: 9.9.9.9", "\"remaining\": 7"),
        ("http://one/x", "x-api-key: nobody's", "it would be refused: 401"),
        ("http://one/some", "x-forwarded-for: 9.9.9.9", "how many are in flight is not known"),
    ] {
        assert!(asks(url, &[field]).contains(verdict), "{url} {field}\n{}", asks(url, &[field]));
    }
}

#[test]
fn what_is_stored_of_others_is_not_shown_as_one_s_own() {
    let origin = Origin::new();
    for (key, known) in [("hash_key = \"0123456789abcdef\"\n", true), ("", false)] {
        let folder = Arc::new(Folder::new());
        let text = format!(
            "[upstream]\nurl = \"http://{}\"\n[identity]\nprincipal = [\"header:x-user\"]\n{key}\
             [rate_limit.tiers.free.limits]\nrequests = {{ rate = \"2/h\" }}\n\
             [[routes]]\nmatch = \"GET /mine\"\ncache = {{ ttl = \"1m\", scope = \"user\" }}\n",
            origin.script.address
        );
        let pillion = Pillion::in_folder(folder.clone(), &text);
        let (admin, file) = (pillion.admin.to_string(), folder.path("pillion.toml"));
        let asks = |user: &str| {
            let field = format!("x-user: {user}");
            explain(&[
                "-c",
                file.to_str().unwrap(),
                "--admin",
                &admin,
                "--live",
                "GET",
                "http://a.example/mine",
                "-H",
                &field,
            ])
        };
        assert!(
            asks("alice").contains("stored       nothing\n")
                && asks("alice").contains("it would be allowed now")
        );
        ask(&pillion, "GET /mine", &["x-user: alice"]);
        ask(&pillion, "GET /mine", &["x-user: alice"]);
        let line = pillion.access("hers", |line| line["cache"] == "hit");
        let (hers, his) = (asks("alice"), asks("bob"));
        assert!(hers.contains("it would be limited now, by requests"), "{hers}");
        let hash = line["principal"].as_str().unwrap();
        if known {
            assert!(hers.contains(&format!("header:x-user: {hash}")), "{hers}");
            assert!(
                hers.contains("\"hits\": 1") && hers.contains(&format!("\"principal\": \"{hash}\"")),
                "{hers}"
            );
            assert!(his.contains("stored       nothing for this request; 1 more under this URL"), "{his}");
        } else {
            for said in [hers, his] {
                assert!(
                    said.contains("1 under this URL; whether one is this principal's is not known"),
                    "{said}"
                );
            }
        }
    }
}

#[test]
fn a_running_pillion_is_asked_too() {
    let origin = Origin::new();
    origin.says("/a", &["cache-control: max-age=60"]);
    let folder = Arc::new(Folder::new());
    let text = format!(
        "[upstream]\nurl = \"http://{}\"\n[rate_limit.tiers.free.limits]\nrequests = {{ rate = \"10/h\" }}\n",
        origin.script.address
    );
    let pillion = Pillion::in_folder(folder.clone(), &text);
    get(&pillion, "/a");
    get(&pillion, "/a");
    let admin = pillion.admin.to_string();
    let file = folder.path("pillion.toml");
    let said =
        explain(&["-c", file.to_str().unwrap(), "--admin", &admin, "--live", "GET", "http://a.example/a"]);
    assert!(said.contains("stored       {") && said.contains("\"hits\": 1"), "{said}");
    assert!(said.contains("stands       {") && said.contains("\"remaining\": 8"), "{said}");
}

#[test]
fn secrets_that_a_route_names_stay_out_of_lines_also_where_it_rewrites_or_does_not_match() {
    let origin = Origin::new();
    origin.says("/q", &["cache-control: max-age=60"]);
    let pillion = pillion(
        &origin,
        "[[routes]]\nmatch = \"GET /v1/{token}/x\"\nrewrite = \"/x/{token}\"\n\
         [[routes]]\nmatch = \"GET /x/**\"\n[[routes]]\nmatch = \"GET /reset/{token}\"\n\
         [[routes]]\nmatch = \"POST /made/{token}\"\n[[routes]]\nmatch = \"GET example.com/only/{token}\"\n\
         [[routes]]\nmatch = \"* /moved/**\"\nrewrite = \"/**\"\n",
    );
    for path in [
        "/v1/S3CRET/x",
        "/reset/S3CRET",
        "/q?password=S3CRET",
        "/made/S3CRET",
        "/only/S3CRET",
        "/%6fnly/S3CRET/and",
        "/made%2fS3CRET",
        "/made/S3CRET%00",
        "/moved/reset/S3CRET",
    ] {
        get(&pillion, path);
    }
    pillion.access("the rewritten one", |line| line["path"] == "/v1/***/x");
    pillion.access("the other", |line| line["path"] == "/reset/***");
    pillion.access("of another method", |line| line["path"] == "/made/***");
    pillion.access("of another host", |line| line["path"] == "/only/***");
    pillion.access("spelt otherwise", |line| line["path"] == "/%6fnly/***/and");
    pillion.access("moved", |line| line["path"] == "/moved/reset/***");
    pillion.access("refused", |line| line["path"] == "/***" && line["status"] == 400);
    let stored = pillion.admin_get("/cache/lookup?url=/q").text();
    assert!(stored.contains("password=***"), "{stored}");
    assert!(!format!("{stored}{}", pillion.access_log()).contains("S3CRET"), "{}", pillion.access_log());
}

#[test]
fn every_line_says_why_and_for_whom() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        "[identity]\nprincipal = [\"header:x-user\"]\n[[routes]]\nmatch = \"GET /mine\"\ncache = { scope = \"user\", ttl = \"1m\" }\n",
    );
    // The reason why a response is not stored is logged for every request, not only for the first.
    let lines = |path: &'static str, count: usize| {
        eventually(path, || {
            let log = pillion.access_log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let lines: Vec<_> = lines.filter(|line| line["path"] == path).collect();
            (lines.len() == count).then_some(lines)
        })
    };
    (0..3).for_each(|_| drop(get(&pillion, "/other")));
    assert!(lines("/other", 3).iter().all(|line| line["not_stored"] == "no-lifetime"));
    for user in ["x-user: ann", "x-user: bob", "x-user: ann"] {
        ask(&pillion, "GET /mine", &[user]);
    }
    // Lines of different workers arrive in any order.
    let mine = lines("/mine", 3);
    let hit = mine.iter().find(|line| line["cache"] == "hit").unwrap();
    assert!(hit["not_stored"].is_null() && hit["principal"].as_str().unwrap().len() == 32, "{hit}");
    let same = mine.iter().filter(|line| line["principal"] == hit["principal"]).count();
    assert_eq!(same, 2, "two of one user, and one of another: {mine:?}");
    get(&pillion, "/mine?x");
    let nobody = lines("/mine?x", 1);
    assert_eq!((&nobody[0]["cache"], &nobody[0]["not_stored"]), (&"bypass".into(), &"nobody".into()));
    assert!(nobody[0]["principal"].is_null());
}

#[test]
fn the_log_says_why_an_answer_was_not_stored_and_what_the_limits_said() {
    let origin = Origin::new();
    origin.says("/private", &["cache-control: private, max-age=60"]);
    let pillion = pillion(&origin, "[rate_limit.tiers.free.limits]\nrequests = { rate = \"2/h\" }\n");
    get(&pillion, "/private");
    get(&pillion, "/other");
    get(&pillion, "/third");
    let line = |path: &str| pillion.access(path, |line| line["path"] == path);
    let stored = line("/private");
    assert_eq!((&stored["cache"], &stored["not_stored"]), (&"miss".into(), &"private".into()));
    assert_eq!((&stored["tier"], &stored["limit"]), (&"free".into(), &"allowed".into()));
    assert!(
        stored["caller"].as_str().unwrap().starts_with("ip:")
            && stored["first_byte_ms"].as_f64().unwrap() > 0.0
    );
    assert_eq!(line("/other")["not_stored"], "no-lifetime");
    let limited = line("/third");
    assert_eq!(
        (&limited["limit"], &limited["limits"], &limited["status"]),
        (&"limited".into(), &serde_json::json!(["requests"]), &429.into())
    );
}
