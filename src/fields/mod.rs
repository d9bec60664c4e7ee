//! Header fields as pure functions of their text: the vocabulary that layers and engines share.

pub mod accept_encoding;
pub mod cache_control;
pub mod cache_status;
pub mod connection_auth;
pub mod cookie;
pub mod date;
pub mod entity_tag;
pub mod forwarded;
pub mod fresh;
pub mod glob;
pub mod grpc;
pub mod host;
pub mod list;
pub mod media_type;
pub mod misleading;
pub mod query;
pub mod range;
pub mod rate_limit;
pub mod reason;
pub mod request_id;
pub mod set_cookie;
pub mod signature;
pub mod structured;
pub mod target;
pub mod traceparent;
pub mod vary;
