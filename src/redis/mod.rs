//! The link to Redis: finds the server, connects, supervises the connection and runs commands. It knows nothing of
//! caching or limits.
//!
//! - `url`, `settings`: where Redis is. `connect`: one connection, as the protocol's library wants it.
//! - `link`: a connection that is made again whenever it fails. `command`: the commands that are used, and what comes
//!   back. `script`: scripts that run in Redis.
//! - `thread`: the thread on which all of it runs, so that neither requests nor operators wait for Redis, nor it for them.

pub(crate) mod collected;
pub(crate) mod command;
mod connect;
pub(crate) mod link;
pub(crate) mod script;
pub(crate) mod settings;
pub(crate) mod thread;
pub(crate) mod url;
