//! An app for tests of the cache.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{Answer, Pillion, Request, Script, exchange};

/// An app that sends configured fields, numbers its responses, and records the requests that reach it.
pub(crate) struct Origin {
    pub script: Script,
    pub seen: Arc<Mutex<Vec<Request>>>,
    says: Arc<Mutex<HashMap<String, String>>>,
}

impl Origin {
    pub(crate) fn new() -> Origin {
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let says: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let count = AtomicUsize::new(0);
        let (recorded, told) = (seen.clone(), says.clone());
        let script = Script::answering(move |request| {
            recorded.lock().unwrap().push(request.clone());
            let target = request.line.split(' ').nth(1).unwrap().to_owned();
            let path = target.split('?').next().unwrap().to_owned();
            let said = told.lock().unwrap().get(&path).cloned().unwrap_or_default();
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            answer(request, &said, &format!("{target} #{number}"))
        });
        Origin { script, seen, says }
    }

    /// Sets the fields of responses under this path. `status: 404` among them sets the status.
    pub(crate) fn says(&self, path: &str, fields: &[&str]) {
        self.says.lock().unwrap().insert(path.to_owned(), fields.join("\r\n"));
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn last(&self) -> Request {
        self.seen.lock().unwrap().last().unwrap().clone()
    }
}

pub(crate) fn answer(request: &Request, said: &str, content: &str) -> Vec<u8> {
    let mut status = "200";
    let mut fields = String::new();
    for line in said.lines() {
        match line.split_once(": ") {
            Some(("status", code)) => status = code,
            _ => fields.push_str(&format!("{line}\r\n")),
        }
    }
    let tag = said.lines().find_map(|line| line.strip_prefix("etag: "));
    if tag.is_some() && request.field("if-none-match") == tag {
        return format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n").into_bytes();
    }
    let body = if request.line.starts_with("HEAD ") { "" } else { content };
    let length = content.len();
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n{fields}\r\n{body}"
    )
    .into_bytes()
}

pub(crate) fn pillion(origin: &Origin, config: &str) -> Pillion {
    Pillion::with(&format!("[upstream]\nurl = \"http://{}\"\n{config}", origin.script.address))
}

pub(crate) fn ask(pillion: &Pillion, line: &str, fields: &[&str]) -> Answer {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    exchange(
        pillion.http,
        &format!("{line} HTTP/1.1\r\nhost: a.example\r\n{fields}connection: close\r\n\r\n"),
    )
}

pub(crate) fn get(pillion: &Pillion, path: &str) -> Answer {
    ask(pillion, &format!("GET {path}"), &[])
}

pub(crate) fn status_of(answer: &Answer) -> String {
    answer.field("cache-status").unwrap_or_default()
}
