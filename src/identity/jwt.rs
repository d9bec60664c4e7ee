//! A token, its signature and its claims: what makes it good now (RFC 7515 5.2, RFC 7519 7.2, RFC 8725).
//!
//! The order is the point: the header only chooses among the keys we hold, the signature comes next, and the
//! claims of a token that nobody signed are never read. Of the header, `alg`, `kid` and `crit` matter; `jwk`,
//! `jku`, `x5c` and `x5u` name keys of the sender's choice and are ignored (RFC 8725 3.10), and so are `typ`
//! and `cty`.
//!
//! Not here: whether a token was revoked or seen before (`jti`), and what its claims allow.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::json;
use super::verifying_key::VerifyingKey;

/// The longest token that is looked at.
pub(crate) const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// How far the clocks of issuer and proxy may be apart (RFC 7519 4.1.4: "some small leeway").
pub(crate) const LEEWAY_SECONDS: u64 = 30;

/// What a token has to be.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    keys: Vec<VerifyingKey>,
    issuer: Option<String>,
    audience: Option<String>,
    /// Whether a token without `exp` is refused.
    requires_expiry: bool,
}

/// Why a token is refused. Nothing of the token is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JwtError {
    /// Longer than [`MAX_TOKEN_BYTES`].
    TooLong,
    /// Not three parts of base64url, JSON in two of them, with the members RFC 7515 and RFC 7519 want.
    Malformed,
    /// A name twice in one object.
    Duplicate,
    /// It has extensions that must be understood, and we understand none (RFC 7515 4.1.11).
    Critical,
    /// No key is of its algorithm.
    Algorithm,
    /// No key of its algorithm goes by its `kid`.
    UnknownKey,
    /// No key made its signature.
    Signature,
    /// It has no `exp`, and would hold forever.
    NoExpiry,
    /// Its `exp` is past.
    Expired,
    /// Its `nbf` is to come.
    NotYetValid,
    /// Its `iss` is not the one wanted.
    Issuer,
    /// Its `aud` is not, or does not hold, the one wanted.
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
    /// The issuer and the audience that tokens have to name, and whether they have to expire.
    pub(crate) fn expected(&self) -> (Option<String>, Option<String>, bool) {
        (self.issuer.clone(), self.audience.clone(), self.requires_expiry)
    }

    /// Tokens signed by one of these keys, from this issuer and for this audience where they are given. Where
    /// no audience is given any is good, although RFC 7519 4.1.3 would refuse a token that names one: behind
    /// a proxy it is the app that is meant, and the proxy need not know its name.
    pub(crate) fn new(keys: Vec<VerifyingKey>, issuer: Option<String>, audience: Option<String>) -> Verifier {
        Verifier { keys, issuer, audience, requires_expiry: true }
    }

    /// Whether a token without `exp` is refused. RFC 7519 4.1.4 leaves it to whoever uses tokens; one that holds
    /// forever cannot be taken back.
    pub(crate) fn requiring_expiry(mut self, required: bool) -> Verifier {
        self.requires_expiry = required;
        self
    }

    /// The claims of a token that is good at this second.
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
        // The keys decide which algorithms there are; the token only says which of them it used.
        let mut keys = self.keys.iter().filter(|key| key.algorithm().as_str() == algorithm).peekable();
        if keys.peek().is_none() {
            return Err(JwtError::Algorithm);
        }
        // A key without a name may be the one a token names.
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

    /// RFC 7519 4.1.1, 4.1.3: compared as they are, case and all.
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

/// The three parts, decoded, and what was signed: the first two as they came (RFC 7515 5.2).
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
        // RFC 7515 2: no padding, no line ends. Unused bits that are not zero are refused too, so that no two
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

/// What a good token says.
#[derive(Clone)]
pub(crate) struct Claims(Map<String, Value>);

impl Claims {
    /// A claim as text: a string as it is, whatever characters it holds, an integer or a boolean as JSON
    /// writes it; `None` for anything else. Where no member is called `a.b`, it is the member `b` of the
    /// object `a`; the whole name comes first because names with dots are common (`https://id.example/role`).
    pub(crate) fn text(&self, claim: &str) -> Option<String> {
        match find(&self.0, claim)? {
            Value::String(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
            _ => None,
        }
    }

    /// The same with its type: `1` and `"1"` are two.
    pub(crate) fn typed(&self, claim: &str) -> Option<String> {
        let kind = if matches!(find(&self.0, claim)?, Value::String(_)) { "s" } else { "v" };
        Some(format!("{kind}{}", self.text(claim)?))
    }

    /// RFC 7519 4.1.4, 4.1.5: good from `nbf` on and before `exp`, each with the leeway. Both may be missing.
    fn check_time(&self, now_unix_seconds: u64) -> Result<(), JwtError> {
        // A NumericDate may have a fraction (RFC 7519 2). Seconds are exact in 53 bits for 285 million years.
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

/// Claims are personal: no log shows them by accident.
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
