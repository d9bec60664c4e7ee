//! A message on its way through the stack: the request with what its connection knows, the body, and the fault behind a
//! failure.

pub(crate) mod body;
pub(crate) mod error;
pub(crate) mod inbound;
