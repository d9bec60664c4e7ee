//! Header fields as pure functions of their text: the vocabulary that layers and engines share.

pub mod accept_encoding;
pub mod cache_control;
pub mod entity_tag;
pub mod forwarded;
pub mod host;
pub mod list;
pub mod range;
pub mod vary;
