//! Redis as the fleet uses it, as a trait: tests put a server in its place that loses, repeats and delays.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

use crate::fleet::stream_id::StreamId;

/// The reason why Redis did not do something. It may have done it all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerError {
    /// There is no connection, of which the link tells by itself.
    Down,
    Failed(String),
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ServerError::Down => f.write_str("there is no connection to Redis"),
            ServerError::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ServerError {}

/// A connection that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connected {
    /// Grows with each connection.
    pub number: u64,
    /// Identifies the data set: it changes when a server without the latest entries may have taken over.
    pub epoch: Box<str>,
}

/// What is in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first entry that was not trimmed; zero without one.
    pub first: StreamId,
    /// The newest identifier that was given to an entry.
    pub last: StreamId,
    pub length: u64,
}

/// The record of one process, with the time at which it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub field: Vec<u8>,
    pub value: Vec<u8>,
    /// Milliseconds since 1970, by the clock of Redis.
    pub written: u64,
}

/// Redis as the fleet uses it. Each call has a deadline.
pub(crate) trait Server {
    /// Appends an entry to the log.
    fn append(&self, entry: &[u8]) -> impl Future<Output = Result<StreamId, ServerError>>;

    /// Reads at most `max` entries after a position; waits for the first for at most `block`.
    fn read_after(
        &self,
        position: StreamId,
        max: usize,
        block: Duration,
    ) -> impl Future<Output = Result<Vec<(StreamId, Vec<u8>)>, ServerError>>;

    /// Returns what is in the log.
    fn extent(&self) -> impl Future<Output = Result<Extent, ServerError>>;

    /// Writes the record of this process and returns the time of Redis in milliseconds and all records.
    fn report(
        &self,
        field: &[u8],
        value: &[u8],
    ) -> impl Future<Output = Result<(u64, Vec<Record>), ServerError>>;

    /// Removes the record of this process.
    fn leave(&self, field: &[u8]) -> impl Future<Output = Result<(), ServerError>>;

    /// Returns the connection that writes; `None` while there is none.
    fn writing(&self) -> watch::Receiver<Option<Connected>>;

    /// Returns the connection that reads; `None` while there is none.
    fn reading(&self) -> watch::Receiver<Option<Connected>>;

    /// Drops the connection that reads, because nothing comes from it.
    fn reconnect(&self);
}
