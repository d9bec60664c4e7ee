//! An app that holds writes, rules that invalidate, and clients that leave.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::origin::*;
use crate::harness::*;

/// Tagged reads, and a rule for writes with the same tag.
pub(crate) const RULES: &str = r#"
[[routes]]
match = "GET /**"
cache = { ttl = "1h", scope = "shared", tags = ["orders"] }
[[invalidate]]
on   = "POST,PUT,DELETE /orders/**"
tags = ["orders"]
"#;

/// An app that holds writes until they are released, and then responds with this status.
pub(crate) struct Holding {
    pub(crate) script: Script,
    /// Number of heads of writes that reached the app.
    pub(crate) began: Arc<AtomicUsize>,
    /// Number of complete writes that reached the app.
    pub(crate) whole: Arc<AtomicUsize>,
    /// Number of connections that ended during a write.
    pub(crate) broken: Arc<AtomicUsize>,
    pub(crate) released: Arc<AtomicBool>,
    pub(crate) says: Arc<Mutex<String>>,
}

impl Holding {
    pub(crate) fn new() -> Holding {
        let [began, whole, broken, reads] = [(); 4].map(|()| Arc::new(AtomicUsize::new(0)));
        let released = Arc::new(AtomicBool::new(false));
        let says = Arc::new(Mutex::new("200 OK".to_owned()));
        let (start, end, cut, release, line) =
            (began.clone(), whole.clone(), broken.clone(), released.clone(), says.clone());
        let script = Script::new(move |mut tcp| {
            while let Some(head) = script::head(&mut tcp) {
                let writes = !head.starts_with("GET ");
                if !writes {
                    let number = reads.fetch_add(1, Ordering::SeqCst);
                    if tcp.write_all(&ok(&format!("#{number}"))).is_err() {
                        return;
                    }
                    continue;
                }
                start.fetch_add(1, Ordering::SeqCst);
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length")
                        .then(|| value.trim().parse::<usize>().unwrap())
                });
                let mut body = vec![0; length.unwrap_or(0)];
                if std::io::Read::read_exact(&mut tcp, &mut body).is_err() {
                    cut.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                end.fetch_add(1, Ordering::SeqCst);
                tcp.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
                while !release.load(Ordering::SeqCst) {
                    match tcp.peek(&mut [0]) {
                        Ok(0) => {
                            cut.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                        Ok(_) => std::thread::sleep(Duration::from_millis(5)),
                        Err(_) => {}
                    }
                }
                tcp.set_read_timeout(Some(PATIENCE)).unwrap();
                let line = line.lock().unwrap().clone();
                let answer = format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n");
                if tcp.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Holding { script, began, whole, broken, released, says }
    }

    pub(crate) fn pillion(&self, config: &str) -> Pillion {
        Pillion::with(&format!("[upstream]\nurl = \"http://{}\"\n{config}", self.script.address))
    }
}

pub(crate) fn wait_for(what: &str, count: &AtomicUsize, wanted: usize) {
    eventually(what, || (count.load(Ordering::SeqCst) >= wanted).then_some(()));
}

/// Sends `request` and keeps the connection open.
pub(crate) fn begin(pillion: &Pillion, request: &str) -> TcpStream {
    let mut client = connect(pillion.http);
    client.write_all(request.as_bytes()).unwrap();
    client
}

pub(crate) fn leave(client: TcpStream) {
    let _ = client.shutdown(Shutdown::Both);
}

pub(crate) fn gone(pillion: &Pillion) {
    eventually("the client is gone", || (pillion.metric("pillion_client_connections") < 1.0).then_some(()));
}

pub(crate) fn is_hit(pillion: &Pillion, path: &str) -> bool {
    status_of(&get(pillion, path)).contains("; hit")
}
