//! Header fields as pure functions of their text: the vocabulary that layers and engines share.

pub(crate) mod accept_encoding;
pub(crate) mod cache_control;
pub(crate) mod cache_status;
pub(crate) mod connection_auth;
pub(crate) mod cookie;
pub(crate) mod date;
pub(crate) mod entity_tag;
pub(crate) mod forwarded;
pub(crate) mod fresh;
pub(crate) mod glob;
pub(crate) mod grpc;
pub(crate) mod host;
pub(crate) mod list;
pub(crate) mod media_type;
pub(crate) mod misleading;
pub(crate) mod query;
pub(crate) mod range;
pub(crate) mod rate_limit;
pub(crate) mod reason;
pub(crate) mod request_id;
pub(crate) mod set_cookie;
pub(crate) mod signature;
pub(crate) mod structured;
pub(crate) mod target;
pub(crate) mod traceparent;
pub(crate) mod vary;
