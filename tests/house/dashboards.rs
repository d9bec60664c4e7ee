//! Tests of what operators look at: the status page in a real browser, the Grafana dashboard and the alert rules
//! against the existing metrics, and a real Prometheus that scrapes and evaluates them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::harness::browser::Browser;
use crate::harness::origin::*;
use crate::harness::redis::RedisServer;
use crate::harness::*;
use serde_json::Value;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");

fn with_everything(origin: &Origin) -> (Pillion, RedisServer) {
    let redis = RedisServer::new();
    let folder = Arc::new(Folder::new());
    let run_in = |command: &str| run("sh", &["-c", &format!("cd {} && {command}", folder.0.display())]);
    run_in(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=a -days 30 -keyout key.pem -out cert.pem 2>/dev/null",
    );
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
         certificates = [{{ cert = \"cert.pem\", key = \"key.pem\" }}]\n[upstream]\nurl = \"http://{}\"\nadaptive_concurrency = true\n\
         [rate_limit.tiers.free.limits]\nrequests = {{ rate = \"100/s\" }}\n[health]\nmemory_limit = \"1GiB\"\n\
         [identity]\nhash_key = \"0123456789abcdef0123456789abcdef\"\n[redis]\nurl = \"{}\"\nprefix = \"test\"\n\
         [[routes]]\nmatch = \"GET /api/{{id}}\"\ncache = {{ ttl = \"1m\" }}\n",
        origin.script.address,
        redis.url(),
    );
    (Pillion::in_folder(folder, &text), redis)
}

/// Returns the names of all metrics in an expression.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("pillion_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

#[test]
fn dashboard_and_rules_ask_for_metrics_that_exist() {
    let origin = Origin::new();
    let (pillion, _redis) = with_everything(&origin);
    get(&pillion, "/api/1");
    get(&pillion, "/api/1");
    let metrics = pillion.admin_get("/metrics").text();
    let known: BTreeSet<String> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .flat_map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffixes: &[&str] =
                if kind == "histogram" { &["", "_bucket", "_sum", "_count"] } else { &[""] };
            suffixes.iter().map(move |suffix| format!("{name}{suffix}")).collect::<Vec<_>>()
        })
        .collect();
    for file in ["grafana/pillion.json", "prometheus/pillion.rules.yml"] {
        let text = std::fs::read_to_string(format!("{DEPLOY}/{file}")).unwrap();
        let unknown: Vec<String> = names(&text).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?} of {known:?}");
    }
    let board: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{DEPLOY}/grafana/pillion.json")).unwrap())
            .unwrap();
    assert!(board["panels"].as_array().unwrap().len() >= 12);
}

#[test]
fn promtool_finds_nothing_in_metrics_and_rules() {
    let origin = Origin::new();
    let (pillion, _redis) = with_everything(&origin);
    get(&pillion, "/api/1");
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(pillion.admin_get("/metrics").text().as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    for args in [["check", "rules", "pillion.rules.yml"], ["test", "rules", "pillion.rules.test.yml"]] {
        let output =
            Command::new("promtool").args(args).current_dir(format!("{DEPLOY}/prometheus")).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}");
    }
}

/// Starts a real Prometheus with these features; returns a function that queries it.
fn prometheus(
    folder: &Folder,
    pillion: &Pillion,
    features: &str,
) -> (Process, impl Fn(&str) -> Option<serde_json::Value>) {
    let config = folder.write(
        "prometheus.yml",
        format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [\"{DEPLOY}/prometheus/pillion.rules.yml\"]\n\
             scrape_configs: [{{ job_name: pillion, static_configs: [{{ targets: [\"{}\"] }}] }}]\n",
            pillion.admin
        ),
    );
    let address = free_address();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg(format!("--enable-feature={features}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ask = move |path: &str| -> Option<serde_json::Value> {
        let url = format!("http://{address}{path}");
        let output = Command::new("curl").args(["-s", "--max-time", "5", &url]).output().ok()?;
        serde_json::from_slice(&output.stdout).ok()
    };
    (Process(child), ask)
}

#[test]
fn a_real_prometheus_scrapes_and_its_rules_evaluate() {
    let origin = Origin::new();
    let (pillion, _redis) = with_everything(&origin);
    let folder = Folder::new();
    let (_prometheus, ask_it) = prometheus(&folder, &pillion, "exemplar-storage");
    eventually("it scrapes under load", || {
        get(&pillion, "/api/1");
        let found = ask_it("/api/v1/query?query=sum(pillion_http_requests_total)")?;
        let value: f64 = found["data"]["result"][0]["value"][1].as_str()?.parse().ok()?;
        (value > 5.0).then_some(())
    });
    let rules = eventually("its rules evaluate", || {
        let rules = ask_it("/api/v1/rules")?;
        let all = rules["data"]["groups"][0]["rules"].as_array()?.clone();
        all.iter().all(|rule| rule["health"] == "ok").then_some(all)
    });
    assert!(rules.len() >= 10, "{rules:?}");
    let targets = ask_it("/api/v1/targets").unwrap();
    assert_eq!(targets["data"]["activeTargets"][0]["health"], "up");
    let metrics = ["http_request", "http_upstream", "http_own"];
    for metric in metrics {
        exemplar(&pillion, &ask_it, &format!("pillion_{metric}_duration_seconds_bucket"));
    }
    let text = pillion.admin_get("/metrics").text();
    assert!(!text.contains("trace_id"), "the older format has no word for it: {text}");
}

#[test]
fn a_real_prometheus_takes_native_histograms_with_exemplars() {
    let origin = Origin::new();
    let (pillion, _redis) = with_everything(&origin);
    let folder = Folder::new();
    let (_prometheus, ask_it) = prometheus(&folder, &pillion, "exemplar-storage,native-histograms");
    eventually("it has them", || {
        get(&pillion, "/api/1");
        let found = ask_it("/api/v1/query?query=histogram_count(pillion_http_request_duration_seconds)")?;
        let value: f64 = found["data"]["result"][0]["value"][1].as_str()?.parse().ok()?;
        (value > 5.0).then_some(())
    });
    exemplar(&pillion, &ask_it, "pillion_http_request_duration_seconds");
}

/// Checks that a request with a recorded trace is found by its exemplar.
fn exemplar(pillion: &Pillion, ask_it: &impl Fn(&str) -> Option<serde_json::Value>, metric: &str) {
    let found = eventually("it has a request that stands for others", || {
        ask(pillion, "GET /api/2", &["traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]);
        ask(pillion, "GET /else", &["traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"]);
        let path = format!("/api/v1/query_exemplars?query={metric}&start=1&end=9999999999");
        let found = ask_it(&path)?["data"].as_array()?.clone();
        (!found.is_empty()).then_some(found)
    });
    for series in &found {
        assert_eq!(series["seriesLabels"]["route"], "/api/{id}", "{found:?}");
        assert_eq!(series["exemplars"][0]["labels"]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    }
}

#[test]
fn the_page_renders_in_a_real_browser_and_its_numbers_move() {
    let origin = Origin::new();
    let (pillion, _redis) = with_everything(&origin);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (running, http) = (stop.clone(), pillion.http);
    let load = std::thread::spawn(move || {
        while !running.load(std::sync::atomic::Ordering::Relaxed) {
            exchange(http, "GET /api/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    eventually("a step has passed", || {
        let report = pillion.admin_get("/performance/routes").json();
        (report["routes"].as_array()?.len() == 1).then_some(())
    });
    let profile = Folder::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (seen, picture, console) = runtime.block_on(async {
        let mut browser = Browser::open(&profile, &format!("http://{}/", pillion.admin)).await;
        let script = "JSON.stringify({ page: document.body.innerText, rates: document.querySelector('#figure-rate polyline')?.getAttribute('points'), rate: document.querySelector('#figure-rate b')?.textContent, focused: (document.querySelector('th button')?.focus(), document.activeElement.tagName) })";
        let deadline = now() + std::time::Duration::from_secs(20);
        loop {
            let seen: serde_json::Value = serde_json::from_str(&browser.evaluate(script).await).unwrap();
            // Three points on the line mean that the numbers changed.
            let points = seen["rates"].as_str().map_or(0, |points| points.split(' ').count());
            if points >= 3 || now() > deadline {
                let picture = browser.screenshot().await;
                return (seen, picture, browser.console);
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    });
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    load.join().unwrap();
    assert!(console.is_empty(), "{console:?}");
    let rate: f64 = seen["rate"].as_str().unwrap_or_else(|| panic!("{seen}")).parse().unwrap();
    assert!(rate > 10.0, "{rate} requests/s: {seen}");
    let page = seen["page"].as_str().unwrap();
    for part in ["/api/{id}", "free: ", "healthy, ", "configuration 1"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert_eq!(seen["focused"], "BUTTON", "columns are sorted by the keyboard too");
    assert!(picture.len() > 10_000, "{} bytes", picture.len());
    if let Some(path) = std::env::var_os("SCREENSHOT") {
        std::fs::write(path, picture).unwrap();
    }
}

#[test]
fn page_shows_maintenance_while_it_is_on() {
    let origin = Origin::new();
    let pillion = Pillion::in_front_of(origin.script.address);
    let profile = Folder::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut browser = Browser::open(&profile, &format!("http://{}/", pillion.admin)).await;
        let script = "JSON.stringify([document.getElementById('state')?.textContent ?? '', document.getElementById('maintenance')?.innerText ?? '', document.getElementById('maintenance')?.offsetHeight ?? 0])";
        for (state, is_shown) in [("off", false), ("on", true), ("off", false)] {
            assert_eq!(pillion.admin_post(&format!("/maintenance?state={state}")).status, 200);
            let deadline = now() + std::time::Duration::from_secs(20);
            loop {
                let seen: serde_json::Value = serde_json::from_str(&browser.evaluate(script).await).unwrap();
                let is_connected = seen[0].as_str().is_some_and(|text| text.contains("configuration 1"));
                let text = seen[1].as_str().unwrap_or_default();
                let fits = text.contains("Maintenance is on") == is_shown
                    && (seen[2].as_u64() > Some(0)) == is_shown;
                if is_connected && fits {
                    break;
                }
                assert!(now() < deadline, "{state}: {seen}");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
        assert!(browser.console.is_empty(), "{:?}", browser.console);
    });
}

#[test]
fn the_page_is_for_operators_alone() {
    let origin = Origin::new();
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nadmin_token = \"a long admin token\"\n[upstream]\nurl = \"http://{}\"\n",
        origin.script.address
    );
    let pillion = Pillion::with(&text);
    let ask = |line: &str, fields: &str| {
        exchange(
            pillion.admin,
            &format!("{line} HTTP/1.1\r\nhost: localhost\r\n{fields}connection: close\r\n\r\n"),
        )
    };
    let page = ask("GET /", "accept: text/html\r\n");
    assert_eq!(
        (page.status, page.field("content-type").unwrap().as_str()),
        (200, "text/html; charset=utf-8")
    );
    assert!(page.field("content-security-policy").unwrap().contains("default-src 'none'"));
    assert!(
        page.text().contains("lang=\"en\"")
            && !page.text().contains("http://")
            && !page.text().contains("https://")
    );
    assert!(ask("GET /", "").text().starts_with("Pillion admin"), "curl gets a list");
    assert_eq!(ask("GET /events", "").status, 401);
    let mut tcp = connect(pillion.admin);
    tcp.write_all(
        b"GET /events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer a long admin token\r\n\r\n",
    )
    .unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0u8; 4096];
    while seen.windows(6).filter(|window| window == b"data: ").count() < 2 {
        let read = std::io::Read::read(&mut tcp, &mut buffer).unwrap();
        assert!(read > 0);
        seen.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8_lossy(&seen).into_owned();
    assert!(text.contains("content-type: text/event-stream") && text.contains("\"generation\":1"), "{text}");
    assert!(text.contains("\"maintenance\":false"), "{text}");
}

/// `UPDATE=1 cargo nextest run the_catalogue` writes the catalogue again.
#[test]
fn the_catalogue_of_metrics_is_what_the_code_says() {
    let origin = Origin::new();
    let (pillion, _redis) = with_everything(&origin);
    get(&pillion, "/api/1");
    assert_eq!(pillion.admin_post("/cache/purge?url=/api/1").status, 200);
    let metrics = pillion.admin_get("/metrics").text();
    let mut rows = BTreeSet::new();
    let mut help = ("", "");
    for line in metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            assert_eq!(name, help.0);
            let begin = format!("{name}{}{{", if kind == "histogram" { "_bucket" } else { "" });
            let sampled = |line: &str| line.starts_with(&begin) || line.starts_with(&format!("{name} "));
            assert!(metrics.lines().any(sampled), "{name} has no sample that shows its labels");
            let series = metrics.lines().find_map(|line| line.strip_prefix(&begin));
            let labels = series.and_then(|rest| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
            let names = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name);
            let names: Vec<&str> = names.filter(|name| *name != "le").collect();
            rows.insert(format!(
                "| `{name}` | {kind} | {} | {} |",
                names.join(", "),
                help.1.trim_end_matches('.')
            ));
        }
    }
    let table: String = rows.into_iter().map(|row| row + "\n").collect();
    let text = format!(
        "# Metrics\n\nThis page is generated from the code (`UPDATE=1 cargo nextest run the_catalogue`). The label route has the template of a\n\
         route, with at most `metrics.max_routes` values. Histograms have native buckets too where a scraper asks for protobuf.\n\n\
         | name | type | labels | meaning |\n|---|---|---|---|\n{table}"
    );
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/metrics.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap_or_default(),
        text,
        "run it with UPDATE=1 and read what changed"
    );
}

/// Returns the differences between a value and a schema, for the few keywords of JSON Schema that are used.
fn differs(value: &Value, schema: &Value, at: &str) -> Vec<String> {
    if let Some(schemas) = schema["anyOf"].as_array() {
        let found: Vec<_> = schemas.iter().map(|schema| differs(value, schema, at)).collect();
        return if found.iter().any(Vec::is_empty) { Vec::new() } else { found.concat() };
    }
    let fits = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => false,
    };
    if !fits || schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return vec![format!("{at} is {value} and not {schema}")];
    }
    let mut wrong = Vec::new();
    for (number, member) in value.as_array().into_iter().flatten().enumerate() {
        wrong.extend(differs(member, &schema["items"], &format!("{at}[{number}]")));
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let (here, properties) = (format!("{at}.{name}"), &schema["properties"]);
        match (properties.get(name), schema.get("additionalProperties")) {
            (Some(schema), _) | (None, Some(schema)) => wrong.extend(differs(member, schema, &here)),
            (None, None) if properties.is_object() => wrong.push(format!("{here} is not described")),
            (None, None) => {}
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            wrong.push(format!("{at}.{name} is missing"));
        }
    }
    wrong
}

#[test]
fn the_api_describes_itself() {
    let origin = Origin::new();
    let (pillion, _redis) = with_everything(&origin);
    // These requests make sure that lists and maps are not empty.
    for path in ["/api/1", "/api/1", "/broken"] {
        get(&pillion, path);
    }
    eventually("the routes are told", || {
        let told = pillion.admin_get("/performance/routes").json();
        told["routes"].as_array().is_some_and(|routes| !routes.is_empty()).then_some(())
    });
    let described = pillion.admin_get("/openapi.json").json();
    assert_eq!(described["openapi"], "3.1.0");
    let problem = &described["components"]["schemas"]["Problem"];
    let paths = described["paths"].as_object().unwrap();
    let holds = |path: &str, method: &str, asked: &str| {
        let answer = if method == "get" { pillion.admin_get(asked) } else { pillion.admin_post(asked) };
        let described = &paths[path][method]["responses"][answer.status.to_string()];
        let media = answer.field("content-type").unwrap();
        let media = media.split(';').next().unwrap();
        let content = &described["content"][media];
        assert!(content.is_object(), "{asked}: {} {media}: {described}", answer.status);
        if media.ends_with("json") {
            let named = content["schema"].get("$ref").is_some();
            let wrong = differs(&answer.json(), if named { problem } else { &content["schema"] }, "");
            assert!(wrong.is_empty(), "{asked}: {wrong:?}");
        }
        answer.status
    };
    for (path, asked, status) in [
        ("/health/{check}", "/health/upstream", 200),
        ("/health/{check}", "/health/workers", 200),
        ("/health/{check}", "/health/none", 404),
        ("/cache/lookup", "/cache/lookup?url=/api/1", 200),
        ("/cache/lookup", "/cache/lookup?uri=/api/1", 400),
        ("/limits/status", "/limits/status?key=127.0.0.1", 200),
        ("/limits/status", "/limits/status?key=10.0.0.1", 200),
        ("/limits/status", "/limits/status?key=nobody", 404),
        ("/limits/top", "/limits/top?n=3", 200),
        ("/performance/routes", "/performance/routes?sort=p95_ms&window=1m&limit=1&format=text", 200),
        ("/performance/routes", "/performance/routes?sort=count&sort=bytes", 400),
        ("/performance/routes", "/performance/routes?limt=1", 400),
        ("/performance/system", "/performance/system?format=text", 200),
        ("/live", "/live?anything", 200),
    ] {
        assert_eq!(holds(path, "get", asked), status, "{asked}");
    }
    for (path, asked, status) in [
        ("/cache/purge", "/cache/purge?tag=a&tag=b", 200),
        ("/cache/purge", "/cache/purge?tags=a", 400),
        ("/reload", "/reload?dry_run=true", 400),
        ("/reload", "/reload", 200),
    ] {
        assert_eq!(holds(path, "post", asked), status, "{asked}");
    }
    for (path, methods) in paths {
        let asked = path.replace("{check}", "memory");
        if methods["get"].is_object() && !matches!(path.as_str(), "/events" | "/tail") {
            let status = holds(path, "get", &asked);
            assert!([200, 400].contains(&status), "{path}: {status}");
            assert_eq!(pillion.admin_post(&asked).status, 405, "{path}");
        } else if methods["post"].is_object() {
            assert_eq!(pillion.admin_get(&asked).status, 405, "{path}");
        }
    }
    let list = pillion.admin_get("/").text();
    assert!(paths.keys().all(|path| list.contains(path.as_str())), "{list}");
    assert!(pillion.admin_get("/api").text().contains("api.js"));
    assert_eq!(holds("/drain", "post", "/drain"), 202);
    assert_eq!(holds("/ready", "get", "/ready"), 503);
}
