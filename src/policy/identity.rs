//! The settings for token verification, and the URL of further keys.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::uri::PathAndQuery;

use super::upstream::UpstreamPolicy;
use crate::identity::jwt::Verifier;
use crate::identity::verifying_key::VerifyingKey;

/// A URL with keys that verify tokens, and the keys fetched from it.
#[derive(Clone, Debug)]
pub(crate) struct KeySource {
    pub url: String,
    pub upstream: UpstreamPolicy,
    pub target: PathAndQuery,
    /// The requirements on tokens, to build a verifier from fetched keys.
    pub checks: Checks,
    /// The current verifier, replaced whenever keys are fetched.
    pub verifier: Arc<ArcSwap<Verifier>>,
    pub fetched: Arc<ArcSwap<Vec<VerifyingKey>>>,
}

/// The requirements on tokens, and the keys that are not fetched.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    pub keys: Vec<VerifyingKey>,
    /// The required issuer, from `issuer`.
    pub issuer: Option<String>,
    /// The required audience, from `audience`.
    pub audience: Option<String>,
    /// Whether tokens must expire, from `require_exp`.
    pub require_exp: bool,
}

impl Checks {
    pub(crate) fn verifier(&self, further: &[VerifyingKey]) -> Verifier {
        let keys = self.keys.iter().chain(further).cloned().collect();
        Verifier::new(keys, self.issuer.clone(), self.audience.clone()).requiring_expiry(self.require_exp)
    }
}

impl KeySource {
    pub(crate) fn put(&self, keys: Vec<VerifyingKey>) {
        self.verifier.store(Arc::new(self.checks.verifier(&keys)));
        self.fetched.store(Arc::new(keys));
    }
}
