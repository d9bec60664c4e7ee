//! Helpers that several of these tests use.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

pub(crate) use crate::harness::script::upstream;
use crate::harness::{Answer, Folder, Pillion, binary, complete, printed, read_answer};

/// Returns a `[server]` on free ports with additional lines.
pub(crate) fn server(more: &str) -> String {
    format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{more}\n")
}

pub(crate) const DENY: &str = "[[routes]]\nmatch = \"* /denied\"\ndeny = 404\n";

pub(crate) fn applied(pillion: &Pillion) -> f64 {
    pillion.metric("pillion_config_reloads_total{result=\"applied\"}")
}

pub(crate) fn refused(pillion: &Pillion) -> f64 {
    pillion.metric("pillion_config_reloads_total{result=\"refused\"}")
}

/// Replaces a file as careful editors do: written beside it and renamed over it.
pub(crate) fn rename_over(folder: &Folder, config: &str) {
    let fresh = folder.write("fresh", complete(config));
    std::fs::rename(fresh, folder.path("pillion.toml")).unwrap();
}

/// Sends one request on a connection that stays open.
#[track_caller]
pub(crate) fn ask(tcp: &mut TcpStream, path: &str) -> Answer {
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).unwrap();
    read_answer(tcp)
}

/// Reads until the other side closes. Returns true if nothing more arrived.
pub(crate) fn closes_silently(tcp: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    tcp.read_to_end(&mut rest).is_ok() && rest.is_empty()
}

pub(crate) fn pillion(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    printed(&output.stderr)
}
