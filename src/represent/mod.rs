//! The right representation: which coding a client gets, what validates it, whether it has it already,
//! and which part of it was asked for (RFC 9110 sections 8, 12, 13, 14).
//!
//! An engine: it decides and encodes, and knows neither apps nor configuration files. `layer::represent`
//! asks it and turns its answers into HTTP.

pub mod choice;
pub mod coding;
pub mod counters;
pub mod echo;
pub mod encode;
pub mod encoding;
pub mod entity_tag;
pub mod gather;
pub mod keeping;
pub mod media;
pub mod precondition;
pub mod range;
pub mod recode;

#[cfg(test)]
mod linear;
#[cfg(test)]
mod tests;
