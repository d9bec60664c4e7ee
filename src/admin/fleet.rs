//! The document about the fleet: which processes share Redis with this one, and how far each has read.

use serde_json::{Value, json};

use crate::fleet::member::Member;
use crate::fleet::process::Fleet;

/// Handles `GET /fleet`.
pub(super) fn shown(fleet: &Fleet) -> Value {
    let view = fleet.view();
    let losses: serde_json::Map<String, Value> =
        fleet.counters.losses().map(|(loss, count)| (loss.as_str().to_owned(), count.into())).collect();
    json!({
        "status": if fleet.is_lost() { "lost" } else { "connected" },
        "process": fleet.sender.to_string(),
        "applied": view.applied.to_string(),
        "waiting_names": fleet.waiting(),
        "round_trip_seconds": fleet.counters.round_trip().as_secs_f64(),
        "losses": losses,
        "processes": view.members.iter().map(member_shown).collect::<Vec<_>>(),
    })
}

fn member_shown(member: &Member) -> Value {
    json!({
        "process": member.sender.to_string(),
        "name": member.about.name,
        "version": member.about.version,
        "live": member.live,
        "age_seconds": member.age.as_secs_f64(),
        "published": member.about.published,
        "applied": member.about.applied,
    })
}
