//! A message on its way through the stack: the request with what its connection knows, its body, and whose fault a failure is.

pub(crate) mod body;
pub(crate) mod error;
pub(crate) mod inbound;
