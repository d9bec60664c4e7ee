//! Tests of health from an operator's view: since when a state holds, how long a check took, and a webhook for changes.

use std::sync::{Arc, Mutex};

use crate::harness::*;

#[test]
fn every_check_tells_since_when_and_how_long_it_took() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    pillion.wait_until_ready();
    let checks = eventually("all were looked at", || {
        let health = pillion.admin_get("/health").json();
        let checks = health["checks"].as_object()?.clone();
        checks.values().all(|check| check["since"].is_number()).then_some(checks)
    });
    let names: Vec<&str> = checks.keys().map(String::as_str).collect();
    assert_eq!(names, ["certificate", "disk", "file_descriptors", "memory", "upstream", "workers"]);
    for (name, check) in &checks {
        assert_eq!(check["status"], "healthy", "{name}");
        assert!(check["took_ms"].as_f64().unwrap() < 1000.0, "{name}");
        assert_eq!(pillion.admin_get(&format!("/health/{name}")).status, 200);
    }
}

/// Received documents, each with its signature and its timestamp.
type Told = Arc<Mutex<Vec<(serde_json::Value, String, String, String)>>>;

#[test]
fn a_webhook_is_told_of_changes_signed_and_again_where_it_failed() {
    let told: Told = Arc::default();
    let (noted, count) = (told.clone(), std::sync::atomic::AtomicUsize::new(0));
    let hook = Script::answering(move |request| {
        // The first attempt fails.
        if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            return b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n".to_vec();
        }
        let text = String::from_utf8(request.body.clone()).unwrap();
        let field = |name: &str| request.field(name).unwrap_or_default().to_owned();
        noted.lock().unwrap().push((
            serde_json::from_str(&text).unwrap(),
            field("x-pillion-signature"),
            field("x-pillion-timestamp"),
            text,
        ));
        ok("")
    });
    let text = format!(
        "[upstream]\nurl = \"http://{}\"\n[upstream.health]\npath = \"/\"\ninterval = \"200ms\"\ntimeout = \"200ms\"\n\
         [health]\nwebhook = \"http://{}/told?by=pillion\"\nwebhook_secret = \"a secret\"\n",
        absent_app(),
        hook.address
    );
    let pillion = Pillion::with(&text);
    let (document, signature, timestamp, sent) =
        eventually("it was told", || told.lock().unwrap().first().cloned());
    assert_eq!(
        (&document["check"], &document["from"], &document["to"]),
        (&"upstream".into(), &"healthy".into(), &"unhealthy".into())
    );
    let detail = texts::known(document["detail"].as_str().unwrap().to_owned());
    assert!(detail.contains("1 of 1 addresses failing"), "{document}");
    let script =
        format!("printf %s '{timestamp}.{sent}' | openssl dgst -sha256 -hmac 'a secret' | sed 's/.* //'");
    assert_eq!(signature, format!("sha256={}", run("sh", &["-c", &script]).trim()));
    // The page and the metrics show the change too.
    let warnings = pillion.admin_get("/performance/system").json()["warnings"].to_string();
    assert!(warnings.contains("upstream is unhealthy: "), "{warnings}");
    assert_eq!(pillion.metric("pillion_health_status{check=\"upstream\"}"), 2.0);
    eventually("it is counted", || {
        (pillion.metric("pillion_health_webhook_total{result=\"told\"}") == 1.0).then_some(())
    });
    assert_eq!(pillion.metric("pillion_health_webhook_total{result=\"failed\"}"), 0.0);
}
