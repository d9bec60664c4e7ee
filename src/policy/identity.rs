//! What verifies tokens, and where further keys for that are fetched from.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::uri::PathAndQuery;

use super::upstream::UpstreamPolicy;
use crate::identity::jwt::Verifier;
use crate::identity::verifying_key::VerifyingKey;

/// Where keys that verify tokens are fetched from.
#[derive(Clone, Debug)]
pub(crate) struct KeySource {
    pub url: String,
    pub upstream: UpstreamPolicy,
    pub target: PathAndQuery,
    /// What is made of keys.
    pub checks: Checks,
    /// What verifies tokens; replaced whenever keys come.
    pub verifier: Arc<ArcSwap<Verifier>>,
    pub fetched: Arc<ArcSwap<Vec<VerifyingKey>>>,
}

/// What tokens are checked by beside the keys that are fetched.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    pub keys: Vec<VerifyingKey>,
    /// `issuer`.
    pub issuer: Option<String>,
    /// `audience`.
    pub audience: Option<String>,
    /// `require_exp`.
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
