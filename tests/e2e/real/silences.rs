//! Tests of long silences: gRPC streams to a server that counts PINGs, and long polls.

use std::time::Duration;

use super::tools::{acceptance, app, printed, script};
use crate::harness::{Folder, Pillion, now, run};

/// Six silent minutes under the defaults on acceptance; otherwise a silence longer than an ordinary request allows.
#[test]
fn still_right_a_grpc_stream_may_be_silent() {
    let (_app, address) = app("grpc", "notes.py", &["serve"]);
    let (seconds, timeouts) = match acceptance() {
        true => ("360", ""),
        false => ("2", "response_timeout = \"500ms\"\nbody_timeout = \"500ms\"\n"),
    };
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{address}\"\n{timeouts}"));
    let told = printed(script("grpc", "notes.py", &["talk", &pillion.http.to_string(), seconds]));
    assert_eq!(told, format!("heard before 0\nheard after {seconds}\nafter {seconds}\n"));
}

/// A long poll of 65 s with `response_timeout` raised to 90 s on acceptance; otherwise the same with shorter times.
#[test]
fn still_right_a_long_poll_waits_as_long_as_it_is_allowed_to() {
    let folder = Folder::new();
    let (_app, address) = app("node", "express.cjs", &[&folder.0.display().to_string()]);
    let (seconds, raised, default) = match acceptance() {
        true => ("65", "90s", ""),
        false => ("1.5", "10s", "response_timeout = \"500ms\"\n"),
    };
    let by_upstream =
        Pillion::with(&format!("[upstream]\nurl = \"http://{address}\"\nresponse_timeout = \"{raised}\"\n"));
    let by_route = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{address}\"\n{default}[[routes]]\nmatch = \"GET /poll\"\ntimeout = \"{raised}\"\n"
    ));
    std::thread::scope(|scope| {
        for pillion in [&by_upstream, &by_route] {
            for version in ["--http1.1", "--http2-prior-knowledge"] {
                scope.spawn(move || {
                    let since = now();
                    // Different URLs, because equal concurrent requests would be collapsed.
                    let url = pillion.url(&format!("/poll?seconds={seconds}&by={version}"));
                    assert_eq!(run("curl", &["-sS", version, &url]), format!("{{\"after\":\"{seconds}\"}}"));
                    assert!(since.elapsed() >= Duration::from_secs_f64(seconds.parse().unwrap()));
                });
            }
        }
        // Other routes keep their timeout: 60 s by default.
        let url = by_route.url(&format!("/slow?seconds={seconds}"));
        scope.spawn(move || {
            assert_eq!(run("curl", &["-sS", "-o", "/dev/null", "-w", "%{http_code}", &url]), "504")
        });
    });
}
