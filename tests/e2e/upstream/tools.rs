//! Helpers that several of these tests use.

use std::io::Write;
use std::net::SocketAddr;

use crate::harness::{Answer, Pillion, Script, connect, ok, read_answer};

/// A configuration with one worker, so that there is one pool.
pub(crate) const ONE_WORKER: &str =
    "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nworkers = 1\n";

/// Starts an app that responds with its name.
pub(crate) fn named(name: &'static str) -> Script {
    Script::answering(move |_| ok(name))
}

pub(crate) fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n")
}

/// Sends one request on a connection of its own.
#[track_caller]
pub(crate) fn send(pillion: &Pillion, method: &str, path: &str) -> Answer {
    let mut tcp = connect(pillion.http);
    tcp.write_all(request(method, path).as_bytes()).unwrap();
    read_answer(&mut tcp)
}

/// Returns the only sample of `name` whose labels include `label`.
pub(crate) fn sample(pillion: &Pillion, name: &str, label: &str) -> Option<f64> {
    let text = pillion.admin_get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(label))?;
    line.rsplit(' ').next()?.parse().ok()
}

pub(crate) fn healthy(pillion: &Pillion, address: SocketAddr) -> bool {
    sample(pillion, "pillion_upstream_healthy", &format!("\"{address}\"")) == Some(1.0)
}
