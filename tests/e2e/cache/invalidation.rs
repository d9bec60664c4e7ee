//! Tests of what a write invalidates: its target, tags and paths of rules, groups, and what its response names.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::operations::SHARED;
use super::tools::{RULES, is_hit};
use crate::harness::origin::*;
use crate::harness::*;

#[test]
fn writes_invalidate_what_they_change() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        r#"
[[routes]]
match = "GET /api/patients/{id}"
cache = { ttl = "1m", scope = "shared", tags = ["patients", "patient:{id}"] }
[[routes]]
match = "GET /api/**"
cache = { ttl = "1m", scope = "shared", tags = ["visits"] }
[[invalidate]]
on = "PUT /api/patients/{id}/**"
tags = ["patient:{id}"]
[[invalidate]]
on = "* /api/visits/**"
tags = ["visits"]
paths = ["/api/calendar/**"]
"#,
    );
    let cached = ["/api/patients/1", "/api/patients/2", "/api/patients/1?x=1", "/api/calendar/day", "/other"];
    origin.says("/other", &["cache-control: max-age=60"]);
    let fill = || cached.map(|path| get(&pillion, path).text());
    let before = fill();
    assert_eq!(fill(), before);
    let changed = |before: &[String; 5]| {
        let after = fill();
        [0, 1, 2, 3, 4].map(|at| after[at] != before[at])
    };
    assert_eq!(ask(&pillion, "PUT /api/patients/1/name", &["content-length: 0"]).status, 200);
    assert_eq!(changed(&before), [true, false, true, false, false], "both by tag");
    let before = fill();
    assert_eq!(ask(&pillion, "POST /api/visits", &["content-length: 0"]).status, 200);
    assert_eq!(changed(&before), [false, false, false, true, false], "by path");
    let before = fill();
    assert_eq!(ask(&pillion, "DELETE /other", &[]).status, 200);
    assert_eq!(changed(&before), [false, false, false, false, true], "the target itself");
    let before = fill();
    origin.says("/other", &["status: 409", "cache-control: max-age=60"]);
    assert_eq!(ask(&pillion, "DELETE /other", &[]).status, 409);
    assert_eq!(changed(&before), [false; 5], "an error changed nothing");
    origin.says("/create", &["status: 201", "location: /api/patients/2"]);
    assert_eq!(ask(&pillion, "POST /create", &["content-length: 0"]).status, 201);
    assert_eq!(changed(&before), [false, true, false, false, false], "what Location names");
}

#[test]
fn an_unknown_outcome_invalidates_too() {
    let connections = AtomicUsize::new(0);
    let script = Script::new(move |mut tcp| {
        while let Some(request) = Request::read(&mut tcp) {
            if request.line.starts_with("POST") {
                return;
            }
            let number = connections.fetch_add(1, Ordering::SeqCst);
            let content = format!("{number}");
            let answer = answer(&request, "cache-control: max-age=60", &content);
            if tcp.write_all(&answer).is_err() {
                return;
            }
        }
    });
    let pillion = Pillion::in_front_of(script.address);
    let first = get(&pillion, "/a").text();
    assert_eq!(get(&pillion, "/a").text(), first);
    assert_eq!(ask(&pillion, "POST /a", &["content-length: 0"]).status, 502);
    assert_ne!(get(&pillion, "/a").text(), first, "nobody knows whether it was changed");
}

#[test]
fn rewritten_paths_key_tag_and_invalidate_as_rewritten() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        &format!(
            "[[routes]]\nmatch = \"* /v1/**\"\nrewrite = \"/api/**\"\n{SHARED}[[invalidate]]\non = \"PUT /api/{{id}}\"\ntags = [\"one:{{id}}\"]\n"
        ),
    );
    let first = get(&pillion, "/v1/5/x");
    assert_eq!(get(&pillion, "/api/5/x").text(), first.text());
    assert_eq!(ask(&pillion, "PUT /v1/5", &["content-length: 0"]).status, 200);
    assert_ne!(get(&pillion, "/api/5/x").text(), first.text());
}

#[test]
fn groups_of_one_origin() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: max-age=60", "cache-groups: \"one\", \"two\""]);
    origin.says("/b", &["cache-control: max-age=60", "cache-groups: \"other\""]);
    origin.says("/write", &["cache-group-invalidation: \"two\""]);
    let (a, b) = (get(&pillion, "/a").text(), get(&pillion, "/b").text());
    get(&pillion, "/write");
    assert_eq!(get(&pillion, "/a").text(), a, "a safe request invalidates nothing");
    ask(&pillion, "POST /write", &["content-length: 0"]);
    assert_ne!(get(&pillion, "/a").text(), a);
    assert_eq!(get(&pillion, "/b").text(), b);
}

#[test]
fn n5_7_a_rule_is_not_for_what_it_excepts() {
    let origin = Origin::new();
    let config =
        format!("{RULES}except = [\"POST /orders/{{id}}/views\", \"DELETE other.example/orders/**\"]\n");
    let pillion = pillion(&origin, &config);
    for (line, takes) in [
        ("POST /orders/7/views", false),
        ("PUT /orders/7/views", true),
        ("POST /orders/7", true),
        ("DELETE /orders/7", true),
    ] {
        get(&pillion, "/orders/8");
        assert_eq!(ask(&pillion, line, &["content-length: 0"]).status, 200);
        assert_eq!(!is_hit(&pillion, "/orders/8"), takes, "{line}");
    }
}
