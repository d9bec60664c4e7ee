//! The script by which tokens are taken from shared buckets, and its answers.

use std::sync::LazyLock;

use super::lease::{Demand, Grant};
use crate::redis::command::{Command, Value};
use crate::redis::script::Script;

/// The script.
pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take.lua")));
/// Number of values that the script returns for each limit.
const VALUES: usize = 6;
/// Nanoseconds in the unit of the script.
const MICROSECOND: u64 = 1000;

/// A time for the script: microseconds, with the fraction that fast limits need.
fn microseconds(time: u64) -> String {
    format!("{}.{:03}", time / MICROSECOND, time % MICROSECOND)
}

/// Adds the key and the arguments by which tokens are taken from the limits of one caller.
pub(super) fn arguments(command: Command, key: &str, live: usize, demands: &[Demand]) -> Command {
    let mut command = command.number(1).arg(key).number(live.max(1) as u64);
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
