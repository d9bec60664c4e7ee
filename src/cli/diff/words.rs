//! Changes of a configuration in sentences.

use serde_json::Value as Json;

use crate::config::changes::{Change, Effect, Kind, Subject};
use crate::config::toml_value;

/// Maximum number of routes that are named in one sentence.
const MAX_NAMED: usize = 5;

/// Says every change in a sentence of its own, with its effects below it, and what a reload makes of them.
pub(super) fn text(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "nothing changes".to_owned();
    }
    let mut out = String::new();
    let (rules, others): (Vec<&Change>, Vec<&Change>) =
        changes.iter().partition(|change| change.kind == Kind::Rules);
    for change in &others {
        out += &format!("{}\n", sentence(change));
        for effect in &change.effects {
            out += &format!("    {}\n", effect_of(*effect));
        }
    }
    if !rules.is_empty() {
        let names: Vec<String> = rules.iter().map(|change| name(&change.subject)).collect();
        out += &format!("responses of {} are stored under other rules\n", list(&names));
        out += &format!("    {}\n", effect_of(Effect::Unreachable));
    }
    let restart = others.iter().filter(|change| change.effects.contains(&Effect::Restart)).count();
    let count = match others.len() {
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    };
    let end = match restart {
        0 => "a reload applies them".to_owned(),
        1 => "1 needs a restart, and a reload refuses the file".to_owned(),
        some => format!("{some} need a restart, and a reload refuses the file"),
    };
    format!("{out}\n{count}; {end}")
}

fn sentence(change: &Change) -> String {
    let subject = match &change.subject {
        Subject::File => String::new(),
        other => format!("{}: ", name(other)),
    };
    match &change.kind {
        Kind::Added { settings } if settings.is_empty() => format!("{subject}is new"),
        Kind::Added { settings } => {
            let written = settings.iter().map(|(key, value)| format!("{key} = {}", toml_value(value)));
            format!("{subject}is new, with {}", written.collect::<Vec<_>>().join(", "))
        }
        Kind::Removed => format!("{subject}is removed"),
        Kind::Moved { from, to } => format!("{subject}moves from place {from} to place {to}"),
        Kind::Set { setting, old, new } => {
            format!("{subject}{setting} {}", values(old.as_ref(), new.as_ref()))
        }
        Kind::Secret { setting } => format!("{subject}{setting} is another secret"),
        Kind::Content { file } => format!("the file {file} has other content"),
        Kind::Rules => format!("{subject}stores responses under other rules"),
    }
}

fn values(old: Option<&Json>, new: Option<&Json>) -> String {
    match (old, new) {
        (Some(old), Some(new)) => format!("is {}, was {}", toml_value(new), toml_value(old)),
        (None, Some(new)) => format!("is {}, was not set", toml_value(new)),
        (Some(old), None) => format!("is not set any more, was {}", toml_value(old)),
        (None, None) => "is not set".to_owned(),
    }
}

fn name(subject: &Subject) -> String {
    match subject {
        Subject::File => "the file".to_owned(),
        Subject::Route(matched) => format!("route {matched}"),
        Subject::Invalidate(on) => format!("[[invalidate]] {on}"),
        Subject::Warm(paths) => format!("[[warm]] {paths}"),
        Subject::Unmatched => "requests that match no route".to_owned(),
    }
}

fn list(names: &[String]) -> String {
    let shown = names.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn effect_of(effect: Effect) -> &'static str {
    match effect {
        Effect::Restart => "needs a restart: a reload refuses the file",
        Effect::Unreachable => "its stored responses are not found any more",
        Effect::LimitRestarts => "each client of the limit begins with a full burst",
    }
}
