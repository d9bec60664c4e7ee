//! Tests of limits in responses, and in the operator's view.

use super::tools::{TIERS, limited, statuses};
use crate::harness::origin::*;
use crate::harness::*;

#[test]
fn an_answer_says_where_its_caller_stands() {
    let (_origin, pillion) = limited("");
    for left in [2, 1, 0] {
        let answer = get(&pillion, "/");
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.field("ratelimit-policy").unwrap(),
            "\"requests\";q=3;w=3600;pillion-tier=\"free\""
        );
        let told = answer.field("ratelimit").unwrap();
        assert!(told.starts_with(&format!("\"requests\";r={left};t=")), "{told}");
    }
    let refused = get(&pillion, "/");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.field("content-type").unwrap(), "application/problem+json");
    let document = refused.json();
    assert_eq!(document["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(document["violated-policies"], serde_json::json!(["requests"]));
    assert_eq!(
        (&document["tier"], &document["upgrade"]),
        (&"free".into(), &"https://example.com/pricing".into())
    );
    assert_eq!(document["status"], 429);
    // A third of an hour, minus the duration of the requests.
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1190..=1200).contains(&wait), "{wait}");
    assert_eq!(refused.field("ratelimit").unwrap(), format!("\"requests\";r=0;t={wait}"));
    assert_eq!(refused.field("cache-control").unwrap(), "no-store");
    assert_eq!(refused.field("x-ratelimit-limit"), None);
}

#[test]
fn what_is_limited_is_seen_from_outside() {
    let (_origin, pillion) = limited("");
    statuses(&pillion, 6, &["x-api-key: key-pro"]);
    statuses(&pillion, 4, &[]);
    let top = pillion.admin_get("/limits/top").json();
    let keys = top["keys"].as_array().unwrap();
    assert_eq!((top["held"].as_u64(), keys.len()), (Some(2), 2));
    assert_eq!(
        (&keys[0]["name"], &keys[0]["allowed"], &keys[0]["limited"]),
        (&"acme".into(), &5.into(), &1.into())
    );
    assert_eq!(
        (&keys[1]["kind"], &keys[1]["allowed"], &keys[1]["limited"]),
        (&"ip".into(), &3.into(), &1.into())
    );
    assert!(!top.to_string().contains("127.0.0.1") && !top.to_string().contains("key-pro"));
    assert_eq!(pillion.admin_get("/limits/top?n=1").json()["keys"].as_array().unwrap().len(), 1);
    let status = pillion.admin_get("/limits/status?key=acme").json();
    assert_eq!(
        (&status["held"], &status["limits"][0]["remaining"], &status["limits"][1]["remaining"]),
        (&true.into(), &0.into(), &3.into())
    );
    let by_hash = format!("/limits/status?key={}", keys[1]["key"].as_str().unwrap());
    for path in [by_hash.as_str(), "/limits/status?key=127.0.0.1"] {
        let status = pillion.admin_get(path).json();
        assert_eq!(
            (&status["limits"][0]["limit"], &status["limits"][0]["remaining"]),
            (&"requests".into(), &0.into()),
            "{path}"
        );
    }
    assert_eq!(pillion.admin_get("/limits/status?key=own").json()["held"], false);
    for (path, status) in [
        ("/limits/status", 400),
        ("/limits/status?key=nobody", 404),
        ("/limits/top?n=0", 400),
        ("/limits/x", 404),
    ] {
        assert_eq!(pillion.admin_get(path).status, status, "{path}");
    }
    assert_eq!(pillion.admin_post("/limits/top").status, 405);
    assert_eq!(pillion.metric("pillion_limit_keys"), 2.0);
}

#[test]
fn fields_are_neither_stored_nor_loosened() {
    let (origin, pillion) = limited("headers = [\"ratelimit\", \"legacy\"]\n");
    origin.says(
        "/a",
        &[
            "cache-control: max-age=60",
            "ratelimit: \"requests\";r=99",
            "ratelimit-policy: \"requests\";q=99;w=1, \"theirs\";q=9",
            "x-ratelimit-remaining: 99",
        ],
    );
    let first = get(&pillion, "/a");
    assert!(
        first.field("ratelimit").unwrap().starts_with("\"requests\";r=2"),
        "{:?}",
        first.field("ratelimit")
    );
    assert_eq!(
        first.field("ratelimit-policy").unwrap(),
        "\"requests\";q=3;w=3600;pillion-tier=\"free\", \"theirs\";q=9"
    );
    assert_eq!(first.field("x-ratelimit-remaining").unwrap(), "2");
    assert_eq!(first.field("x-ratelimit-limit").unwrap(), "3");
    let hit = get(&pillion, "/a");
    assert!(status_of(&hit).contains("hit"));
    assert!(hit.field("ratelimit").unwrap().starts_with("\"requests\";r=1"));
    assert_eq!(hit.field("ratelimit-policy").unwrap(), "\"requests\";q=3;w=3600;pillion-tier=\"free\"");
    origin.says("/b", &["ratelimit: \"requests\";r=0;t=1000000"]);
    assert_eq!(get(&pillion, "/b").field("ratelimit").unwrap(), "\"requests\";r=0;t=1000000");
}

#[test]
fn failures_and_refusals_tell_it_too() {
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nmax_body_size = \"1KiB\"\n{TIERS}",
        absent_app()
    );
    let pillion = Pillion::with(&config);
    let failed = get(&pillion, "/");
    assert_eq!((failed.status, failed.field("ratelimit").is_some()), (502, true));
    let large = ask(&pillion, "POST /", &["content-length: 2000"]);
    assert_eq!((large.status, large.field("ratelimit").unwrap().contains("r=1")), (413, true));
}
