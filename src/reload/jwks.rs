//! Keys for token verification at a URL: fetched at the start and again every few minutes, so that they can be replaced
//! without a reload. Until the first fetch no token verifies, and requests with a token bypass the cache.

use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};

use crate::identity::keys;
use crate::identity::verifying_key::VerifyingKey;
use crate::policy::KeySource;
use crate::state::live_policy::Snapshot;
use crate::upstream::{InternalRequest, Pool, Upstream};

const INTERVAL: Duration = Duration::from_secs(300);
const AGAIN: Duration = Duration::from_secs(10);
/// Maximum length of the key document in bytes.
const MAX: usize = 256 * 1024;

/// Fetches the keys of a snapshot regularly, for as long as the snapshot is the current one.
pub(super) async fn watch(snapshot: Weak<Snapshot>, upstream: Arc<Upstream>) {
    let pool = Rc::new(Pool::default());
    loop {
        let pause = {
            let Some(snapshot) = snapshot.upgrade() else { return };
            let Some(source) = &snapshot.policy.keys else { return };
            match fetch(&upstream, &pool, source).await {
                Ok(keys) => {
                    tracing::debug!(url = source.url, keys = keys.len(), "keys fetched");
                    source.put(keys);
                    INTERVAL
                }
                Err(error) => {
                    tracing::warn!(url = source.url, error, "keys could not be fetched");
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
    let accepted = HeaderValue::from_static("application/jwk-set+json, application/json");
    let question = InternalRequest {
        method: Method::GET,
        target: &source.target,
        headers: HeaderMap::from_iter([(header::ACCEPT, accepted)]),
        body: bytes::Bytes::new(),
        max: MAX,
    };
    let content = upstream.ask(pool, question).await.map_err(|error| error.to_string())?;
    keys::parse(&public_only(&content)).map_err(|error| error.to_string())
}

/// Removes symmetric keys from a key set. A provider may list one, but it verifies nothing here (RFC 7517 5).
fn public_only(content: &[u8]) -> Vec<u8> {
    let Ok(mut set) = serde_json::from_slice::<serde_json::Value>(content) else { return content.to_vec() };
    if let Some(keys) = set.get_mut("keys").and_then(serde_json::Value::as_array_mut) {
        keys.retain(|key| key.get("kty").and_then(serde_json::Value::as_str) != Some("oct"));
    }
    set.to_string().into_bytes()
}
