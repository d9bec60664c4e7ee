//! The script by which tokens are taken from shared buckets, and its answers.

use std::sync::LazyLock;

use ring::digest;

use super::lease::{Demand, Grant};
use crate::redis::command::{Command, Value};

/// The script. A server that does not know it yet gets it whole.
const TAKE: &str = include_str!("take.lua");
/// Number of values that the script returns for each limit.
const VALUES: usize = 6;
/// Nanoseconds in the unit of the script.
const MICROSECOND: u64 = 1000;

/// The name of the script on servers that have it: its SHA-1.
static NAME: LazyLock<String> = LazyLock::new(|| {
    let name = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, TAKE.as_bytes());
    name.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
});

/// A time for the script: microseconds, with the fraction that fast limits need.
fn microseconds(time: u64) -> String {
    format!("{}.{:03}", time / MICROSECOND, time % MICROSECOND)
}

/// Makes the command that takes tokens from the limits of one caller. `whole` sends the script itself.
pub(super) fn command(key: &str, live: usize, demands: &[Demand], whole: bool) -> Command {
    let begun = match whole {
        true => Command::new("EVAL").arg(TAKE),
        false => Command::new("EVALSHA").arg(NAME.as_bytes()),
    };
    let mut command = begun.number(1).arg(key).number(live.max(1) as u64);
    for Demand { terms, cost, wanted, back, since } in demands {
        command = command.arg(format!("{:016x}", terms.rule));
        command = command.arg(microseconds(terms.step)).number(u64::from(terms.burst));
        command = command.arg(microseconds(terms.life)).number(u64::from(*cost)).number(u64::from(*wanted));
        command = command.number(u64::from(*back)).number(*since);
    }
    command
}

/// Reads the response: the time of the server in microseconds, and a grant for each of `count` limits.
pub(super) fn response(value: &Value, count: usize) -> Option<(u64, Vec<Grant>)> {
    let (there, values) = value.list()?.split_first()?;
    let grant = |values: &[Value]| {
        let [tokens, slots, first, left, full, wait] = values else { return None };
        let few = |value: &Value| value.number().map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        let time = |value: &Value| value.number().map(|time| time.saturating_mul(MICROSECOND));
        Some(Grant {
            tokens: few(tokens)?,
            slots: few(slots)?,
            first: time(first)?,
            left: few(left)?,
            full: time(full)?,
            wait: time(wait)?,
        })
    };
    let grants: Vec<Grant> = values.chunks(VALUES).map(grant).collect::<Option<_>>()?;
    (grants.len() == count).then_some((there.number()?, grants))
}
