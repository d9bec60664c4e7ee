//! The identity of a request's sender: credentials as keyed hashes, and JSON Web Tokens (RFC 7519, compact JWS of RFC
//! 7515). No credential is stored or logged in clear. Each key is bound to one algorithm (RFC 8725 3.1), so a public
//! key never serves as an HMAC secret, and `none` is no algorithm. Not here: permissions, responses, files, fetching of
//! keys, encrypted tokens (JWE). The time is always a parameter.

pub(crate) mod credential;
pub(crate) mod der;
pub(crate) mod json;
pub(crate) mod jwk;
pub(crate) mod jwt;
pub(crate) mod key_error;
pub(crate) mod keys;
pub(crate) mod pem;
pub(crate) mod principal;
pub(crate) mod unlisted;
pub(crate) mod verifying_key;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
