//! Keys that verify tokens and stand at a URL: fetched at the start, and again every few minutes, so that keys can
//! be replaced without a reload. Until they are there no token verifies, and who brings one passes the cache by.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};

use crate::body::Body;
use crate::clock;
use crate::http1::head::HeadLimits;
use crate::identity::keys::{self, VerifyingKey};
use crate::layer::live::Snapshot;
use crate::policy::KeySource;
use crate::upstream::{Call, Outcome, Pool, Upstream};

/// Between two fetches.
const INTERVAL: Duration = Duration::from_secs(300);
/// After one that failed.
const AGAIN: Duration = Duration::from_secs(10);
/// For one fetch.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest document; bytes.
const MOST: usize = 256 * 1024;
const LIMITS: HeadLimits = HeadLimits { size: 64 * 1024, fields: 128 };

/// Watches the keys of a snapshot for as long as it is in force.
pub async fn watch(snapshot: Weak<Snapshot>, upstream: Arc<Upstream>) {
    let pool = Rc::new(Pool::default());
    loop {
        let pause = {
            let Some(snapshot) = snapshot.upgrade() else { return };
            let Some(source) = &snapshot.policy.keys else { return };
            match tokio::time::timeout(PATIENCE, fetch(&upstream, &pool, source)).await {
                Ok(Ok(keys)) => {
                    tracing::debug!(url = source.url, keys = keys.len(), "keys fetched");
                    source.put(keys);
                    INTERVAL
                }
                Ok(Err(error)) => {
                    tracing::warn!(url = source.url, error, "keys could not be fetched");
                    AGAIN
                }
                Err(_) => {
                    tracing::warn!(url = source.url, "keys could not be fetched in time");
                    AGAIN
                }
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn fetch(
    upstream: &Upstream,
    pool: &Rc<Pool>,
    source: &KeySource,
) -> Result<Vec<VerifyingKey>, String> {
    let mut headers = HeaderMap::new();
    if let Some(endpoint) = source.upstream.endpoints.first()
        && let Ok(host) = HeaderValue::from_str(endpoint.authority.as_str())
    {
        headers.insert(header::HOST, host);
    }
    headers.insert(header::USER_AGENT, HeaderValue::from_static("pillion"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/jwk-set+json, application/json"));
    let call = Call {
        method: &Method::GET,
        target: &source.target,
        headers: &mut headers,
        forwarding: None,
        body: Body::empty(),
        upgrade: None,
        takes_trailers: false,
        timeout: Some(PATIENCE),
        stream_idle_timeout: PATIENCE,
        limits: LIMITS,
        rank: (0, 1),
    };
    let mut outcome = Outcome::default();
    let sent = upstream.send(pool, call, clock::now(), &mut outcome).await;
    let response = sent.map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("answered {}", response.status()));
    }
    let mut body = response.into_body();
    let mut content = Vec::new();
    while let Some(frame) = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Ok(data) = frame.into_data() {
            if content.len() + data.len() > MOST {
                return Err(format!("the document is longer than {MOST} bytes"));
            }
            content.extend_from_slice(&data);
        }
    }
    keys::parse(&public_only(&content)).map_err(|error| error.to_string())
}

/// A set without its symmetric keys: a provider may list one, and it verifies nothing here (RFC 7517 5).
fn public_only(content: &[u8]) -> Vec<u8> {
    let Ok(mut set) = serde_json::from_slice::<serde_json::Value>(content) else { return content.to_vec() };
    if let Some(keys) = set.get_mut("keys").and_then(serde_json::Value::as_array_mut) {
        keys.retain(|key| key.get("kty").and_then(serde_json::Value::as_str) != Some("oct"));
    }
    set.to_string().into_bytes()
}
