//! Verification of tokens (RFC 7515 5.2, RFC 7519 7.2, RFC 8725). The header only selects among the configured keys,
//! and claims are parsed only after the signature was verified. Of the header, `alg`, `kid` and `crit` count. `jwk`,
//! `jku`, `x5c`, `x5u` (keys of the sender's choice, RFC 8725 3.10), `typ` and `cty` are ignored. Not here: revocation,
//! reuse (`jti`), permissions.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::json;
use super::verifying_key::VerifyingKey;

/// Maximum length of a token in bytes. Longer tokens are rejected unread.
pub(crate) const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Tolerated difference between the clocks of issuer and proxy (RFC 7519 4.1.4: "some small leeway").
pub(crate) const LEEWAY_SECONDS: u64 = 30;

/// The requirements that a token must meet.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    keys: Vec<VerifyingKey>,
    issuer: Option<String>,
    audience: Option<String>,
    /// Whether a token without `exp` is rejected.
    requires_expiry: bool,
}

/// The reason why a token is rejected. It contains no part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JwtError {
    /// The token is longer than [`MAX_TOKEN_BYTES`].
    TooLong,
    /// The token is not three parts in base64url, two of them JSON with the members that RFC 7515 and RFC 7519 require.
    Malformed,
    /// A name occurs twice in one object.
    Duplicate,
    /// The token has extensions that must be understood (RFC 7515 4.1.11); none are supported.
    Critical,
    /// No key has the token's algorithm.
    Algorithm,
    /// No key of the token's algorithm has its `kid`.
    UnknownKey,
    /// No key verifies the signature.
    Signature,
    /// The token has no `exp`, so it would never expire.
    NoExpiry,
    /// The time of `exp` has passed.
    Expired,
    /// The time of `nbf` is in the future.
    NotYetValid,
    /// The `iss` is not the configured issuer.
    Issuer,
    /// The `aud` is not the configured audience, and does not contain it.
    Audience,
}

impl fmt::Display for JwtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JwtError::TooLong => "the token is too long",
            JwtError::Malformed => "the token is malformed",
            JwtError::Duplicate => "the token gives a name twice",
            JwtError::Critical => "the token has critical extensions",
            JwtError::Algorithm => "no key is of the token's algorithm",
            JwtError::UnknownKey => "no key has the token's key id",
            JwtError::Signature => "the token's signature is wrong",
            JwtError::NoExpiry => "the token never expires",
            JwtError::Expired => "the token has expired",
            JwtError::NotYetValid => "the token is not valid yet",
            JwtError::Issuer => "the token is from another issuer",
            JwtError::Audience => "the token is for another audience",
        })
    }
}

impl std::error::Error for JwtError {}

impl From<json::Fault> for JwtError {
    fn from(fault: json::Fault) -> JwtError {
        match fault {
            json::Fault::NoObject => JwtError::Malformed,
            json::Fault::Duplicate => JwtError::Duplicate,
        }
    }
}

impl Verifier {
    /// Returns the required issuer and audience, and whether tokens must expire.
    pub(crate) fn expected(&self) -> (Option<String>, Option<String>, bool) {
        (self.issuer.clone(), self.audience.clone(), self.requires_expiry)
    }

    /// Accepts tokens signed by one of these keys and, if given, from this issuer and for this audience. Without a
    /// configured audience any is accepted. RFC 7519 4.1.3 would reject a token that names one, but behind a proxy the
    /// audience is the app, whose name the proxy need not know.
    pub(crate) fn new(keys: Vec<VerifyingKey>, issuer: Option<String>, audience: Option<String>) -> Verifier {
        Verifier { keys, issuer, audience, requires_expiry: true }
    }

    /// Sets whether a token without `exp` is rejected. RFC 7519 4.1.4 leaves this to implementations; a token that
    /// never expires cannot be revoked.
    pub(crate) fn requiring_expiry(mut self, required: bool) -> Verifier {
        self.requires_expiry = required;
        self
    }

    /// Verifies a token at this time and returns its claims.
    pub(crate) fn verify(&self, token: &[u8], now_unix_seconds: u64) -> Result<Claims, JwtError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwtError::TooLong);
        }
        let token = Token::split(token)?;
        self.check_signature(&token)?;
        let claims = Claims(json::object(&token.payload)?);
        if self.requires_expiry && !claims.0.contains_key("exp") {
            return Err(JwtError::NoExpiry);
        }
        claims.check_time(now_unix_seconds)?;
        self.check_parties(&claims)?;
        Ok(claims)
    }

    fn check_signature(&self, token: &Token<'_>) -> Result<(), JwtError> {
        let header = json::object(&token.header)?;
        if header.contains_key("crit") {
            return Err(JwtError::Critical);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(JwtError::Malformed)?;
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.as_str()),
            Some(_) => return Err(JwtError::Malformed),
        };
        // The keys decide which algorithms are possible. The token only says which of them it uses.
        let mut keys = self.keys.iter().filter(|key| key.algorithm().as_str() == algorithm).peekable();
        if keys.peek().is_none() {
            return Err(JwtError::Algorithm);
        }
        // A key without a `kid` may be the key that a token names.
        let mut keys = keys.filter(|key| kid.is_none() || key.kid().is_none() || key.kid() == kid).peekable();
        if keys.peek().is_none() {
            return Err(JwtError::UnknownKey);
        }
        if keys.any(|key| key.verifies(token.signed, &token.signature)) {
            Ok(())
        } else {
            Err(JwtError::Signature)
        }
    }

    /// Checks issuer and audience (RFC 7519 4.1.1, 4.1.3). The comparison is exact, including case.
    fn check_parties(&self, claims: &Claims) -> Result<(), JwtError> {
        let is = |value: &Value, wanted: &str| value.as_str() == Some(wanted);
        if let Some(wanted) = &self.issuer
            && !claims.0.get("iss").is_some_and(|issuer| is(issuer, wanted))
        {
            return Err(JwtError::Issuer);
        }
        if let Some(wanted) = &self.audience
            && !claims.0.get("aud").is_some_and(|audience| match audience {
                Value::Array(audiences) => audiences.iter().any(|audience| is(audience, wanted)),
                audience => is(audience, wanted),
            })
        {
            return Err(JwtError::Audience);
        }
        Ok(())
    }
}

/// The three decoded parts of a token, and the signed bytes: the first two parts as received (RFC 7515 5.2).
struct Token<'a> {
    header: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
    signed: &'a [u8],
}

impl<'a> Token<'a> {
    fn split(token: &'a [u8]) -> Result<Token<'a>, JwtError> {
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtError::Malformed);
        };
        // Rejects padding and line ends (RFC 7515 2). Unused bits that are not zero are rejected too, so that no two
        // texts are the same token.
        let decode = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed);
        Ok(Token {
            header: decode(header)?,
            payload: decode(payload)?,
            signature: decode(signature)?,
            signed: &token[..header.len() + 1 + payload.len()],
        })
    }
}

/// The claims of a verified token.
#[derive(Clone)]
pub(crate) struct Claims(Map<String, Value>);

impl Claims {
    /// Creates the claims of a token that nobody signed, for rehearsals.
    pub(crate) fn assumed(claims: Map<String, Value>) -> Claims {
        Claims(claims)
    }

    /// Returns a claim as text: a string unchanged, an integer or a boolean as in JSON, and `None` for any other type.
    ///
    /// If no member is named `a.b`, the claim is member `b` of object `a`. The whole name takes precedence, because
    /// names with dots are common (`https://id.example/role`).
    pub(crate) fn text(&self, claim: &str) -> Option<String> {
        match find(&self.0, claim)? {
            Value::String(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
            _ => None,
        }
    }

    /// Returns a claim as text with its type, so that `1` and `"1"` differ.
    pub(crate) fn typed(&self, claim: &str) -> Option<String> {
        let kind = if matches!(find(&self.0, claim)?, Value::String(_)) { "s" } else { "v" };
        Some(format!("{kind}{}", self.text(claim)?))
    }

    /// Checks that the time is not before `nbf` and before `exp`, each with the leeway (RFC 7519 4.1.4, 4.1.5). Both
    /// claims are optional here.
    fn check_time(&self, now_unix_seconds: u64) -> Result<(), JwtError> {
        // A NumericDate may have a fraction (RFC 7519 2). A 53-bit mantissa holds whole seconds exactly for 285 million
        // years.
        let (now, leeway) = (now_unix_seconds as f64, LEEWAY_SECONDS as f64);
        if self.date("exp")?.is_some_and(|expiry| now >= expiry + leeway) {
            return Err(JwtError::Expired);
        }
        if self.date("nbf")?.is_some_and(|start| now + leeway < start) {
            return Err(JwtError::NotYetValid);
        }
        Ok(())
    }

    fn date(&self, claim: &str) -> Result<Option<f64>, JwtError> {
        match self.0.get(claim) {
            None => Ok(None),
            Some(date) => date.as_f64().map(Some).ok_or(JwtError::Malformed),
        }
    }
}

/// Claims are personal data, so `Debug` prints none of them and they cannot get into a log by accident.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims").finish_non_exhaustive()
    }
}

fn find<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    find(object.get(first)?.as_object()?, rest)
}
