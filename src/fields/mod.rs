//! Header fields as pure functions of their text: the vocabulary that layers and engines share.

pub mod forwarded;
pub mod host;
