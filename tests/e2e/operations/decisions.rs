//! Tests of `pillion explain --request-id`: the latest decisions of the running process, whatever its log is set to.

use std::process::{Command, Output};

use crate::harness::wire::ask;
use crate::harness::*;

fn run(pillion: &Pillion, args: &[&str]) -> Output {
    let admin = pillion.admin.to_string();
    Command::new(binary()).args(["explain", "--admin", &admin]).args(args).output().unwrap()
}

/// Returns what the command says about the request that got this response.
#[track_caller]
fn explained(pillion: &Pillion, answer: &Answer) -> String {
    let id = answer.field("x-request-id").unwrap();
    eventually("the decision is kept", || {
        let output = run(pillion, &["--request-id", &id]);
        output.status.success().then(|| printed(&output.stdout))
    })
}

fn config(app: &Script, log: &str) -> Config {
    Config::new(app.address)
        .route("GET /stored/{id}", "cache = { ttl = \"1h\", scope = \"shared\" }")
        .route("GET /reset/{token}", "")
        .table("[log]", log)
}

/// Checks the explanation of the last of some requests.
fn explains(log: &str, paths: &[&str], expected: &[&str]) {
    let app = Script::answering(|request| match request.line.contains("/broken") {
        true => b"nonsense\r\n\r\n".to_vec(),
        false => ok("fine"),
    });
    let pillion = config(&app, log).start();
    let answers: Vec<Answer> = paths.iter().map(|path| pillion.get(path)).collect();
    let said = explained(&pillion, answers.last().unwrap());
    for line in expected {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(!said.contains("S3CRET") && !said.contains("127.0.0.1 "), "{said}");
}

cases! { explains:
    hit_of_a_log_that_is_off_is_explained => "access = \"off\"", &["/stored/1", "/stored/1?x=1", "/stored/1"], &[
        "request      GET /stored/1 over HTTP/1.1, completed 20",
        "route        /stored/{id}\n",
        "cache        hit: served from a fresh stored response\n",
        "upstream     not asked\n",
        "response     200, 4 bytes of content, in ",
    ];
    miss_is_explained_with_the_reason_why_it_was_not_stored => "format = \"json\"", &["/other"], &[
        "route        none matches\n",
        "cache        miss: no stored response fits the request\n",
        "not stored   no-lifetime: neither the response nor the route gives it a freshness lifetime\n",
        " responded after ",
    ];
    failure_is_explained_with_the_side_at_fault => "access = \"off\"", &["/broken"], &[
        "response     502, ",
        "; at fault: the upstream\n",
        " asked; failed",
    ];
    secrets_are_masked_as_in_the_log => "access = \"errors\"", &["/reset/S3CRET?password=S3CRET&x=1"], &[
        "request      GET /reset/***?password=***&x=1 over HTTP/1.1",
    ];
    log_that_is_sampled_leaves_the_decision_to_explain => "format = \"json\"\nsample = 0.0", &["/stored/1"], &["cache        miss: "];
}

#[test]
fn limit_is_explained_with_tier_and_names() {
    let app = Script::answering(|_| ok("fine"));
    let pillion = config(&app, "access = \"off\"")
        .limit("all", "requests", "rate = \"1/h\", burst = 1")
        .table("[rate_limit]", "default = \"all\"")
        .start();
    assert_eq!(pillion.get("/").status, 200);
    let refused = pillion.get("/");
    assert_eq!(refused.status, 429);
    let said = explained(&pillion, &refused);
    assert!(said.contains("limit        refused: beyond requests; tier all, caller ip:"), "{said}");
    assert!(said.contains("upstream     not asked\n"), "{said}");
}

#[test]
fn unknown_id_is_refused_and_says_where_to_look() {
    let app = Script::answering(|_| ok("fine"));
    let pillion = config(&app, "").start();
    let output = run(&pillion, &["--request-id", "0123456789abcdef0123456789abcdef"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let said = printed(&output.stderr);
    assert!(said.contains("is not among the latest decisions") && said.contains("access log"), "{said}");
    assert_eq!(pillion.admin_get("/explain?request_id=x%22%0a").status, 404);
    assert_eq!(pillion.admin_get("/explain").status, 400);
    for args in [&["--request-id", "x", "GET", "/"][..], &["--request-id", "x", "--live"], &["GET"], &[]] {
        assert_eq!(run(&pillion, args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn decisions_need_the_token_where_there_is_one() {
    let app = Script::answering(|_| ok("fine"));
    let pillion = config(&app, "").server("admin_token", "s3cret-token").start();
    let id = pillion.get("/stored/1").field("x-request-id").unwrap();
    assert_eq!(pillion.admin_get(&format!("/explain?request_id={id}")).status, 401);
    let document = eventually("the decision is kept", || {
        let line = format!("GET /explain?request_id={id}");
        Some(ask(pillion.admin, &line, "authorization: Bearer s3cret-token\r\n"))
            .filter(|it| it.status == 200)
    });
    let document = document.json();
    assert_eq!(
        (&document["request"]["request_id"], &document["request"]["cache"]),
        (&id.into(), &"miss".into())
    );
    assert!(document["request"].get("client").is_none(), "{document}");
    assert_eq!(run(&pillion, &["--request-id", "x"]).status.code(), Some(1));
}

#[test]
fn failures_are_kept_while_ordinary_requests_displace_each_other() {
    let app = Script::answering(|request| match request.line.contains("/broken") {
        true => b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n".to_vec(),
        false => ok("fine"),
    });
    let pillion = config(&app, "access = \"off\"").start();
    let broken = pillion.get("/broken");
    explained(&pillion, &broken);
    let mut client = connect(pillion.http);
    // At most a thousand of these are kept, and about a hundred in each second.
    let ids: Vec<String> = (0..1100)
        .map(|_| {
            std::io::Write::write_all(&mut client, b"GET /stored/1 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
            read_answer(&mut client).field("x-request-id").unwrap()
        })
        .collect();
    let is_lost = |id: &String| pillion.admin_get(&format!("/explain?request_id={id}")).status == 404;
    assert!(ids.iter().any(is_lost));
    let said = explained(&pillion, &broken);
    assert!(said.contains("response     500, 0 bytes of content"), "{said}");
}
