//! The right representation: which coding a client gets, what validates it, whether it has it already,
//! and which part of it was asked for (RFC 9110 sections 8, 12, 13, 14).
//!
//! An engine: it decides and encodes, and knows neither apps nor configuration files. `layer::represent`
//! asks it and turns its answers into HTTP.

pub(crate) mod choice;
pub(crate) mod coding;
pub(crate) mod counters;
pub(crate) mod echo;
pub(crate) mod encode;
pub(crate) mod encoding;
pub(crate) mod entity_tag;
pub(crate) mod gather;
pub(crate) mod keeping;
pub(crate) mod media;
pub(crate) mod precondition;
pub(crate) mod range;
pub(crate) mod recode;

#[cfg(test)]
mod linear;
#[cfg(test)]
mod tests;
