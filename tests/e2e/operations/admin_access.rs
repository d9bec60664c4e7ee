//! Tests of access to the admin listener, and of escaping in the log.

use std::io::Write as _;
use std::net::SocketAddr;

use crate::harness::*;

fn asked(address: SocketAddr, line: &str, fields: &str) -> u16 {
    exchange(address, &format!("{line} HTTP/1.1\r\ncontent-length: 0\r\nconnection: close\r\n{fields}\r\n"))
        .status
}

const SERVER: &str =
    "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nprobes = \"127.0.0.1:0\"\n";

/// Regression: a page whose owner pointed its name at 127.0.0.1 could read metrics and purge (DNS rebinding).
#[test]
fn n3_10_the_admin_listener_answers_to_names_that_nobody_else_can_have() {
    let app = Script::echo();
    let more =
        format!("admin_hosts = [\"Pillion.example.com\"]\n[upstream]\nurl = \"http://{}\"\n", app.address);
    let pillion = Pillion::with(&format!("{SERVER}{more}"));
    pillion.wait_until_ready();
    let own = run("hostname", &[]).trim().to_owned();
    for host in [
        "localhost",
        "localhost:9900",
        "LOCALHOST.",
        "a.localhost",
        "127.0.0.1",
        "127.0.0.1:9900",
        "10.1.2.3",
        "[::1]:9900",
        "pillion.example.com:9900",
        "pillion.example.com.",
        &own,
    ] {
        for path in ["/metrics", "/cache/stats", "/performance/routes", "/limits/top", "/health", "/"] {
            let host = format!("host: {host}\r\n");
            assert_eq!(asked(pillion.admin, &format!("GET {path}"), &host), 200, "{path} {host}");
        }
    }
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "xlocalhost.example",
        "www.pillion.example.com",
        "pillion.example.com.evil.example",
        "[::1].evil.example",
        "",
        ".",
        ":9900",
    ] {
        let host = format!("host: {host}\r\n");
        for line in [
            "GET /metrics",
            "GET /health",
            "GET /",
            "GET /cache/stats",
            "GET /limits/top",
            "GET /performance/routes",
            "GET /events",
            "POST /cache/purge?everything=true",
            "POST /reload",
            "POST /drain",
            "POST /quit",
        ] {
            let status = asked(pillion.admin, line, &host);
            // A malformed Host gets 400.
            assert!([400, 403].contains(&status), "{line} {host}: {status}");
        }
        // Probes may use any name by which a kubelet or a scraper knows the process.
        let status = asked(pillion.probes.unwrap(), "GET /metrics", &host);
        assert!([200, 400].contains(&status), "{host}: {status}");
    }
    assert_eq!(asked(pillion.admin, "GET /cache/stats", "host: intranet\r\n"), 403);
    // No page can send a request without Host, but balancers do, over HTTP/1.0.
    assert_eq!(exchange(pillion.admin, "GET /metrics HTTP/1.0\r\n\r\n").status, 200);
    assert_eq!(pillion.admin_get("/ready").status, 200, "nothing was done");
}

#[test]
fn n3_10_with_the_token_any_host_is_answered() {
    let app = Script::echo();
    let more = format!("admin_token = \"s3cret-token\"\n[upstream]\nurl = \"http://{}\"\n", app.address);
    let pillion = Pillion::with(&format!("{SERVER}{more}"));
    let (evil, token) = ("host: evil.example\r\n", "authorization: Bearer s3cret-token\r\n");
    for path in ["/metrics", "/cache/stats", "/performance/routes"] {
        let line = format!("GET {path}");
        assert_eq!(asked(pillion.admin, &line, &format!("{evil}{token}")), 200, "{path}");
        let without = asked(pillion.admin, &line, evil);
        assert!([401, 403].contains(&without), "{path}: {without}");
        let wrong = asked(pillion.admin, &line, &format!("{evil}authorization: Bearer wrong\r\n"));
        assert!([401, 403].contains(&wrong), "{path}: {wrong}");
    }
}

#[test]
fn n3_10_pages_of_other_sites_are_refused() {
    let app = Script::echo();
    let pillion = Pillion::with(&format!("{SERVER}[upstream]\nurl = \"http://{}\"\n", app.address));
    let site = |site: &str| format!("host: localhost\r\nsec-fetch-site: {site}\r\n");
    for path in ["/metrics", "/cache/stats", "/", "/live"] {
        let line = format!("GET {path}");
        for other in ["cross-site", "Cross-Site", "CROSS-SITE", "cross-site, none", "", "new-word"] {
            assert_eq!(asked(pillion.admin, &line, &site(other)), 403, "{path} {other}");
        }
        for fine in ["none", "same-origin", "same-site", "Same-Origin"] {
            assert_eq!(asked(pillion.admin, &line, &site(fine)), 200, "{path} {fine}");
        }
    }
    assert_eq!(asked(pillion.admin, "POST /quit", &site("cross-site")), 403);
    assert_eq!(asked(pillion.admin, "GET /live", &site("none")), 200);
}

#[test]
fn n3_10_names_in_admin_hosts_are_checked() {
    let folder = Folder::new();
    for (name, fine) in
        [("pillion.example.com", true), ("pillion", true), ("a:80", false), ("", false), ("http://a", false)]
    {
        let text =
            format!("[server]\nadmin_hosts = [\"{name}\"]\n[upstream]\nurl = \"http://127.0.0.1:1\"\n");
        let path = folder.write("pillion.toml", text);
        let output = std::process::Command::new(binary()).arg("check").arg(path).output().unwrap();
        assert_eq!(output.status.success(), fine, "{name}: {}", printed(&output.stderr));
    }
}

/// Regression: a right-to-left override reordered log lines on a terminal or in a browser.
#[test]
fn n3_10_logs_show_nothing_unprintable_raw() {
    let hidden =
        ['\u{202e}', '\u{2066}', '\u{2028}', '\u{2029}', '\u{200b}', '\u{feff}', '\u{9b}', '\u{e0041}'];
    for format in ["json", "pretty"] {
        let app = Script::new(|mut tcp| {
            // A malformed head, so that its text may get into an event.
            while Request::read(&mut tcp).is_some() {
                let _ =
                    tcp.write_all("HTTP/1.1 200 OK\r\nx\u{202e}y: 1\r\ncontent-length: 0\r\n\r\n".as_bytes());
            }
        });
        let folder = std::sync::Arc::new(Folder::new());
        // The listeners are found in the JSON log, so the other format is set by a reload.
        let config = |format: &str| {
            format!(
                "[log]\nformat = \"{format}\"\nlevel = \"debug\"\n{SERVER}[upstream]\nurl = \"http://{}\"\n",
                app.address
            )
        };
        let mut command = std::process::Command::new(binary());
        let http = free_address();
        let path = folder.write("pillion.toml", config(format).replacen("127.0.0.1:0", &http.to_string(), 1));
        command.args(["run", "--config"]).arg(&path);
        command.stdin(std::process::Stdio::null());
        let out = std::fs::File::create(folder.path("out")).unwrap();
        let err = std::fs::File::create(folder.path("err")).unwrap();
        let child = command.stdout(out).stderr(err).spawn().unwrap();
        let _process = Process(child);
        eventually("it listens", || std::net::TcpStream::connect(http).ok());
        for c in hidden {
            let line = format!("GET /a{c}b?q={c} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            let mut tcp = connect(http);
            tcp.write_all(line.as_bytes()).unwrap();
            let mut answer = Vec::new();
            let _ = std::io::Read::read_to_end(&mut tcp, &mut answer);
        }
        let said = eventually("all were logged", || {
            let out = std::fs::read_to_string(folder.path("out")).unwrap();
            (out.lines().count() >= hidden.len()).then_some(out)
        });
        let events = std::fs::read_to_string(folder.path("err")).unwrap();
        for c in hidden {
            assert!(!said.contains(c), "{format} {:x}: {said}", u32::from(c));
            assert!(!events.contains(c), "{format} {:x}: {events}", u32::from(c));
        }
        if format == "json" {
            for line in said.lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap();
            }
        }
    }
}

#[test]
fn n5_4_a_404_names_our_path_for_those_known_from_elsewhere() {
    let app = Script::echo();
    let pillion = Pillion::with(&format!("{SERVER}[upstream]\nurl = \"http://{}\"\n", app.address));
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/migration.md")).unwrap();
    let table = guide.split("| Paths of other admin listeners |").nth(1).unwrap();
    let mut asked = 0;
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let mut cells = row.split('|').skip(1);
        let (known, ours) = (cells.next().unwrap(), cells.next().unwrap().trim().trim_matches('`'));
        for path in known.split(',').map(|path| path.trim().trim_matches('`').replace('*', "nowhere")) {
            let answer = pillion.admin_get(&path);
            assert_eq!(answer.status, 404, "{path}: {}", answer.text());
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(&format!("is {ours} here")), "{path}: {detail}");
            asked += 1;
        }
    }
    assert!(asked > 50, "{asked}");
    let below = pillion.admin_get("/internal/performance/summary?window=1h");
    assert!(below.json()["detail"].as_str().unwrap().contains("GET /performance/routes"), "{}", below.text());
    let unknown = pillion.admin_get("/nowhere").json()["detail"].as_str().unwrap().to_owned();
    assert!(unknown.contains("this listener has no path"), "{unknown}");
    let probes = pillion.probes.unwrap();
    let said = exchange(probes, "GET /cache/stats HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(said.status, 404);
    assert!(said.text().contains("on the admin listener only"), "{}", said.text());
}
