//! `[redis]`.

use super::declare::table;
use super::kind::{Optional, TEXT, Text, Value, Word, timeout_to};
use crate::cache::invalidation::OnLost;
use std::time::Duration;

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
    TIMEOUT "timeout": Value<Duration> = timeout_to(50, Duration::from_secs(10)), Restart,
        "How long a command may take, and a write waits until the other processes can know of it.";
    ON_LOST "on_lost": Word<OnLost> = Word { words: &LOSSES, default: OnLost::Serve }, Restart,
        "Use of stored responses while invalidations may be missed: fresh ones are served (\"serve\") or all revalidated.";
}
