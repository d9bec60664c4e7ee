//! `[redis]`.

use super::declare::table;
use super::kind::{Optional, TEXT, Text, Value, Word, flag, number, size, timeout_to};
use crate::cache::invalidation::OnLost;
use crate::config::table_reader::Size;
use crate::limit::shared::OnError;
use crate::policy::{Carrier, Copies};
use std::time::Duration;

/// Maximum number of processes of a fleet.
const MAX_REPLICAS: u64 = 10_000;

const ERRORS: [(&str, OnError); 3] =
    [("local", OnError::Local), ("open", OnError::Open), ("closed", OnError::Closed)];

const COPIES: [(&str, Copies); 3] = [("shared", Copies::Shared), ("all", Copies::All), ("off", Copies::Off)];

const CARRIERS: [(&str, Option<Carrier>); 3] =
    [("off", None), ("cookie", Some(Carrier::Cookie)), ("header", Some(Carrier::Field))];

const LOSSES: [(&str, OnLost); 2] = [("serve", OnLost::Serve), ("revalidate", OnLost::Revalidate)];

table! {
    /// `[redis]`.
    redis, in fleet, requires ["url", "prefix"];
    URL "url": Optional<String> = TEXT, Restart,
        "Redis or Valkey that the processes of a fleet share: redis://, rediss://, redis+sentinel://, redis+cluster:// or redis+unix://.";
    PREFIX "prefix": Optional<String> = TEXT, Restart,
        "Beginning of all names in Redis: the same for all processes of a fleet, and of no other.";
    PASSWORD_FILE "password_file": Text = Text(""), Restart,
        "File with the password, in place of one in url; read at each connect.";
    CA "ca": Text = Text(""), Restart,
        "PEM file of CAs, or of the server's own certificate; \"\" takes the system's roots.";
    SOFT_TIMEOUT "soft_timeout": Value<Duration> = timeout_to(10, Duration::from_secs(1)), Restart,
        "How long a request waits for Redis.";
    TIMEOUT "timeout": Value<Duration> = timeout_to(50, Duration::from_secs(10)), Restart,
        "How long a command may take, and a write waits until the other processes can know of it.";
    CACHE "cache": Word<Copies> = Word { words: &COPIES, default: Copies::Shared }, Restart,
        "Which stored responses the processes share: those of all users (\"shared\"), also users' own (\"all\"), or none (\"off\").";
    CACHE_URL "cache_url": Optional<String> = TEXT, Restart,
        "Another Redis for stored responses; its data may be evicted.";
    MAX_OBJECT_SIZE "max_object_size": Value<Size> = size(1 << 20), Restart,
        "Maximum size of stored responses that the processes share.";
    READ_YOUR_WRITES "read_your_writes": Word<Option<Carrier>> = Word { words: &CARRIERS, default: None }, Restart,
        "How a client carries what it wrote, to read nothing older anywhere: by a \"cookie\", or a \"header\" Pillion-Written that it sends back.";
    ON_LOST "on_lost": Word<OnLost> = Word { words: &LOSSES, default: OnLost::Serve }, Restart,
        "Use of stored responses while invalidations may be missed: fresh ones are served (\"serve\") or all revalidated.";
    RATE_LIMIT "rate_limit": Value<bool> = flag(true), Restart,
        "Whether the processes count limits together.";
    ON_ERROR "on_error": Word<OnError> = Word { words: &ERRORS, default: OnError::Local }, Restart,
        "Limits while Redis is away: each process counts its share (\"local\"), requests pass (\"open\"), or 503 (\"closed\").";
    REPLICAS "replicas": Value<u64> = number(1, 1..=MAX_REPLICAS), Restart,
        "Number of processes of the fleet, until it is known from Redis.";
}
