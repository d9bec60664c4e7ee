//! Notifies a webhook URL when a check changes state: a signed JSON document, retried a few times.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use ring::hmac;
use serde_json::json;
use tokio::sync::mpsc::Receiver;

use super::monitor::Change;
use crate::metrics::Metrics;
use crate::policy::Webhook;
use crate::runtime::clock;
use crate::state::live_policy::LivePolicy;
use crate::upstream::{InternalRequest, Pool, Registry};

/// Maximum state changes that wait for delivery. Further changes are dropped, logged and counted.
pub(crate) const MAX_WAITING: usize = 32;
/// Maximum bytes of the receiver's response, which is read and discarded.
const MAX_RESPONSE: usize = 64 * 1024;
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(25)];

const SIGNATURE: HeaderName = HeaderName::from_static("x-pillion-signature");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-pillion-timestamp");

/// Delivers state changes one after the other, for the life of the process.
pub(crate) async fn run(
    live: LivePolicy,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    mut changes: Receiver<Change>,
) {
    let pool = Rc::new(Pool::default());
    while let Some(change) = changes.recv().await {
        let snapshot = live.load_full();
        let Some(webhook) = &snapshot.policy.health.webhook else { continue };
        let document = document(&change);
        let mut pauses = PAUSES.iter();
        loop {
            let Err(why) = post(webhook, &registry, &pool, &document).await else {
                metrics.webhook("told");
                break;
            };
            match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => {
                    metrics.webhook("failed");
                    tracing::warn!(
                        check = change.check.as_str(),
                        why,
                        "health webhook failed; state change not delivered"
                    );
                    break;
                }
            }
        }
    }
}

fn document(change: &Change) -> String {
    json!({
        "check": change.check.as_str(),
        "from": change.from,
        "to": change.to.status,
        "detail": change.to.detail,
        "time": clock::unix_seconds(change.at),
        "process": std::process::id(),
    })
    .to_string()
}

async fn post(webhook: &Webhook, registry: &Registry, pool: &Rc<Pool>, document: &str) -> Result<(), String> {
    let mut built = registry.build(std::slice::from_ref(&webhook.upstream));
    let upstream = built.pop().ok_or("there is no such upstream")?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let timestamp = (clock::unix_seconds(clock::wall()) as u64).to_string();
    if let Some(signature) = signature(webhook, &timestamp, document) {
        headers.insert(SIGNATURE, signature);
    }
    if let Ok(timestamp) = HeaderValue::try_from(timestamp) {
        headers.insert(TIMESTAMP, timestamp);
    }
    let body = Bytes::copy_from_slice(document.as_bytes());
    let question =
        InternalRequest { method: Method::POST, target: &webhook.target, headers, body, max: MAX_RESPONSE };
    upstream.ask(pool, question).await.map(drop).map_err(|error| error.to_string())
}

/// Signs the timestamp and the document with HMAC-SHA256, so that an old notification cannot be replayed as a new one.
fn signature(webhook: &Webhook, timestamp: &str, document: &str) -> Option<HeaderValue> {
    let secret = webhook.secret.as_ref()?.expose();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{timestamp}.{document}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::try_from(format!("sha256={hex}")).ok()
}
