//! Tests of traces as apps and OTLP receivers see them, decoded with the official definitions.

use std::sync::{Arc, Mutex};

use crate::harness::*;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

type Spans = Arc<Mutex<Vec<Span>>>;

/// Starts a receiver for spans of a service with this name. It responds 200 while `well` is true.
fn receiver(service: &'static str, well: impl Fn() -> bool + Send + Sync + 'static) -> (Script, Spans) {
    let spans = Spans::default();
    let noted = spans.clone();
    let receiver = Script::answering(move |request| {
        if !well() {
            return b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n".to_vec();
        }
        assert_eq!(request.field("content-type"), Some("application/x-protobuf"));
        assert_eq!(request.line, "POST /v1/traces HTTP/1.1");
        if service == "clinic" {
            assert_eq!(request.field("x-api-key"), Some("a secret, of course"));
        }
        let message = ExportTraceServiceRequest::decode(request.body.as_slice()).unwrap();
        for resource in message.resource_spans {
            let attributes = &resource.resource.unwrap().attributes;
            let name = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
            let name = name.value.as_ref().unwrap().value.clone();
            assert_eq!(name, Some(Value::StringValue(service.to_owned())));
            if service == "clinic" {
                let region = attributes.iter().find(|attribute| attribute.key == "cloud.region").unwrap();
                let region = region.value.as_ref().unwrap().value.clone();
                assert_eq!(region, Some(Value::StringValue("eu, west".to_owned())));
            }
            noted.lock().unwrap().extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        ok("")
    });
    (receiver, spans)
}

fn told(app: &Script, receiver: &Script, sample: &str) -> Pillion {
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[tracing]\notlp_endpoint = \"http://{}\"\nsample = {sample}\n\
         [[routes]]\nmatch = \"GET /things/{{id}}\"\ncache = {{ ttl = \"1m\" }}\n",
        app.address, receiver.address
    );
    let folder = Arc::new(Folder::new());
    let path = folder.write("pillion.toml", complete(&config));
    let mut command = std::process::Command::new(binary());
    command.args(["run", "--config"]).arg(path).env("OTEL_SERVICE_NAME", "clinic");
    command.env("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,cloud.region=eu%2C west");
    command.env("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=a%20secret%2C of course, x-other=1");
    Pillion::start(folder, command)
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn wait_for(spans: &Spans, count: usize) -> Vec<Span> {
    eventually("spans came", || {
        let spans = spans.lock().unwrap();
        (spans.len() >= count).then(|| spans.clone())
    })
}

#[test]
fn a_trace_goes_through_and_its_spans_are_told() {
    let app = Script::echo();
    let (receiver, spans) = receiver("clinic", || true);
    let pillion = told(&app, &receiver, "0.0");
    let fields = [&format!("traceparent: {PARENT}"), "tracestate: vendor=1", "baggage: tenant=7"];
    let answer = origin::ask(&pillion, "GET /things/7?token=s3cret&x=1", &fields).json();
    let passed = answer["fields"]["traceparent"].as_str().unwrap().to_owned();
    assert!(
        passed.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && passed.ends_with("-01"),
        "{passed}"
    );
    assert_ne!(passed, PARENT);
    assert_eq!(answer["fields"]["tracestate"], "vendor=1");
    assert_eq!(answer["fields"]["baggage"], "tenant=7");

    let spans = wait_for(&spans, 2);
    let of = |kind: i32| spans.iter().find(|span| span.kind == kind).unwrap();
    let (server, client) = (of(SERVER), of(CLIENT));
    assert_eq!(server.name, "GET /things/{id}");
    for span in [server, client] {
        assert_eq!(hex(&span.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        assert!(span.status.is_none());
        assert_eq!(span.trace_state, "vendor=1");
    }
    assert_eq!(hex(&server.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(client.parent_span_id, server.span_id);
    // The client span lies within the server span.
    assert!(client.start_time_unix_nano >= server.start_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
    assert_eq!(hex(&client.span_id), passed[36..52]);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("url.path", "/things/7"),
        ("url.query", "token=***&x=1"),
        ("http.route", "/things/{id}"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "1.1"),
        ("pillion.cache", "miss"),
    ] {
        assert_eq!(attribute(server, name).as_deref(), Some(value), "{name}");
    }
    let (ip, port) = (app.address.ip().to_string(), app.address.port().to_string());
    for (name, value) in [
        ("http.request.method", "GET"),
        ("url.full", &format!("http://{}/things/7?token=***&x=1", app.address)),
        ("server.address", &ip),
        ("server.port", &port),
        ("network.peer.address", &ip),
        ("network.peer.port", &port),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(attribute(client, name).as_deref(), Some(value), "{name}");
    }
    pillion.access("of the trace", |line| line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[test]
fn fields_for_the_receiver_that_are_none_are_told() {
    let folder = Folder::new();
    let text =
        "[upstream]\nurl = \"http://127.0.0.1:1\"\n[tracing]\notlp_endpoint = \"http://127.0.0.1:2\"\n";
    let path = folder.write("pillion.toml", complete(text));
    let mut check = std::process::Command::new(binary());
    check.arg("check").arg(path).env("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key");
    let output = check.output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success() && said.contains("$OTEL_EXPORTER_OTLP_HEADERS is not a list"), "{said}");
}

#[test]
fn who_asks_decides_and_else_the_share() {
    let app = Script::echo();
    let (receiver, spans) = receiver("clinic", || true);
    let pillion = told(&app, &receiver, "1.0");
    let parent = |said: &[&str]| {
        let answer = origin::ask(&pillion, "GET /x", said).json();
        answer["fields"]["traceparent"].as_str().unwrap().to_owned()
    };
    // The caller does not record the trace: it is forwarded but not reported.
    let unsampled = PARENT.replace("-01", "-00");
    assert!(parent(&[&format!("traceparent: {unsampled}")]).ends_with("-00"));
    // The trace starts here: it is recorded, and its random id equals the request id.
    let answer = origin::ask(&pillion, "GET /x", &[]);
    let (id, begun) =
        (answer.field("x-request-id").unwrap(), answer.json()["fields"]["traceparent"].to_string());
    assert!(begun.starts_with(&format!("\"00-{id}-")) && begun.ends_with("-03\""), "{id}: {begun}");
    // A malformed `traceparent` starts a new trace, and its `tracestate` is removed.
    let known = format!("traceparent: {PARENT}");
    for malformed in [&["traceparent: 00-0-0-01"][..], &[&known, &known]] {
        let fields = [malformed, &["tracestate: vendor=1"]].concat();
        let answer = origin::ask(&pillion, "GET /x", &fields).json();
        assert!(answer["fields"]["traceparent"].as_str().unwrap().ends_with("-03"), "{answer}");
        assert!(answer["fields"]["tracestate"].is_null(), "{answer}");
    }
    let spans = wait_for(&spans, 6);
    assert_eq!(spans.len(), 6, "{spans:?}");
}

#[test]
fn a_line_names_the_trace_where_there_is_one_to_find() {
    let app = Script::echo();
    let (receiver, _) = receiver("clinic", || true);
    let unsampled = format!("traceparent: {}", PARENT.replace("-01", "-00"));
    for (sample, fields, named) in [
        // No receiver knows the trace, and the app knows it by the request id.
        ("0.0", None, false),
        ("1.0", None, true),
        // Other services may have recorded the trace.
        ("0.0", Some(&*unsampled), true),
    ] {
        let pillion = told(&app, &receiver, sample);
        let answer = origin::ask(&pillion, "GET /x", fields.as_slice());
        let id = answer.field("x-request-id").unwrap();
        let trace = answer.json()["fields"]["traceparent"].as_str().unwrap()[3..35].to_owned();
        assert_eq!(trace == *id, fields.is_none(), "{sample} {fields:?}: {id} {trace}");
        let line = pillion.access("of the request", |line| line["request_id"] == *id);
        assert_eq!(line["trace_id"].as_str(), named.then_some(&*trace), "{sample} {fields:?}: {line}");
    }
}

#[test]
fn a_line_names_the_trace_of_a_request_whose_id_is_not_ours() {
    let app = Script::echo();
    let (receiver, _) = receiver("clinic", || true);
    let pillion = Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [upstream]\nurl = \"http://{}\"\n[tracing]\notlp_endpoint = \"http://{}/v1/traces\"\nsample = 0.0\n",
        app.address, receiver.address
    ));
    let answer = origin::ask(&pillion, "GET /x", &["x-request-id: theirs"]).json();
    let line = pillion.access("of the request", |line| line["request_id"] == "theirs");
    assert_eq!(line["trace_id"].as_str(), answer["fields"]["traceparent"].as_str().map(|text| &text[3..35]));
}

#[test]
fn without_a_receiver_fields_pass_unchanged() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let answer =
        origin::ask(&pillion, "GET /", &[&format!("traceparent: {PARENT}"), "tracestate: vendor=1"]).json();
    assert_eq!(answer["fields"]["traceparent"], PARENT);
    assert_eq!(answer["fields"]["tracestate"], "vendor=1");
    assert!(pillion.get("/").json()["fields"]["traceparent"].is_null());
}

#[test]
fn failures_are_told_as_such() {
    let (receiver, spans) = receiver("pillion", || true);
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[tracing]\notlp_endpoint = \"http://{}/v1/traces\"\nsample = 1.0\n",
        absent_app(),
        receiver.address
    ));
    assert_eq!(pillion.get("/").status, 502);
    let spans = wait_for(&spans, 1);
    let server = spans.iter().find(|span| span.kind == SERVER).unwrap();
    assert_eq!(server.status.as_ref().unwrap().code, 2);
    assert_eq!(attribute(server, "error.type").as_deref(), Some("upstream"));
}

#[test]
fn what_apps_and_clients_say_is_told_by_the_conventions() {
    let app = Script::answering(|_| b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n".to_vec());
    let (receiver, spans) = receiver("pillion", || true);
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[tracing]\notlp_endpoint = \"http://{}/v1/traces\"\nsample = 1.0\n",
        app.address, receiver.address
    ));
    assert_eq!(origin::ask(&pillion, "HUNTER2 /nowhere", &[]).status, 404);
    let spans = wait_for(&spans, 2);
    let of = |kind: i32| spans.iter().find(|span| span.kind == kind).unwrap();
    let (server, client) = (of(SERVER), of(CLIENT));
    for span in [server, client] {
        // An unknown method is not used as a name, and without a route there is no route name.
        assert_eq!(span.name, "HTTP");
        assert_eq!(attribute(span, "http.request.method").as_deref(), Some("_OTHER"));
        assert_eq!(attribute(span, "http.request.method_original").as_deref(), Some("HUNTER2"));
        assert_eq!(attribute(span, "http.response.status_code").as_deref(), Some("404"));
        assert_eq!(attribute(span, "http.route"), None);
    }
    // A 404 is the client's error: an error of the client span, but not of the server span.
    assert!(server.status.is_none() && attribute(server, "error.type").is_none());
    assert_eq!(client.status.as_ref().unwrap().code, 2);
    assert_eq!(attribute(client, "error.type").as_deref(), Some("404"));
}

#[test]
fn spans_of_requests_in_turn_say_each_their_own() {
    let answering = |status: &'static str| {
        Script::answering(move |_| format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").into_bytes())
    };
    let (good, bad) = (answering("200"), answering("503"));
    let (receiver, spans) = receiver("pillion", || true);
    let pillion = Pillion::with(&format!(
        "[server]\nworkers = 1\n[upstream]\nurl = \"http://{}\"\n\
         [tracing]\notlp_endpoint = \"http://{}/v1/traces\"\nsample = 1.0\n\
         [upstreams.bad]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"* /good/{{id}}\"\n\
         [[routes]]\nmatch = \"* /bad/{{id}}\"\nupstream = \"bad\"\n",
        good.address, receiver.address, bad.address
    ));
    let asked = [("GET", "good"), ("PUT", "good"), ("GET", "bad"), ("PUT", "bad")];
    let asked =
        || (0..3).flat_map(|turn| asked.map(|(method, path)| (method, path, format!("/{path}/{turn}"))));
    for (method, _, path) in asked() {
        origin::ask(&pillion, &format!("{method} {path}"), &["content-length: 0"]);
    }
    let spans = wait_for(&spans, 24);
    for (method, name, path) in asked() {
        let is = |span: &&Span| {
            let url = attribute(span, "url.full").or_else(|| attribute(span, "url.path"));
            span.name.starts_with(method) && url.is_some_and(|url| url.ends_with(&path))
        };
        let of = |kind: i32| spans.iter().filter(is).find(|span| span.kind == kind).unwrap();
        let (server, client) = (of(SERVER), of(CLIENT));
        let (status, app) = if name == "good" { ("200", &good) } else { ("503", &bad) };
        assert_eq!((&*server.name, &*client.name), (&*format!("{method} /{name}/{{id}}"), method));
        for span in [server, client] {
            assert_eq!(attribute(span, "http.request.method").as_deref(), Some(method));
            assert_eq!(attribute(span, "http.response.status_code").as_deref(), Some(status));
        }
        let port = app.address.port().to_string();
        assert_eq!(attribute(client, "server.port"), Some(port.clone()));
        assert_eq!(attribute(client, "network.peer.port"), Some(port));
        assert_eq!(client.parent_span_id, server.span_id);
    }
}

#[test]
fn the_last_spans_are_told_before_the_end() {
    for well in [true, false] {
        let app = Script::answering(|_| ok("here"));
        let (receiver, spans) = receiver("pillion", move || well);
        let mut pillion = Pillion::with(&format!(
            "[upstream]\nurl = \"http://{}\"\n[tracing]\notlp_endpoint = \"http://{}\"\nsample = 1.0\n",
            app.address, receiver.address
        ));
        for at in 0..20 {
            assert_eq!(pillion.get(&format!("/{at}")).status, 200);
        }
        pillion.process.signal("TERM");
        assert_eq!(pillion.process.wait().code(), Some(0), "also where nobody takes them (well: {well})");
        assert_eq!(spans.lock().unwrap().len(), if well { 40 } else { 0 });
    }
}

#[test]
fn a_receiver_that_fails_touches_no_traffic() {
    let app = Script::echo();
    let well = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = well.clone();
    let (receiver, spans) = receiver("clinic", move || asked.load(std::sync::atomic::Ordering::SeqCst));
    let pillion = told(&app, &receiver, "1.0");
    for _ in 0..50 {
        assert_eq!(pillion.get("/x").status, 200);
    }
    eventually("what was not taken is counted", || {
        (pillion.metric("pillion_spans_dropped_total") >= 50.0).then_some(())
    });
    let log = pillion.log();
    assert!(log.contains("tracing.otlp_endpoint does not take spans"), "{log}");
    // The receiver must not be mistaken for the app.
    let is_of_app = |line: &str| line.contains("WARN") && line.contains("\"upstream\":\"upstream\"");
    assert!(!log.lines().any(is_of_app), "{log}");
    well.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(pillion.get("/after").status, 200);
    let after = |span: &Span| attribute(span, "url.path").as_deref() == Some("/after");
    eventually("it is told again", || spans.lock().unwrap().iter().any(after).then_some(()));
}

/// A real third-party collector, whose log shows the spans it received.
#[test]
fn a_real_receiver_reads_the_spans() {
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/rotel");
    let agent = run("find", &[tools, "-name", "rotel-agent", "-type", "f"]);
    let agent = agent.lines().next().expect("tests/run installs rotel");
    let (http, grpc) = (free_address(), free_address());
    let mut command = std::process::Command::new(agent);
    command.args([
        "start",
        "--exporter",
        "blackhole",
        "--debug-log",
        "traces",
        "--debug-log-verbosity",
        "detailed",
    ]);
    command.args(["--otlp-http-endpoint", &http.to_string(), "--otlp-grpc-endpoint", &grpc.to_string()]);
    let folder = Folder::new();
    let log = folder.path("log");
    let mut collector = Process(command.stdout(std::fs::File::create(&log).unwrap()).spawn().unwrap());
    eventually("it listens", || std::net::TcpStream::connect(http).ok());
    let app = Script::echo();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[tracing]\notlp_endpoint = \"http://{http}\"\nsample = 1.0\n\
         [[routes]]\nmatch = \"GET /things/{{id}}\"\n",
        app.address
    ));
    pillion.get("/things/7?token=s3cret");
    let told = eventually("it was told", || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.contains("pillion.request_id").then_some(text)
    });
    for part in [
        "service.name: Str(pillion)",
        ": GET /things/{id}",
        "SPAN_KIND_SERVER",
        "SPAN_KIND_CLIENT",
        "token=***",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("s3cret"));
    let _ = collector.0.kill();
}
