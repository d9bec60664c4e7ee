//! The record that each process keeps of itself in Redis, and what all of them together say.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::entry::Sender;
use crate::fleet::seal::{Keys, Purpose, Unreadable};
use crate::fleet::server::Record;
use crate::fleet::stream_id::StreamId;

/// Interval between two records of one process.
const INTERVAL: Duration = Duration::from_secs(2);
/// The same in a large fleet.
const INTERVAL_OF_MANY: Duration = Duration::from_secs(5);
/// Number of processes from which on a fleet is large.
const MANY: usize = 50;

/// The record that a process keeps of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// The name of its host.
    pub name: String,
    pub version: String,
    /// The number of its last entry in the log.
    pub published: u64,
    /// The position up to which it has applied the log.
    pub applied: String,
}

/// A process of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub sender: Sender,
    pub about: About,
    pub applied: StreamId,
    /// Time since its last record.
    pub age: Duration,
    /// Whether that is recent enough.
    pub live: bool,
}

/// Returns the interval between two records of one process.
pub(crate) fn interval(members: usize) -> Duration {
    if members > MANY { INTERVAL_OF_MANY } else { INTERVAL }
}

impl About {
    /// Returns the record as it stands in Redis.
    pub(crate) fn to_bytes(&self, keys: &Keys, sender: Sender) -> Vec<u8> {
        keys.seal(Purpose::Member, &sender.0, &serde_json::to_vec(self).unwrap_or_default())
    }

    fn from_bytes(keys: &Keys, sender: Sender, bytes: &[u8]) -> Result<About, Unreadable> {
        let content = keys.open(Purpose::Member, &sender.0, bytes)?;
        serde_json::from_slice(&content).map_err(|_| Unreadable::UnknownVersion)
    }
}

/// Reads all records, as they are at `now` by the clock of Redis in milliseconds. Records that cannot be read are left
/// out; the reason for the first of them is returned too.
pub(crate) fn members(keys: &Keys, now: u64, records: &[Record]) -> (Vec<Member>, Option<Unreadable>) {
    let mut unreadable = None;
    let read = |record: &Record| {
        let sender = Sender(record.field.as_slice().try_into().ok()?);
        let about = About::from_bytes(keys, sender, &record.value)
            .inspect_err(|error| {
                unreadable.get_or_insert(*error);
            })
            .ok()?;
        let age = Duration::from_millis(now.saturating_sub(record.written));
        let applied = StreamId::parse(&about.applied).unwrap_or_default();
        Some(Member { sender, about, applied, age, live: age < 3 * interval(records.len()) })
    };
    let mut members: Vec<Member> = records.iter().filter_map(read).collect();
    members.sort_by(|one, other| (&one.about.name, one.sender).cmp(&(&other.about.name, other.sender)));
    (members, unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_lives_for_three_intervals() {
        let keys = Keys::new([&b"0123456789abcdef0123456789abcdef"[..]]);
        let record = |id: u8, name: &str, written| {
            let about =
                About { name: name.to_owned(), applied: "5-1".to_owned(), published: 7, ..About::default() };
            let sender = Sender([id; 16]);
            Record { field: sender.0.to_vec(), value: about.to_bytes(&keys, sender), written }
        };
        let records = [record(1, "b", 10_000), record(2, "a", 4_001), record(3, "c", 4_000)];
        let (found, unreadable) = members(&keys, 10_000, &records);
        let shown: Vec<_> =
            found.iter().map(|member| (&*member.about.name, member.live, member.applied.sequence)).collect();
        assert_eq!(shown, [("a", true, 1), ("b", true, 1), ("c", false, 1)]);
        assert_eq!(unreadable, None);
        let mut stolen = record(1, "b", 10_000);
        stolen.field = vec![9; 16];
        let (found, unreadable) = members(&keys, 10_000, &[stolen]);
        assert_eq!((found.len(), unreadable), (0, Some(Unreadable::Damaged)));
    }

    #[test]
    fn a_large_fleet_reports_less_often() {
        assert_eq!(interval(50), INTERVAL);
        assert_eq!(interval(51), INTERVAL_OF_MANY);
    }
}
