//! The representation engine: chooses the content coding, makes entity tags, evaluates conditions and cuts ranges
//! (RFC 9110 sections 8, 12, 13, 14).
//!
//! It decides and encodes, and knows neither upstreams nor configuration files. `layer::represent` calls it and applies
//! its decisions to requests and responses.

pub(crate) mod breach_guard;
pub(crate) mod buffered_prefix;
pub(crate) mod coding;
pub(crate) mod compression_decision;
pub(crate) mod counters;
pub(crate) mod encoded_body;
pub(crate) mod encoder;
pub(crate) mod entity_tag;
pub(crate) mod media;
pub(crate) mod precondition;
pub(crate) mod range;
pub(crate) mod reencode;
pub(crate) mod tee_encoded;

#[cfg(test)]
mod linear;
#[cfg(test)]
mod tests;
