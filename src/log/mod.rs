//! The access log: one line for each request, as JSON or as readable text. Secrets are masked by the names that the
//! configuration lists. The file `writer` moves lines out of the process.

mod access_log;
mod event;
mod json;
mod line;
mod mask;
mod members;
mod plain;
mod rate_window;
mod readable;
pub(crate) mod recent;
pub(crate) mod tail;
mod time;
mod writer;

pub(crate) use access_log::AccessLog;
pub(crate) use event::{JsonEvents, LocalTime};
pub(crate) use line::{Decision, Line};
pub(crate) use mask::{BOTH, MASK, Secrets, TOGETHER, bare, is_secret, masked};
pub(crate) use plain::printable;
pub(crate) use readable::{color as status_color, cut, duration};
pub(crate) use time::{local_of as local_time, of_unix as rfc3339};
pub(crate) use writer::{LogQueue, Target, Writer};
