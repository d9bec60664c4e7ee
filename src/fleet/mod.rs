//! The fleet: several processes that share one Redis and behave as one. They tell each other what is invalidated through
//! a stream, and know which of them are alive.
//!
//! - `process`: this process as part of its fleet. `run`: its three tasks.
//! - `entry`, `seal`, `stream_id`: the entries of the log, and how they are sealed.
//! - `publisher`: writes the invalidations of this process. `reader`: applies those of all. `tracker`: what the reader
//!   knows of each sender, and when something was missed.
//! - `progress`: what these tell each other. `purge`: one URL. `member`, `reporter`: which processes are alive, and how far each has read.
//! - `positions`: what this process had applied when. `copies`: the stored responses that all share.
//!   `own_writes`: what a client reads after its own write.
//! - `server`, `redis_server`: what all of them ask of Redis.
//!
//! Nothing here waits for Redis in the way of a request but a write, and that for at most `redis.timeout`.

pub(crate) mod collected;
pub(crate) mod copies;
pub(crate) mod counters;
pub(crate) mod entry;
pub(crate) mod member;
pub(crate) mod own_writes;
mod positions;
pub(crate) mod process;
mod progress;
mod publisher;
pub(crate) mod purge;
mod reader;
pub(crate) mod redis_server;
mod reporter;
pub(crate) mod run;
pub(crate) mod seal;
pub(crate) mod server;
pub(crate) mod stream_id;
#[cfg(test)]
mod tests;
pub(crate) mod tracker;
