//! The right representation: which coding a client gets, what validates it, whether it has it already,
//! and which part of it was asked for (RFC 9110 sections 8, 12, 13, 14).
//!
//! An engine: it decides and encodes, and knows neither apps nor configuration files. `layer::represent`
//! asks it and turns its answers into HTTP.

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
