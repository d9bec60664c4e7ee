//! Who is asking: the credentials of a request as keyed hashes, and JSON Web Tokens (RFC 7519) in the compact form
//! of JWS (RFC 7515) with the keys that verify them. Nothing here keeps, logs or compares a credential itself.
//!
//! What decides about a token is the key: each is of one algorithm for life, and a token that names another is
//! refused (RFC 8725 3.1). A public key therefore never serves as an HMAC secret, and `none` is no algorithm.
//!
//! Not here: what a principal may have, how a refusal is answered, reading files, fetching keys, encrypted tokens
//! (JWE). No clock is read; the time is passed in.

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
