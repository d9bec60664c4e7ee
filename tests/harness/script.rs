//! Apps that do what a test tells them, one connection after the other.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::PATIENCE;
use super::wire::dechunk;

/// An origin that plays a script: each connection is passed to `play` on a thread of its own. It shows behaviour that
/// no real server shows on request: dying half-way, malformed responses, exact timing.
pub(crate) struct Script {
    pub address: SocketAddr,
    /// Number of connections on which anything was received.
    pub connections: Arc<AtomicUsize>,
}

impl Script {
    pub(crate) fn new(play: impl Fn(TcpStream) + Send + Sync + 'static) -> Script {
        Script::on(TcpListener::bind("127.0.0.1:0").unwrap(), play)
    }

    pub(crate) fn on(listener: TcpListener, play: impl Fn(TcpStream) + Send + Sync + 'static) -> Script {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (play, count) = (Arc::new(play), connections.clone());
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let Ok(tcp) = tcp else { return };
                tcp.set_read_timeout(Some(PATIENCE)).unwrap();
                tcp.set_nodelay(true).unwrap();
                let (play, count) = (play.clone(), count.clone());
                std::thread::spawn(move || {
                    // Pillion connects without sending a byte to check that the app is there, which is no request.
                    if matches!(tcp.peek(&mut [0]), Ok(0)) {
                        return;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    play(tcp);
                });
            }
        });
        Script { address, connections }
    }

    /// Responds to every request of every connection with the result of `answer`. The bodies of requests must have a
    /// Content-Length or chunks.
    pub(crate) fn answering(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Script {
        Script::new(move |mut tcp| {
            while let Some(request) = Request::read(&mut tcp) {
                if tcp.write_all(&answer(&request)).is_err() {
                    return;
                }
            }
        })
    }

    /// Responds 413 before reading the body, and closes the connection.
    pub(crate) fn refusing_early() -> Script {
        Script::new(|mut tcp| {
            let mut head = [0u8; 100];
            let _ = tcp.read(&mut head);
            let _ = tcp.write_all(
                b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno\n",
            );
        })
    }

    /// Responds with JSON that describes the request: method, target, fields (lower case, joined by "; "), body.
    pub(crate) fn echo() -> Script {
        Script::answering(|request| ok(&request.to_json().to_string()))
    }
}

/// Returns a configuration with this app as its upstream and nothing else.
pub(crate) fn upstream(app: &Script) -> String {
    format!("[upstream]\nurl = \"http://{}\"\n", app.address)
}

/// Returns a 200 response with this content.
pub(crate) fn ok(content: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{content}",
        content.len()
    )
    .into_bytes()
}

/// Reads a head and nothing after it; `None` if the connection ends first.
pub(crate) fn head(tcp: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if tcp.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// A request as an origin receives it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub line: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// Reads a request; `None` if the connection ends first.
    pub(crate) fn read(tcp: &mut impl Read) -> Option<Request> {
        let head = head(tcp)?;
        let mut lines = head.lines();
        let line = lines.next()?.to_owned();
        let fields: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut request = Request { line, fields, body: Vec::new() };
        if let Some(length) = request.field("content-length") {
            request.body.resize(length.parse().ok()?, 0);
            tcp.read_exact(&mut request.body).ok()?;
        } else if request.field("transfer-encoding").is_some() {
            let (mut wire, mut byte) = (Vec::new(), [0u8; 1]);
            while !(wire.ends_with(b"\r\n0\r\n\r\n") || wire == b"0\r\n\r\n") {
                if tcp.read(&mut byte).ok()? == 0 {
                    return None;
                }
                wire.push(byte[0]);
            }
            request.body = dechunk(&wire);
        }
        Some(request)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut fields = serde_json::Map::new();
        for (name, value) in &self.fields {
            let joined = match fields.get(name).and_then(|before| before.as_str()) {
                Some(before) => format!("{before}; {value}"),
                None => value.clone(),
            };
            fields.insert(name.clone(), joined.into());
        }
        let mut line = self.line.split(' ');
        serde_json::json!({
            "method": line.next(),
            "target": line.next(),
            "fields": fields,
            "body": String::from_utf8_lossy(&self.body),
        })
    }
}
