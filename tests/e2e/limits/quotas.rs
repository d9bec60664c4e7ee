//! Tests of quotas: routes that name them, and reloads that change them.

use std::io::Write as _;

use super::tools::{TIERS, keys, limited, limited_with, statuses};
use crate::harness::origin::*;
use crate::harness::*;

#[test]
fn routes_name_limits_cost_more_and_are_exempt() {
    let (_origin, pillion) = limited_with(
        // The key with its own burst of 1 could never pay the cost.
        keys().split_inclusive("acme\"\n").next().unwrap(),
        "[[routes]]\nmatch = \"GET /named\"\nlimits = [\"named\"]\n[[routes]]\nmatch = \"GET /free\"\nlimits = \"none\"\n\
         [[routes]]\nmatch = \"GET /dear\"\ncost = 3\n",
    );
    for _ in 0..5 {
        let exempt = get(&pillion, "/free");
        assert_eq!((exempt.status, exempt.field("ratelimit")), (200, None));
    }
    let named = get(&pillion, "/named");
    assert_eq!(
        named.field("ratelimit-policy").unwrap(),
        "\"requests\";q=3;w=3600;pillion-tier=\"free\", \"named\";q=1;w=3600;pillion-tier=\"free\""
    );
    assert!(named.field("ratelimit").unwrap().starts_with("\"named\";r=0"));
    let refused = get(&pillion, "/named");
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["named"]));
    // The refusal used nothing of the other quota.
    assert!(get(&pillion, "/").field("ratelimit").unwrap().starts_with("\"requests\";r=1"));
    assert_eq!(get(&pillion, "/dear").status, 429);
    assert_eq!(ask(&pillion, "GET /dear", &["x-api-key: key-pro"]).status, 200);
    assert_eq!(ask(&pillion, "GET /dear", &["x-api-key: key-pro"]).status, 429);
}

#[test]
fn shadow_mode_counts_and_refuses_nobody() {
    let (_origin, pillion) = limited("mode = \"shadow\"\n");
    for _ in 0..5 {
        let answer = get(&pillion, "/");
        assert_eq!(
            (answer.status, answer.field("ratelimit"), answer.field("retry-after")),
            (200, None, None)
        );
    }
    let decisions = |decision: &str| {
        let labels = format!("tier=\"free\",limit=\"requests\",decision=\"{decision}\"");
        pillion.metric(&format!("pillion_limit_decisions_total{{{labels}}}"))
    };
    assert_eq!(["allowed", "limited", "would-limit"].map(decisions), [3.0, 0.0, 2.0]);
}

#[test]
fn a_reload_changes_quotas_at_once_and_untouched_limits_go_on() {
    let (origin, pillion) = limited("");
    assert_eq!(statuses(&pillion, 2, &[]), [200, 200]);
    statuses(&pillion, 4, &["x-api-key: key-pro"]);
    let keys = pillion.folder.path("keys.toml");
    let text = |tiers: &str| {
        format!(
            "[upstream]\nurl = \"http://{}\"\n[rate_limit]\nkeys = \"{}\"\n{tiers}",
            origin.script.address,
            keys.display()
        )
    };
    pillion.reload(&text(&TIERS.replace("5/h\", burst = 5", "7/h\", burst = 2")));
    // The state of the free tier is unchanged.
    assert_eq!(statuses(&pillion, 2, &[]), [200, 429]);
    // The edited tier starts anew, and the other one continues: four of eight are used.
    assert_eq!(statuses(&pillion, 3, &["x-api-key: key-pro"]), [200, 200, 429]);
    let status = pillion.admin_get("/limits/status?key=acme").json();
    assert_eq!(
        (&status["limits"][0]["remaining"], &status["limits"][1]["remaining"]),
        (&0.into(), &2.into())
    );
    // Keys are added and removed with their file.
    std::fs::write(&keys, "").unwrap();
    pillion.reload(&text(TIERS));
    assert_eq!(statuses(&pillion, 1, &["x-api-key: key-pro"]), [429], "it is an address again");
}

#[test]
fn requests_held_on_many_routes_do_not_make_quotas_forget() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let script = Script::answering(move |request| {
        if request.line.contains("/held") {
            let _ = wait.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20));
        }
        ok("done")
    });
    let routes: String =
        (0..40).map(|route| format!("[[routes]]\nmatch = \"GET /held{route}\"\nconcurrency = 2\n")).collect();
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[cache]\nenabled = false\n{routes}\
         [rate_limit.tiers.free.limits]\nminute = {{ rate = \"50/h\" }}\ndaily = {{ rate = \"60/d\" }}\n",
        script.address
    );
    let pillion = Pillion::with(&config);
    let held: Vec<_> = (0..40)
        .map(|route| {
            let mut tcp = connect(pillion.http);
            tcp.write_all(format!("GET /held{route} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).unwrap();
            tcp
        })
        .collect();
    eventually("all are held", || (pillion.metric("pillion_http_requests_in_flight") >= 40.0).then_some(()));
    assert_eq!(statuses(&pillion, 12, &[]), [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 429, 429]);
    drop((held, release));
}
