//! Recurring text, rendered once: response heads as lines of HTTP/1, members of log lines, and the words of the
//! contract.

pub(crate) mod append_buffer;
pub(crate) mod digest;
pub(crate) mod json_text;
pub(crate) mod render_cache;
pub(crate) mod rendered_head;
pub(crate) mod secret;
pub(crate) mod words;
