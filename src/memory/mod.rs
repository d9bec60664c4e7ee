//! Memory for content: byte budgets, the account of buffered bytes, and each client's share of them.

pub(crate) mod buffers;
pub(crate) mod chunked_bytes;
pub(crate) mod memory_budget;
