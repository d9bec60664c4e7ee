//! The memory that content takes: budgets of bytes, the account of what is buffered, and each client's share of it.

pub(crate) mod buffers;
pub(crate) mod chunked_bytes;
pub(crate) mod memory_budget;
