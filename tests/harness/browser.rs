//! A real browser for tests of pages.

use std::process::{Command, Stdio};

use super::{Folder, Process, eventually, run};

/// A real browser, controlled by its own protocol (CDP).
pub(crate) struct Browser {
    socket: tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
    number: u64,
    /// Errors of the page, from the browser's console.
    pub console: Vec<String>,
    _process: Process,
}

impl Browser {
    pub(crate) async fn open(profile: &Folder, url: &str) -> Browser {
        let child = Command::new("chromium")
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                // Tests create their own certificates.
                "--ignore-certificate-errors",
            ])
            .args(["--remote-debugging-port=0", "--window-size=1100,900"])
            .arg(format!("--user-data-dir={}", profile.path("profile").display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process(child);
        let port = eventually("the browser listens", || {
            let text = std::fs::read_to_string(profile.path("profile/DevToolsActivePort")).ok()?;
            text.lines().next().map(str::to_owned)
        });
        let socket = eventually("it has a page", || {
            let list = run("curl", &["-s", &format!("http://127.0.0.1:{port}/json/list")]);
            let list: serde_json::Value = serde_json::from_str(&list).ok()?;
            let page = list.as_array()?.iter().find(|target| target["type"] == "page")?.clone();
            page["webSocketDebuggerUrl"].as_str().map(str::to_owned)
        });
        let (socket, _) = tokio_tungstenite::connect_async(socket).await.unwrap();
        let mut browser = Browser { socket, number: 0, console: Vec::new(), _process: process };
        for method in ["Runtime.enable", "Log.enable", "Page.enable"] {
            browser.call(method, serde_json::json!({})).await;
        }
        browser.go(url).await;
        browser
    }

    pub(crate) async fn go(&mut self, url: &str) {
        self.call("Page.navigate", serde_json::json!({ "url": url })).await;
    }

    async fn call(&mut self, method: &str, params: serde_json::Value) -> serde_json::Value {
        use futures_util::{SinkExt as _, StreamExt as _};
        self.number += 1;
        let message = serde_json::json!({ "id": self.number, "method": method, "params": params });
        self.socket.send(tokio_tungstenite::tungstenite::Message::text(message.to_string())).await.unwrap();
        loop {
            let message = self.socket.next().await.unwrap().unwrap();
            let Ok(text) = message.into_text() else { continue };
            let said: serde_json::Value = serde_json::from_str(&text).unwrap();
            let kind = said["params"]["type"].as_str().unwrap_or_default();
            let wrong = match said["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Runtime.consoleAPICalled") => ["error", "warning", "assert"].contains(&kind),
                Some("Log.entryAdded") => said["params"]["entry"]["level"] == "error",
                _ => false,
            };
            if wrong {
                self.console.push(said.to_string());
            }
            if said["id"] == self.number {
                return said["result"].clone();
            }
        }
    }

    pub(crate) async fn evaluate(&mut self, script: &str) -> String {
        let result = self.call("Runtime.evaluate", serde_json::json!({ "expression": script })).await;
        result["result"]["value"].as_str().unwrap_or("{}").to_owned()
    }

    pub(crate) async fn screenshot(&mut self) -> Vec<u8> {
        use base64::Engine as _;
        let result = self.call("Page.captureScreenshot", serde_json::json!({ "format": "png" })).await;
        base64::engine::general_purpose::STANDARD.decode(result["data"].as_str().unwrap()).unwrap()
    }
}
