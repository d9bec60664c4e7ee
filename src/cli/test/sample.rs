//! Makes the request of a case: its token and its API key stand where the configuration reads them.

use std::net::SocketAddr;
use std::ops::Range;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri, header};

use crate::config::cases::{Case, CaseRequest};
use crate::identity::jwt::Claims;
use crate::layer::explain::head::SampleRequest;
use crate::policy::Policy;
use crate::policy::limits::ApiKeyPlace;

/// The token of a request of which only the claims matter.
const ANY_TOKEN: &str = "test";

/// A place in the file of cases, a message and a remedy.
pub(super) type Refusal = (Range<usize>, &'static str, &'static str);

/// Returns the request of a case, or why the configuration has no use for a part of it.
pub(super) fn sample(case: &Case, policy: &Policy) -> Result<SampleRequest, Refusal> {
    let request = &case.request;
    let mut fields = request.fields.clone();
    fields.extend(token(request, policy)?);
    let mut uri = request.uri.clone();
    if let Some((key, span)) = &request.key {
        let wrong = |message, help| (span.clone(), message, help);
        if !policy.limits.enabled || !policy.limits.asks_key() {
            let help = "remove the key, or add tiers to rate_limit";
            return Err(wrong("the configuration reads no API keys", help));
        }
        match &policy.limits.api_key {
            ApiKeyPlace::Header(name) => {
                let value = key_value(name, key)
                    .ok_or_else(|| wrong("case.key cannot be sent in a field", "expected visible ASCII"))?;
                fields.push((name.clone(), value));
            }
            ApiKeyPlace::Query(name) => {
                uri = with_parameter(&uri, name, key).ok_or_else(|| {
                    wrong("case.key cannot be sent in a query", "write it in case.request, percent-encoded")
                })?;
            }
            ApiKeyPlace::Claim(_) => {
                let help = "give the claim in case.claims";
                return Err(wrong("the configuration reads API keys from a claim of the token", help));
            }
        }
    }
    Ok(SampleRequest {
        method: request.method.clone(),
        uri,
        fields,
        client: SocketAddr::new(request.client, 0),
        content: Some(request.content.clone()),
        claims: request.claims.as_ref().map(|(claims, _)| Claims::assumed(claims.clone())),
    })
}

/// Returns the field with the token of a request, if it has one.
fn token(request: &CaseRequest, policy: &Policy) -> Result<Option<(HeaderName, HeaderValue)>, Refusal> {
    if let Some((_, span)) = request.claims.as_ref().filter(|_| !policy.identity.proves()) {
        let help = "remove the claims, or add [identity.jwt]";
        return Err((span.clone(), "the configuration verifies no tokens", help));
    }
    let (token, span) = match (&request.token, &request.claims) {
        (Some((token, span)), _) => (token.as_str(), span),
        (None, Some((_, span))) => (ANY_TOKEN, span),
        (None, None) => return Ok(None),
    };
    let (name, value) = policy
        .identity
        .token_field(token)
        .unwrap_or_else(|| (header::AUTHORIZATION, format!("Bearer {token}")));
    match HeaderValue::from_str(&value) {
        Ok(value) => Ok(Some((name, value))),
        Err(_) => Err((span.clone(), "case.token cannot be sent in a field", "expected visible ASCII")),
    }
}

fn key_value(name: &HeaderName, key: &str) -> Option<HeaderValue> {
    let text = if *name == header::AUTHORIZATION { format!("Bearer {key}") } else { key.to_owned() };
    HeaderValue::from_str(&text).ok()
}

fn with_parameter(uri: &Uri, name: &str, value: &str) -> Option<Uri> {
    let separator = if uri.query().is_some() { '&' } else { '?' };
    let before = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let target = format!("{before}{separator}{name}={value}");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}
