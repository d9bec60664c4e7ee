//! `pillion demo`: every line it prints does what it says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::process::Command;
use std::sync::Arc;

use harness::{Folder, Pillion, eventually};

fn demo() -> Pillion {
    let folder = Arc::new(Folder::new());
    let config = "[upstream]\n[log]\nformat = \"json\"\naccess = \"off\"\n";
    let path = folder.write("demo.toml", config);
    let mut command = Command::new(harness::binary());
    command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(path);
    Pillion::start(folder, command)
}

/// The printed commands, without their comments.
fn lines(pillion: &Pillion) -> Vec<String> {
    let text = eventually("the demo says how to stop it", || {
        let text = pillion.access_log();
        text.contains("Ctrl-C").then_some(text)
    });
    let commands = text.lines().filter(|line| line.starts_with("  curl ") || line.starts_with("  tag="));
    commands.map(|line| line.split("  #").next().unwrap().trim().to_owned()).collect()
}

fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_printed_line_does_what_it_says() {
    let pillion = demo();
    let lines = lines(&pillion);
    assert!(lines.len() >= 11, "{lines:#?}");
    let said: Vec<String> = lines.iter().map(|line| shell(line)).collect();
    let of = |part: &str| -> &str {
        let at = lines
            .iter()
            .position(|line| line.contains(part))
            .unwrap_or_else(|| panic!("no line with {part}"));
        &said[at]
    };
    assert!(of("head -c 300").contains("\"items\""));
    assert!(of("-si ").contains("x-request-id: "));
    let bytes = |part: &str| -> usize { of(part).trim_end_matches(" bytes\n").parse().unwrap() };
    assert!(bytes("--compressed") < bytes("s -w '%{size") / 5);
    assert!(of("If-None-Match").starts_with("HTTP/1.1 304 "));
    assert!(of("-X PUT").contains("Tromso"));
    assert!(of("--http2-prior-knowledge").contains("Tromso"), "the write is seen by the next read");
    let seconds: f64 = of("time_total").trim_end_matches(" s\n").parse().unwrap();
    assert!(seconds >= 0.3, "a report takes 300 ms: {seconds}");
    assert!(of("%2e%2e").contains("urn:pillion:problem:ambiguous-path"));
    assert!(of("/ready").contains("ready"));
    assert!(of("/metrics").contains("pillion_http_requests_total{"));
    assert!(pillion.stop().success());
}

#[test]
fn the_clinic_keeps_what_is_written_and_knows_nothing_of_caching() {
    let pillion = demo();
    let made = shell(&format!("curl -s -X POST {} -d '{{\"name\":\"Ada\"}}'", pillion.url("/api/patients")));
    let id = serde_json::from_str::<serde_json::Value>(&made).unwrap()["id"].as_u64().unwrap();
    let path = format!("/api/patients/{id}");
    let read = pillion.get(&path);
    assert_eq!((read.status, read.json()["name"].as_str()), (200, Some("Ada")));
    let said = pillion.access_log();
    let app = said.split("which is at http://").nth(1).and_then(|rest| rest.split(')').next()).unwrap();
    let head =
        "GET /api/patients HTTP/1.1\r\nhost: app\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n";
    let read = harness::exchange(app.parse().unwrap(), head);
    for field in ["etag", "cache-control", "content-encoding", "last-modified"] {
        assert_eq!(read.field(field), None, "{field}");
    }
    let deleted =
        shell(&format!("curl -s -o /dev/null -w '%{{http_code}}' -X DELETE {}", pillion.url(&path)));
    assert_eq!(deleted, "204");
    assert_eq!(pillion.get(&path).status, 404);
    assert_eq!(pillion.get("/api/patients/7/visits").json()["items"].as_array().unwrap().len(), 3);
    assert!(pillion.get("/api/reports/billing").json()["open"].as_u64().unwrap() > 0);
}
