//! Helpers that several of these tests use.

use std::fmt::Write as _;
use std::process::Command;

use crate::harness::{Answer, Pillion, Script, exchange};

/// Returns JSON as apps write it: `items` objects of about 80 bytes each.
pub(crate) fn items(items: usize) -> String {
    let mut text = String::from("[");
    for id in 0..items {
        let comma = if id > 0 { "," } else { "" };
        write!(
            text,
            "{comma}{{\"id\":{id},\"name\":\"Ada Lovelace\",\"notes\":\"No known allergies\",\"sum\":{}}}",
            id * 37 % 101
        )
        .unwrap();
    }
    text + "]"
}

pub(crate) fn get(pillion: &Pillion, path: &str, fields: &str) -> Answer {
    exchange(pillion.http, &format!("GET {path} HTTP/1.1\r\nhost: test\r\n{fields}connection: close\r\n\r\n"))
}

pub(crate) fn head_of(pillion: &Pillion, path: &str, fields: &str) -> Answer {
    exchange(
        pillion.http,
        &format!("HEAD {path} HTTP/1.1\r\nhost: test\r\n{fields}connection: close\r\n\r\n"),
    )
}

/// Starts an app that responds to everything with this content and these field lines.
pub(crate) fn saying(content: &str, fields: &'static str) -> Script {
    let content = content.to_owned();
    Script::answering(move |request| {
        let length = content.len();
        let body = if request.line.starts_with("HEAD ") { "" } else { &content };
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{fields}\r\n{body}").into_bytes()
    })
}

pub(crate) const JSON: &str = "content-type: application/json\r\n";

/// Returns the status, the decoded content and the fields of a response, from curl.
pub(crate) fn curl(url: &str, args: &[&str]) -> (String, Vec<u8>, String) {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "20", "-D", "-", "-w", "%{stderr}%{http_code}", url])
        .args(args)
        .output()
        .unwrap();
    let status = String::from_utf8(output.stderr).unwrap();
    let end = output.stdout.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(output.stdout[..end].to_vec()).unwrap().to_lowercase();
    (status, output.stdout[end..].to_vec(), head)
}

pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}
