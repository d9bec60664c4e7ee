//! Test with `EventSource` in a real browser.

use super::tools::{app, with_tls};
use crate::harness::browser::Browser;
use crate::harness::{Folder, PATIENCE, now};

/// Each event is sent after the page has received the previous one, three on each connection, so that the browser
/// reconnects by itself and sends its position.
#[test]
fn still_right_event_source_in_a_browser() {
    let folder = Folder::new();
    let (_app, address) = app("node", "express.cjs", &[&folder.0.display().to_string()]);
    let pillion = with_tls(&format!("[upstream]\nurl = \"http://{address}\"\n"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let expected: Vec<String> = (1..=7).map(|id| format!("{id}:event {id}")).collect();
    let expected = expected.join(",");
    let https = format!("https://{}/", pillion.https.unwrap());
    let profile = Folder::new();
    runtime.block_on(async {
        let mut browser = Browser::open(&profile, "about:blank").await;
        for (url, protocol) in [(pillion.url("/"), "HTTP/1.1"), (https, "HTTP/2")] {
            browser.go(&url).await;
            let deadline = now() + PATIENCE;
            loop {
                let title = browser.evaluate("location.protocol == 'about:' ? '' : document.title").await;
                assert!(browser.console.is_empty(), "{protocol}: {:?}", browser.console);
                if title.starts_with(&expected) {
                    break;
                }
                assert!(now() < deadline, "{protocol}: {title}");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            pillion.access("its events", |line| line["path"] == "/events" && line["protocol"] == protocol);
        }
    });
}
