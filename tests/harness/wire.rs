//! Requests and responses as bytes, so that nothing between a test and the wire corrects them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;
use super::texts::{known, known_bytes};

/// An HTTP/1 response, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn parse(raw: &[u8]) -> Answer {
        let end = raw.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(raw)));
        let head = String::from_utf8_lossy(&raw[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let mut answer = Answer { status, head, body: raw[end + 4..].to_vec() };
        if answer.field("transfer-encoding").as_deref() == Some("chunked") {
            answer.body = dechunk(&answer.body);
        }
        answer.head = known(answer.head);
        answer.body = known_bytes(answer.body);
        answer
    }

    pub(crate) fn field(&self, name: &str) -> Option<String> {
        self.fields(name).into_iter().next()
    }

    pub(crate) fn fields(&self, name: &str) -> Vec<String> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

pub(super) fn dechunk(mut wire: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(end) = wire.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&wire[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return content;
        }
        content.extend_from_slice(&wire[end + 2..end + 2 + size]);
        wire = &wire[end + 4 + size..];
    }
    content
}

/// Opens a connection whose reads time out eventually.
#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp
}

/// Sends `bytes` and reads until the other side closes.
#[track_caller]
pub(crate) fn raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut tcp = connect(address);
    // A server that refuses early may close before everything is written; its response still counts.
    let _ = tcp.write_all(bytes.as_ref());
    let mut answer = Vec::new();
    match tcp.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if !answer.is_empty() => panic!("{error} after {:?}", String::from_utf8_lossy(&answer)),
        Err(error) => panic!("{error}"),
    }
    answer
}

/// Sends one request and reads its response, on a connection that the other side then closes.
#[track_caller]
pub(crate) fn exchange(address: SocketAddr, request: &str) -> Answer {
    Answer::parse(&raw(address, request))
}

/// Reads one response from a connection that stays open.
#[track_caller]
pub(crate) fn read_answer(tcp: &mut impl Read) -> Answer {
    let mut raw = Vec::new();
    let mut byte = [0u8; 1];
    while !raw.ends_with(b"\r\n\r\n") {
        assert_eq!(tcp.read(&mut byte).unwrap(), 1, "closed after {:?}", String::from_utf8_lossy(&raw));
        raw.push(byte[0]);
    }
    let head = Answer::parse(&raw);
    let mut body = Vec::new();
    if let Some(length) = head.field("content-length") {
        body.resize(length.parse().unwrap(), 0);
        tcp.read_exact(&mut body).unwrap();
    } else if head.field("transfer-encoding").is_some() {
        while !(body.ends_with(b"\r\n0\r\n\r\n") || body == b"0\r\n\r\n") {
            assert_eq!(tcp.read(&mut byte).unwrap(), 1);
            body.push(byte[0]);
        }
        body = dechunk(&body);
    }
    Answer { body: known_bytes(body), ..head }
}

/// Sends a request with additional fields to a listener.
#[track_caller]
pub(crate) fn ask(address: SocketAddr, line: &str, more: &str) -> Answer {
    exchange(
        address,
        &format!("{line} HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n{more}\r\n"),
    )
}
