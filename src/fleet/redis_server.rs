//! Redis as the fleet uses it: a stream for the log, and a hash for the records of the processes.

use std::time::Duration;

use tokio::sync::watch;

use super::server::{Connected, Extent, Record, Server, ServerError};
use super::stream_id::StreamId;
use crate::redis::command::{Command, CommandError, Value};
use crate::redis::link::{Link, Status, log_key};
use crate::redis::thread::Links;

/// Approximate maximum of entries in the log.
const MAX_ENTRIES: u64 = 100_000;
/// How long a response may take beyond the time that the server was told to wait.
const GRACE: Duration = Duration::from_secs(1);
/// Age in milliseconds at which the record of a process is removed.
const FORGOTTEN: u64 = 60_000;

/// Writes the record of a process and returns the time in milliseconds and all records. Records that are too old are
/// removed, so processes that end without leave do not stay.
const REPORT: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d:', now) .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], 3600000)
local all = redis.call('HGETALL', KEYS[1])
local found = {string.format('%d', now)}
for i = 1, #all, 2 do
  local at = tonumber(string.match(all[i + 1], '^(%d+):'))
  if at == nil or now - at > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], all[i])
  else
    found[#found + 1] = all[i]
    found[#found + 1] = all[i + 1]
  end
end
return found";

/// The server at the other end of the links.
pub(crate) struct RedisServer {
    links: Links,
    log: String,
    members: String,
    writing: watch::Receiver<Option<Connected>>,
    reading: watch::Receiver<Option<Connected>>,
}

impl From<CommandError> for ServerError {
    fn from(error: CommandError) -> ServerError {
        match error {
            CommandError::Down => ServerError::Down,
            error => ServerError::Failed(error.to_string()),
        }
    }
}

fn unexpected() -> ServerError {
    ServerError::Failed("an unexpected response of Redis".to_owned())
}

/// Follows the state of a link for as long as somebody listens.
fn follow(link: &Link) -> watch::Receiver<Option<Connected>> {
    let mut status = link.status();
    let connected = |status: &Status| match status {
        Status::Up { number, identity } => Some(Connected { number: *number, epoch: identity.epoch.clone() }),
        Status::Down { .. } => None,
    };
    let sender = watch::Sender::new(connected(&status.borrow_and_update()));
    let receiver = sender.subscribe();
    tokio::task::spawn_local(async move {
        while status.changed().await.is_ok() {
            let now = connected(&status.borrow_and_update());
            if sender.send(now).is_err() {
                return;
            }
        }
    });
    receiver
}

impl RedisServer {
    /// Creates the server that the links lead to. `prefix` begins all names.
    pub(crate) fn new(links: Links, prefix: &str) -> RedisServer {
        RedisServer {
            log: log_key(prefix),
            members: format!("{{{prefix}}}:fleet"),
            writing: follow(&links.log),
            reading: follow(&links.reader),
            links,
        }
    }

    async fn query(&self, command: &Command) -> Result<Value, ServerError> {
        Ok(self.links.log.query(command, self.links.log.timeout()).await?)
    }
}

fn stream_id(value: &Value) -> Option<StreamId> {
    StreamId::parse(value.text()?)
}

/// Reads `[id, [field, value, ...]]`.
fn entry(value: &Value) -> Option<(StreamId, Vec<u8>)> {
    let [id, fields] = value.list()? else { return None };
    // A deleted entry has no fields.
    let content = fields.list().and_then(|fields| fields.get(1)?.bytes()).unwrap_or_default();
    Some((stream_id(id)?, content.to_vec()))
}

impl Server for RedisServer {
    async fn append(&self, entry: &[u8]) -> Result<StreamId, ServerError> {
        let add = Command::new("XADD").arg(&self.log).arg("MAXLEN").arg("~").number(MAX_ENTRIES);
        let value = self.query(&add.arg("*").arg("e").arg(entry)).await?;
        stream_id(&value).ok_or_else(unexpected)
    }

    async fn read_after(
        &self,
        position: StreamId,
        max: usize,
        block: Duration,
    ) -> Result<Vec<(StreamId, Vec<u8>)>, ServerError> {
        let milliseconds = u64::try_from(block.as_millis()).unwrap_or(u64::MAX).max(1);
        let read = Command::new("XREAD").arg("COUNT").number(max as u64).arg("BLOCK").number(milliseconds);
        let read = read.arg("STREAMS").arg(&self.log).arg(position.to_string());
        let value = self.links.reader.query(&read, block + GRACE).await?;
        let entries = match &value {
            Value::Nil => return Ok(Vec::new()),
            // As a list of streams with their entries, or in RESP3 as a map of them.
            Value::List(streams) => match streams.as_slice() {
                [Value::List(stream)] => stream.get(1),
                [_, entries] => Some(entries),
                _ => None,
            },
            _ => None,
        };
        let entries = entries.and_then(Value::list).ok_or_else(unexpected)?;
        entries.iter().map(entry).collect::<Option<_>>().ok_or_else(unexpected)
    }

    async fn extent(&self) -> Result<Extent, ServerError> {
        let range = Command::new("XRANGE").arg(&self.log).arg("-").arg("+").arg("COUNT").number(1);
        let first = self.query(&range).await?.list().and_then(<[Value]>::first).and_then(entry);
        let info = match self.query(&Command::new("XINFO").arg("STREAM").arg(&self.log)).await {
            Ok(info) => info,
            // The stream does not exist.
            Err(_) if first.is_none() => return Ok(Extent::default()),
            Err(error) => return Err(error),
        };
        let fields = info.list().ok_or_else(unexpected)?;
        let get = |name: &str| {
            fields.chunks_exact(2).find(|pair| pair[0].text() == Some(name)).map(|pair| &pair[1])
        };
        Ok(Extent {
            first: first.map(|(id, _)| id).unwrap_or_default(),
            last: get("last-generated-id").and_then(stream_id).ok_or_else(unexpected)?,
            length: get("length").and_then(Value::number).ok_or_else(unexpected)?,
        })
    }

    async fn report(&self, field: &[u8], value: &[u8]) -> Result<(u64, Vec<Record>), ServerError> {
        let report = Command::new("EVAL").arg(REPORT).number(1).arg(&self.members);
        let found = self.query(&report.arg(field).arg(value).number(FORGOTTEN)).await?;
        let found = found.list().ok_or_else(unexpected)?;
        let (now, records) = found.split_first().ok_or_else(unexpected)?;
        let record = |pair: &[Value]| {
            let [field, value] = pair else { return None };
            let (field, value) = (field.bytes()?, value.bytes()?);
            let colon = value.iter().position(|byte| *byte == b':')?;
            let written = std::str::from_utf8(&value[..colon]).ok()?.parse().ok()?;
            Some(Record { field: field.to_vec(), value: value[colon + 1..].to_vec(), written })
        };
        Ok((now.number().ok_or_else(unexpected)?, records.chunks_exact(2).filter_map(record).collect()))
    }

    async fn leave(&self, field: &[u8]) -> Result<(), ServerError> {
        self.query(&Command::new("HDEL").arg(&self.members).arg(field)).await.map(drop)
    }

    fn writing(&self) -> watch::Receiver<Option<Connected>> {
        self.writing.clone()
    }

    fn reading(&self) -> watch::Receiver<Option<Connected>> {
        self.reading.clone()
    }

    fn reconnect(&self) {
        self.links.reader.reconnect();
    }
}
