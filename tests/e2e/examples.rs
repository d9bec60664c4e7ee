//! Tests of every example: it loads unchanged except for addresses, and does what it is for.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::harness::origin::*;
use crate::harness::*;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// Starts an example in front of these apps, in the order of its addresses.
fn example(name: &str, apps: &[SocketAddr]) -> Pillion {
    let folder = Arc::new(Folder::new());
    example_in(folder, name, apps)
}

fn example_in(folder: Arc<Folder>, name: &str, apps: &[SocketAddr]) -> Pillion {
    let mut text = std::fs::read_to_string(format!("{EXAMPLES}/{name}.toml")).unwrap();
    for (written, app) in ["127.0.0.1:3000", "127.0.0.1:3001", "127.0.0.1:3002"].iter().zip(apps) {
        text = text.replace(written, &app.to_string());
    }
    text = text.replace("127.0.0.1:50051", &apps[0].to_string());
    text = text.replace("\"[::]:8080\"", "\"127.0.0.1:0\"").replace("\"[::]:8443\"", "\"127.0.0.1:0\"");
    let listen =
        if text.contains("\nlisten = [\"127.0.0.1:0\"]") { "" } else { "listen = [\"127.0.0.1:0\"]\n" };
    text = text.replace("\n[server]\n", &format!("\n[server]\n{listen}admin = \"127.0.0.1:0\"\n"));
    Pillion::in_folder(folder, &text)
}

#[test]
fn minimal() {
    let app = Script::answering(|_| ok("hello"));
    let pillion = example("minimal", &[app.address]);
    let tag = pillion.get("/").field("etag").unwrap();
    assert_eq!(ask(&pillion, "GET /", &[&format!("if-none-match: {tag}")]).status, 304);
}

#[test]
fn spa() {
    let app = Nginx::serving(
        "types { text/html html; application/javascript js; } server { listen LISTEN; root FOLDER; location / { try_files $uri /index.html; } }",
    );
    app.folder.write("index.html", "<title>one</title>");
    std::fs::create_dir(app.folder.path("assets")).unwrap();
    app.folder.write("assets/app.1a2b.js", "console.log('app');\n".repeat(200));
    let pillion = example("spa", &[app.address]);

    let coded = ask(&pillion, "GET /assets/app.1a2b.js", &["accept-encoding: br"]);
    assert_eq!((coded.status, coded.field("content-encoding").as_deref()), (200, Some("br")));
    assert!(coded.field("cache-control").unwrap().contains("max-age=31536000"));
    let again = ask(&pillion, "GET /assets/app.1a2b.js", &["accept-encoding: br"]);
    assert!(status_of(&again).contains("hit"), "{again:?}");
    // The app is gone, but delivered responses are still stored.
    let page = get(&pillion, "/somewhere/deep");
    assert_eq!((page.status, page.field("x-frame-options").as_deref()), (200, Some("DENY")));
    drop(app);
    assert!(get(&pillion, "/somewhere/deep").text().contains("one"));
}

#[test]
fn graphql() {
    let app = Origin::new();
    let pillion = example("graphql", &[app.script.address]);
    let post = |path: &str, user: &str, document: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {user}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{document}",
            document.len()
        );
        exchange(pillion.http, &head)
    };
    let first = post("/graphql/query", "ada", r#"{"query":"{me}","variables":{}}"#).text();
    assert_eq!(post("/graphql/query", "ada", r#"{ "variables": {}, "query": "{me}" }"#).text(), first);
    assert_ne!(post("/graphql/query", "bob", r#"{"query":"{me}","variables":{}}"#).text(), first);
    assert_ne!(post("/graphql/query", "ada", r#"{"query":"{you}","variables":{}}"#).text(), first);
    assert_eq!(app.count(), 3);
    post("/graphql/mutation", "ada", r#"{"query":"mutation"}"#);
    let after = post("/graphql/query", "ada", r#"{"query":"{me}","variables":{}}"#).text();
    assert_ne!(after, first, "a mutation drops what was answered");
    assert_eq!(post("/search", "ada", "{}").text(), post("/search", "bob", "{}").text(), "shared");
}

#[test]
fn realtime() {
    let app = Script::new(|mut tcp| {
        let Some(request) = Request::read(&mut tcp) else { return };
        if request.field("upgrade").is_some() {
            tcp.write_all(b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello")
                .unwrap();
        } else {
            tcp.write_all(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n\r\ndata: one\n\n").unwrap();
        }
        // Keeps the connection open until the other side closes it.
        let _ = tcp.read(&mut [0; 64]);
    });
    let pillion = example("realtime", &[app.address]);
    let heard = |request: &str, until: &str| {
        let mut tcp = connect(pillion.http);
        tcp.write_all(request.as_bytes()).unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(until) {
            let mut buffer = [0; 1024];
            let read = tcp.read(&mut buffer).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..read]);
        }
        (String::from_utf8_lossy(&seen).into_owned(), tcp)
    };
    let upgrade = "GET /ws/room HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n";
    let (said, socket) = heard(upgrade, "hello");
    assert!(said.starts_with("HTTP/1.1 101"), "{said}");
    let (_, mut events) = heard("GET /events/1 HTTP/1.1\r\nhost: a\r\n\r\n", "data: one");
    // On shutdown Pillion closes streams after `drain_delay`, and does not wait for WebSockets forever.
    pillion.process.signal("TERM");
    let mut rest = Vec::new();
    events.read_to_end(&mut rest).unwrap();
    drop(socket);
    assert_eq!(pillion.stop().code(), Some(0));
}

#[test]
fn grpc() {
    let app = Nginx::serving("server { listen LISTEN http2; location / { return 200; } }");
    let pillion = example("grpc", &[app.address]);
    let call = |path: &str| {
        run(
            "curl",
            &[
                "-s",
                "-i",
                "--http2-prior-knowledge",
                "-X",
                "POST",
                "-H",
                "content-type: application/grpc",
                "-H",
                "te: trailers",
                &format!("http://{}{path}", pillion.http),
            ],
        )
    };
    let said = call("/notes.Notes/Say");
    assert!(said.starts_with("HTTP/2 200") && said.contains("ratelimit-policy: \"calls\""), "{said}");
    let said = call("/grpc.health.v1.Health/Check");
    assert!(said.starts_with("HTTP/2 200") && !said.contains("ratelimit"), "{said}");
}

#[test]
fn replicas() {
    let apps = [Origin::new(), Origin::new(), Origin::new()];
    let pillion =
        example("replicas", &[apps[0].script.address, apps[1].script.address, apps[2].script.address]);
    let asked = |origin: &Origin, what: &str| {
        origin.seen.lock().unwrap().iter().filter(|request| request.line.starts_with(what)).count()
    };
    for number in 0..30 {
        assert_eq!(ask(&pillion, &format!("GET /api/{number}"), &["authorization: Bearer a"]).status, 200);
        assert_eq!(ask(&pillion, "PUT /other", &["content-length: 0"]).status, 200);
    }
    assert_eq!(asked(&apps[0], "PUT"), 30, "writes go to the primary");
    assert!(asked(&apps[1], "GET /api") > 0 && asked(&apps[2], "GET /api") > 0);
    let reads: usize = apps.iter().map(|app| asked(app, "GET /api")).sum();
    assert_eq!(reads, 30);
}

#[test]
fn edge() {
    let app = Origin::new();
    let folder = Arc::new(Folder::new());
    let (cert, key) = (folder.path("edge-cert.pem"), folder.path("edge-key.pem"));
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=a",
            "-days",
            "30",
            "-keyout",
            key.to_str().unwrap(),
            "-out",
            cert.to_str().unwrap(),
        ],
    );
    let pillion = example_in(folder, "edge", &[app.script.address]);
    let plain = get(&pillion, "/x");
    assert_eq!(plain.status, 308);
    assert!(plain.field("location").unwrap().starts_with("https://a.example"));
    let https = pillion.https.unwrap();
    let said = run("curl", &["-s", "-k", "-i", &format!("https://{https}/x")]);
    assert!(said.contains("strict-transport-security: max-age=31536000"), "{said}");
    assert!(said.contains("ratelimit-policy: \"requests\""), "{said}");
    let said = run("curl", &["-s", "-k", "-i", &format!("https://{https}/internal/x")]);
    assert!(said.starts_with("HTTP/2 404"), "{said}");
}

#[test]
fn saas() {
    let app = Origin::new();
    let folder = Arc::new(Folder::new());
    std::fs::copy(format!("{EXAMPLES}/saas-keys.toml"), folder.path("saas-keys.toml")).unwrap();
    let pillion = example_in(folder, "saas", &[app.script.address]);
    assert_eq!(ask(&pillion, "GET /x", &["x-api-key: made-up"]).status, 401);
    let known = ask(&pillion, "GET /x", &["x-api-key: demo-key"]);
    assert_eq!((known.status, known.field("x-ratelimit-limit").as_deref()), (200, Some("1000")));
    let nobody: Vec<u16> = (0..3).map(|_| get(&pillion, "/x").status).collect();
    assert_eq!(nobody, [200, 200, 429], "the free tier, by address");
    assert_eq!(get(&pillion, "/api/status").status, 200);
}

#[test]
fn minimal_in_front_of_a_real_app() {
    let (_process, address) = httpbin();
    let pillion = example("minimal", &[address]);
    let page = ask(&pillion, "GET /html", &["accept-encoding: br"]);
    assert_eq!((page.status, page.field("content-encoding").as_deref()), (200, Some("br")));
    let tag = get(&pillion, "/json").field("etag").unwrap();
    assert_eq!(ask(&pillion, "GET /json", &[&format!("if-none-match: {tag}")]).status, 304);
    get(&pillion, "/cache/60");
    assert!(status_of(&get(&pillion, "/cache/60")).contains("hit"), "the app says that it may be stored");
    let private = |user: &str| {
        let said = ask(&pillion, "GET /bearer", &[&format!("authorization: Bearer {user}")]);
        said.json()["token"].as_str().unwrap().to_owned()
    };
    assert_eq!([private("ada"), private("bob")], ["ada", "bob"]);
    let posted =
        ask(&pillion, "POST /anything?x=1", &["content-length: 0", "x-forwarded-for: 1.2.3.4"]).json();
    assert_eq!(posted["method"], "POST");
    assert_eq!(posted["origin"], "127.0.0.1", "what clients say of themselves is not believed");
    assert_eq!(get(&pillion, "/status/418").status, 418);
    assert_eq!(get(&pillion, "/stream-bytes/100000?seed=1").body.len(), 100_000);
}

#[test]
fn saas_in_front_of_a_real_app() {
    let (_process, address) = httpbin();
    let folder = Arc::new(Folder::new());
    std::fs::copy(format!("{EXAMPLES}/saas-keys.toml"), folder.path("saas-keys.toml")).unwrap();
    let pillion = example_in(folder, "saas", &[address]);
    assert_eq!(ask(&pillion, "GET /get", &["x-api-key: made-up"]).status, 401);
    for _ in 0..20 {
        let answer = ask(&pillion, "GET /get", &["x-api-key: demo-key"]);
        assert_eq!(answer.status, 200);
        assert!(answer.field("ratelimit").unwrap().contains("r="), "{answer:?}");
    }
    let nobody: Vec<u16> = (0..3).map(|_| get(&pillion, "/get").status).collect();
    assert_eq!(nobody, [200, 200, 429]);
}
