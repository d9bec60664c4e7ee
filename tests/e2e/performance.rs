//! Tests of the performance reports on the real binary: counts, sorting, limits, single requests and warnings.

use std::time::Duration;

use crate::harness::origin::*;
use crate::harness::*;

const ROUTES: &str = "[log]\nslow = \"150ms\"\nformat = \"json\"\n[[routes]]\nmatch = \"GET /fast/{id}\"\ncache = { ttl = \"1m\" }\n\
                      [[routes]]\nmatch = \"GET /slow\"\n[[routes]]\nmatch = \"GET /broken\"\n";

fn app() -> Script {
    Script::answering(|request| {
        if request.line.contains("/slow") {
            std::thread::sleep(Duration::from_millis(200));
        }
        if request.line.contains("/broken") {
            return b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n".to_vec();
        }
        ok("0123456789")
    })
}

fn in_front_of(app: &Script) -> Pillion {
    Pillion::with(&format!("[upstream]\nurl = \"http://{}\"\n{ROUTES}", app.address))
}

/// Returns a report once `ready` accepts it. Measuring steps end every five seconds.
fn report(pillion: &Pillion, path: &str, ready: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    eventually(path, || Some(pillion.admin_get(path).json()).filter(&ready))
}

#[test]
fn routes_are_counted_sorted_and_limited() {
    let app = app();
    let pillion = in_front_of(&app);
    for number in 0..20 {
        assert_eq!(get(&pillion, &format!("/fast/{}", number % 5)).status, 200);
    }
    get(&pillion, "/slow");
    get(&pillion, "/broken?token=secret");
    get(&pillion, "/broken?token=secret");
    let all = report(&pillion, "/performance/routes?window=1m", |report| {
        let routes = report["routes"].as_array().unwrap();
        routes.iter().filter_map(|route| route["windows"]["1m"]["count"].as_u64()).sum::<u64>() == 23
    });
    let routes = all["routes"].as_array().unwrap();
    let of = |name: &str| {
        let found = routes.iter().find(|route| route["route"] == name);
        found.unwrap_or_else(|| panic!("{name}: {all}"))["windows"]["1m"].clone()
    };
    assert_eq!((all["sort"].as_str(), routes[0]["route"].as_str()), (Some("count"), Some("/fast/{id}")));
    let fast = of("/fast/{id}");
    assert_eq!(
        (&fast["count"], &fast["bytes"], &fast["hit_ratio"], &fast["error_rate"]),
        (&20.into(), &200.into(), &0.75.into(), &0.0.into())
    );
    let slow = of("/slow");
    let p99 = slow["p99_ms"].as_f64().unwrap();
    assert!((199.0..400.0).contains(&p99) && slow["p50_ms"] == slow["p99_ms"], "{slow}");
    assert_eq!((&slow["slow_rate"], &of("/broken")["error_rate"]), (&1.0.into(), &1.0.into()));
    for (sort, first) in [("p99_ms", "/slow"), ("error_rate", "/broken"), ("bytes", "/fast/{id}")] {
        let sorted = pillion.admin_get(&format!("/performance/routes?window=1m&sort={sort}&limit=1")).json();
        let routes = sorted["routes"].as_array().unwrap();
        assert_eq!((routes.len(), routes[0]["route"].as_str()), (1, Some(first)), "{sort}");
    }
    let text = pillion.admin_get("/performance/routes?format=text&window=1m").text();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("routes over the last 1m, sorted by count"));
    let head: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(head[..5], ["route", "count", "requests/s", "errors_%", "p50_ms"], "{text}");
    assert!(lines.next().unwrap().contains("/fast/{id}"), "{text}");
    for (path, status) in [
        ("/performance/routes?sort=beauty", 400),
        ("/performance/routes?window=2m", 400),
        ("/performance/slow?limit=0", 400),
        ("/performance/x", 404),
    ] {
        assert_eq!(pillion.admin_get(path).status, status, "{path}");
    }
    assert_eq!(pillion.admin_post("/performance/routes").status, 405);
}

#[test]
fn slow_and_failed_requests_are_noted_one_by_one_without_their_secrets() {
    let app = app();
    let pillion = in_front_of(&app);
    get(&pillion, "/slow?password=hunter2&x=1");
    get(&pillion, "/broken?token=secret");
    get(&pillion, "/fast/1");
    let slow =
        report(&pillion, "/performance/slow", |report| !report["requests"].as_array().unwrap().is_empty());
    let noted = &slow["requests"][0];
    assert_eq!(
        (&noted["route"], &noted["path"], &noted["status"]),
        (&"/slow".into(), &"/slow?password=***&x=1".into(), &200.into())
    );
    assert!(
        noted["upstream_ms"].as_f64().unwrap() >= 199.0 && noted["request_id"].as_str().unwrap().len() == 32
    );
    assert_eq!(noted["upstream"].as_str(), Some(app.address.to_string().as_str()));
    let failed =
        report(&pillion, "/performance/errors", |report| !report["requests"].as_array().unwrap().is_empty());
    assert_eq!(
        (&failed["requests"][0]["status"], &failed["requests"][0]["path"]),
        (&500.into(), &"/broken?token=***".into())
    );
    assert_eq!(failed["requests"][0]["fault"], "upstream", "{failed}");
    assert_eq!(failed["requests"].as_array().unwrap().len(), 1);
    let system = pillion.admin_get("/performance/system").json();
    assert!(
        system["resident_bytes"].as_u64().unwrap() > 0 && !system["workers"].as_array().unwrap().is_empty(),
        "{system}"
    );
    assert!(pillion.admin_get("/performance/system?format=text").text().contains("resident_bytes"));
}

#[test]
fn a_route_that_fails_is_warned_of_once() {
    let app = app();
    let pillion = in_front_of(&app);
    for _ in 0..30 {
        get(&pillion, "/broken");
    }
    eventually("it is said", || pillion.log().contains("/broken: 100% of requests failed").then_some(()));
    assert_eq!(pillion.metric("pillion_route_failing{route=\"/broken\"}"), 1.0);
    let routes = pillion.admin_get("/performance/routes").json();
    assert_eq!(
        (&routes["routes"][0]["route"], &routes["routes"][0]["failing"]),
        (&"/broken".into(), &true.into())
    );
    assert_eq!(pillion.log().matches("of requests failed").count(), 1);
    let warnings = pillion.admin_get("/performance/system").json()["warnings"].clone();
    assert_eq!((warnings.as_array().unwrap().len(), &warnings[0]["recovered"]), (1, &false.into()));
}

#[test]
fn time_is_told_apart_by_whose_it_was() {
    let app = app();
    let pillion = in_front_of(&app);
    get(&pillion, "/slow");
    get(&pillion, "/fast/1");
    get(&pillion, "/fast/1");
    let text = eventually("all three are counted", || {
        let text = pillion.admin_get("/metrics").text();
        text.contains("pillion_http_request_duration_seconds_count{method=\"GET\",route=\"/fast/{id}\",status=\"200\"} 2").then_some(text)
    });
    let value = |line: &str| -> f64 {
        let found = text.lines().find_map(|known| known.strip_prefix(line));
        found.unwrap_or_else(|| panic!("{line}\n{text}")).trim().parse().unwrap()
    };
    let slow = "{method=\"GET\",route=\"/slow\",status=\"200\"}";
    let fast = "{method=\"GET\",route=\"/fast/{id}\",status=\"200\"}";
    assert!(value(&format!("pillion_http_upstream_duration_seconds_sum{slow}")) >= 0.199);
    assert!(value(&format!("pillion_http_own_duration_seconds_sum{slow}")) < 0.1);
    // The hit caused no upstream request.
    assert_eq!(value(&format!("pillion_http_upstream_duration_seconds_count{fast}")), 1.0);
    assert_eq!(value(&format!("pillion_http_own_duration_seconds_count{fast}")), 2.0);
    assert_eq!(value(&format!("pillion_http_response_content_bytes_total{fast}")), 20.0);
}
