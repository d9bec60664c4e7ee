//! Tests of metrics as a scraper sees them: what is counted, under which labels, and in which format.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::harness::script::upstream;
use crate::harness::wire::ask;
use crate::harness::{self, Pillion, Script, eventually, exchange, ok};

/// Parses samples by name and labels. Panics if the text is no valid exposition.
#[track_caller]
fn exposition(text: &str) -> HashMap<String, f64> {
    let mut types: HashMap<&str, &str> = HashMap::new();
    let mut samples = HashMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            assert!(types.insert(name, kind).is_none(), "{name} is declared twice");
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
        let value: f64 =
            value.replace("+Inf", "inf").parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
        let family = name.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| family.strip_suffix(suffix));
        let declared =
            types.contains_key(family) || base.is_some_and(|base| types.get(base) == Some(&"histogram"));
        assert!(declared, "no TYPE before {line:?}");
        assert!(samples.insert(name.to_owned(), value).is_none(), "twice: {name}");
    }
    samples
}

#[test]
fn metrics_are_prometheus_text_and_open_metrics_for_who_asks() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    pillion.get("/");
    let answer = pillion.admin_get("/metrics");
    assert_eq!(answer.field("content-type").unwrap(), "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    let samples = exposition(&text);
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
    for name in [
        "pillion_http_requests_in_flight",
        "pillion_config_generation",
        "pillion_client_connections",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "pillion_config_reloads_total{result=\"applied\"}",
        "pillion_config_reloads_total{result=\"refused\"}",
    ] {
        assert!(samples.contains_key(name), "{name}:\n{text}");
    }
    for family in [
        "pillion_build_info{version=",
        "pillion_http_request_duration_seconds_bucket{",
        "pillion_upstream_connects_total{",
        "pillion_upstream_connections_in_use{",
        "pillion_upstream_connections_idle{",
        "pillion_upstream_waits_total{",
        "pillion_upstream_wait_seconds_total{",
        "pillion_upstream_retries_total{",
        "pillion_upstream_failures_total{",
        "pillion_upstream_healthy{",
    ] {
        assert!(samples.keys().any(|name| name.starts_with(family)), "{family}:\n{text}");
    }
    assert!(samples["process_resident_memory_bytes"] > 1e6 && samples["process_start_time_seconds"] > 1.6e9);

    for accept in [
        "application/openmetrics-text; version=1.0.0",
        "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.5,*/*;q=0.1",
    ] {
        let answer = ask(pillion.admin, "GET /metrics", &format!("accept: {accept}\r\n"));
        assert!(
            answer.field("content-type").unwrap().starts_with("application/openmetrics-text"),
            "{accept}"
        );
        let text = answer.text();
        assert!(text.ends_with("# EOF\n") && text.contains("# TYPE pillion_http_requests counter"), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1);
    }
    for accept in ["text/plain", "*/*", "application/openmetrics-text;q=0, text/plain"] {
        let answer = ask(pillion.admin, "GET /metrics", &format!("accept: {accept}\r\n"));
        assert!(answer.field("content-type").unwrap().starts_with("text/plain"), "{accept}");
    }
}

#[test]
fn requests_are_counted_by_template_never_by_path() {
    let app = Script::echo();
    let pillion = Pillion::with(&format!(
        "{}[[routes]]\nmatch = \"GET /api/patients/{{id}}\"\n[[routes]]\nmatch = \"* /denied/**\"\ndeny = 403\n\
         [[routes]]\nmatch = \"* /quo\\\"te/**\"\n",
        upstream(&app)
    ));
    for at in 0..20 {
        pillion.get(&format!("/api/patients/{at}?page={at}"));
        pillion.get(&format!("/random/{at}"));
        pillion.get(&format!("/denied/{at}"));
        for method in ["BREW", "PROPFIND"] {
            ask(pillion.http, &format!("{method}{at} /random/{at}"), "");
        }
    }
    let text = pillion.admin_get("/metrics").text();
    let samples = exposition(&text);
    let counted: Vec<(&String, &f64)> =
        samples.iter().filter(|(name, _)| name.starts_with("pillion_http_requests_total")).collect();
    let of = |labels: &str| {
        samples.get(&format!("pillion_http_requests_total{{{labels}}}")).copied().unwrap_or(0.0)
    };
    assert_eq!(of("method=\"GET\",route=\"/api/patients/{id}\",status=\"200\""), 20.0, "{counted:?}");
    assert_eq!(of("method=\"GET\",route=\"/denied/**\",status=\"403\""), 20.0, "{counted:?}");
    let unmatched = counted.iter().find(|(name, _)| name.contains("method=\"GET\"") && !name.contains("/"));
    assert_eq!(*unmatched.expect("unmatched requests have one label").1, 20.0, "{counted:?}");
    let other: f64 =
        counted.iter().filter(|(name, _)| name.contains("method=\"other\"")).map(|(_, count)| **count).sum();
    assert_eq!(other, 40.0, "{counted:?}");
    assert!(
        !text.contains("/random")
            && !text.contains("BREW")
            && !text.contains("patients/1")
            && !text.contains("page=")
    );
    assert_eq!(counted.len(), 4, "{counted:?}");
}

#[test]
fn content_is_counted_both_ways() {
    let app = Script::answering(|_| ok("four"));
    let pillion = Pillion::with(&upstream(&app));
    let whole = format!("content-length: 5000\r\n\r\n{}", "a".repeat(5000));
    let in_chunks = "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\nabcd\r\n0\r\n\r\n";
    for content in [whole.as_str(), in_chunks, "\r\n"] {
        let request = format!("POST /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{content}");
        assert_eq!(exchange(pillion.http, &request).status, 200);
    }
    let labels = "{method=\"POST\",route=\"unmatched\",status=\"200\"}";
    eventually("both are counted", || {
        let of = |name: &str| pillion.metric(&format!("pillion_http_{name}_content_bytes_total{labels}"));
        ((of("request"), of("response")) == (5007.0, 12.0)).then_some(())
    });
}

#[test]
fn durations_are_a_histogram_that_adds_up() {
    let app = Script::answering(|request| {
        std::thread::sleep(Duration::from_millis(if request.line.contains("slow") { 60 } else { 0 }));
        ok("")
    });
    let pillion = Pillion::with(&format!(
        "{}[metrics]\nbuckets = [0.05, 1]\n[[routes]]\nmatch = \"* /t/**\"\n",
        upstream(&app)
    ));
    for _ in 0..3 {
        pillion.get("/t/slow");
    }
    // `+Inf` is always the last bucket.
    let samples = exposition(&pillion.admin_get("/metrics").text());
    let labels = "method=\"GET\",route=\"/t/**\",status=\"200\"";
    let named = |kind: &str, bound: &str| {
        let bound = if bound.is_empty() { String::new() } else { format!("le=\"{bound}\"") };
        let fits = |name: &&String| {
            name.starts_with(&format!("pillion_http_request_duration_seconds_{kind}{{"))
                && name.contains(labels)
                && name.contains(&bound)
        };
        let name = samples.keys().find(fits).unwrap_or_else(|| panic!("{kind} {bound}: {samples:?}"));
        samples[name]
    };
    assert_eq!((named("bucket", "0.05"), named("bucket", "+Inf"), named("count", "")), (0.0, 3.0, 3.0));
    assert!((0.18..10.0).contains(&named("sum", "")), "{}", named("sum", ""));
}

#[test]
fn what_is_in_flight_and_connected_is_seen_and_goes_back_to_none() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let app = Script::answering(move |_| {
        let _ = released.lock().unwrap().recv_timeout(harness::PATIENCE);
        ok("")
    });
    let pillion = Pillion::with(&upstream(&app));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| pillion.get("/"));
        }
        eventually("three in flight", || {
            (pillion.metric("pillion_http_requests_in_flight") == 3.0).then_some(())
        });
        assert_eq!(pillion.metric("pillion_client_connections"), 3.0);
        (0..3).for_each(|_| release.send(()).unwrap());
    });
    eventually("none in flight", || (pillion.metric("pillion_http_requests_in_flight") == 0.0).then_some(()));
    eventually("none connected", || (pillion.metric("pillion_client_connections") == 0.0).then_some(()));
}

#[test]
fn scrapes_on_one_connection_and_many_at_once_are_all_answered() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut tcp = harness::connect(pillion.admin);
                for path in ["/metrics", "/ready", "/live", "/health", "/nowhere"].iter().cycle().take(50) {
                    let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
                    std::io::Write::write_all(&mut tcp, head.as_bytes()).unwrap();
                    let answer = harness::read_answer(&mut tcp);
                    assert_eq!(answer.status, if *path == "/nowhere" { 404 } else { 200 });
                }
            });
        }
    });
}

#[test]
fn labels_beyond_max_routes_fold_into_other_and_unmatched_stays() {
    let app = Script::echo();
    let routes: String = (0..20).map(|at| format!("[[routes]]\nmatch = \"GET /r{at}/**\"\n")).collect();
    let pillion = Pillion::with(&format!("{}[metrics]\nmax_routes = 5\n{routes}", upstream(&app)));
    for at in 0..20 {
        assert_eq!(pillion.get(&format!("/r{at}/x")).status, 200);
    }
    assert_eq!(pillion.get("/nothing").status, 200);
    let samples = exposition(&pillion.admin_get("/metrics").text());
    let counted: Vec<_> =
        samples.iter().filter(|(name, _)| name.starts_with("pillion_http_requests_total")).collect();
    assert_eq!(counted.iter().map(|(_, count)| **count).sum::<f64>(), 21.0, "none is lost: {counted:?}");
    assert!(
        counted.len() <= 5
            && counted.iter().any(|(name, count)| name.contains("route=\"other\"") && **count > 1.0),
        "{counted:?}"
    );
    let labels: BTreeSet<&str> =
        samples.keys().filter_map(|name| name.split_once("route=\"")?.1.split('"').next()).collect();
    assert!(labels.len() <= 5, "{labels:?}");
    let unmatched = "pillion_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"200\"}";
    assert_eq!(samples.get(unmatched), Some(&1.0), "{counted:?}");
    // The metrics of the cache and the reports fold the same routes.
    let routes = |family: &str| -> BTreeSet<String> {
        let of = samples.keys().filter(|name| name.starts_with(family));
        of.filter_map(|name| Some(name.split_once("route=\"")?.1.split('"').next()?.to_owned())).collect()
    };
    let (http, cache) = (routes("pillion_http_requests_total"), routes("pillion_cache_operations_total"));
    assert!(cache.len() > 1 && cache.is_subset(&http), "{cache:?} of {http:?}");
}

#[test]
fn counters_survive_a_reload_and_follow_a_route_that_stays() {
    let app = Script::echo();
    let config = format!("{}[[routes]]\nmatch = \"GET /kept/**\"\n", upstream(&app));
    let pillion = Pillion::with(&config);
    pillion.get("/kept/1");
    pillion.reload(&format!(
        "{}[[routes]]\nmatch = \"GET /new/**\"\n[[routes]]\nmatch = \"GET /kept/**\"\n",
        upstream(&app)
    ));
    pillion.get("/kept/2");
    assert_eq!(
        pillion.metric("pillion_http_requests_total{method=\"GET\",route=\"/kept/**\",status=\"200\"}"),
        2.0
    );
}
