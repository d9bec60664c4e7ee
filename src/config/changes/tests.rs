//! Changes are told once, by what they are about, and no secret is in them.

use super::*;
use crate::config::{Environment, Settings, Source, load_and_keep};
use crate::policy::Policy;
use crate::state::route_digest;

fn load(text: &str) -> (Policy, Settings) {
    let embedded = Some(("a.toml", &*Box::leak(text.to_owned().into_boxed_str())));
    let loaded = load_and_keep(&Source { embedded, ..Source::default() }, &Environment::default());
    let (policy, kept) = loaded.unwrap_or_else(|error| panic!("{error}"));
    (policy, kept.settings().unwrap())
}

fn rules(policy: &Policy, place: usize) -> u64 {
    route_digest::local(policy, &policy.routes.routes[place])
}

/// Each change as `subject setting old -> new effects`, which is short enough for a table.
fn told(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (load(old), load(new));
    let (before, after) = (Listing::new(&old.1), Listing::new(&new.1));
    let pairing = Pairing::new(&before, &after);
    let marks = Marks::new(&new.1, &new.0, &pairing, &|place| rules(&new.0, place)).unwrap();
    // Marks travel as text.
    let marks: Marks = serde_json::from_str(&serde_json::to_string(&marks).unwrap()).unwrap();
    let differing = marks.compare(&old.1, &old.0, &|place| rules(&old.0, place)).unwrap();
    let all = changes(&before, &after, &pairing, &differing);
    assert!(!serde_json::to_string(&all).unwrap().contains("S3CRET"));
    all.iter().map(shown).collect()
}

fn shown(change: &Change) -> String {
    let subject = match &change.subject {
        Subject::File => String::new(),
        Subject::Route(name) | Subject::Invalidate(name) | Subject::Warm(name) => format!("{name}: "),
        Subject::Unmatched => "unmatched: ".to_owned(),
    };
    let value = |value: &Option<Json>| value.as_ref().map_or("-".to_owned(), Json::to_string);
    let kind = match &change.kind {
        Kind::Added { settings } => {
            format!("added {}", settings.keys().cloned().collect::<Vec<_>>().join(","))
        }
        Kind::Removed => "removed".to_owned(),
        Kind::Moved { from, to } => format!("moved {from} {to}"),
        Kind::Set { setting, old, new } => format!("{setting} {} {}", value(old), value(new)),
        Kind::Secret { setting } => format!("{setting} secret"),
        Kind::Content { file } => format!("content {file}"),
        Kind::Rules => "rules".to_owned(),
    };
    let effects: String = change.effects.iter().map(|effect| format!(" {effect:?}")).collect();
    format!("{subject}{kind}{effects}")
}

const FILE: &str = r#"
[server]
admin_token = "S3CRET-S3CRET-S3CRET"
[upstream]
url = "http://127.0.0.1:3000"
[[routes]]
match = "GET /a"
cache = { ttl = "30s" }
[[routes]]
match = "GET /b/{id}"
set_request = { authorization = "S3CRET" }
[[routes]]
match = "GET /c"
[[invalidate]]
on = "POST /a"
paths = ["/a"]
[rate_limit.tiers.free.limits.minute]
rate = "60/min"
"#;

#[test]
fn changes_are_told_by_what_they_are_about() {
    const A: &str = "[[routes]]\nmatch = \"GET /a\"\ncache = { ttl = \"30s\" }\n";
    for (from, to, wanted) in [
        ("", "# the same", vec![]),
        ("30s", "30000ms", vec![]),
        ("[server]", "[server]\nidle_timeout = \"61s\"", vec!["idle_timeout"]),
        ("30s", "31s", vec!["GET /a: cache.ttl \"30s\" \"31s\" Unreachable"]),
        ("[server]", "[server]\nlisten = \":8080\"\nidle_timeout = \"75000ms\"", vec![]),
        ("[server]", "[server]\nlisten = 9090", vec!["server.listen [\"[::]:8080\"] [\"9090\"] Restart"]),
        ("admin_token = \"S3CRET", "admin_token = \"S3CRET2", vec!["server.admin_token secret"]),
        (
            "authorization = \"S3CRET\"",
            "authorization = \"S3CRET2\"",
            vec!["GET /b/{id}: set_request.authorization secret Unreachable"],
        ),
        (
            "60/min",
            "30/min",
            vec!["rate_limit.tiers.free.limits.minute.rate \"60/min\" \"30/min\" LimitRestarts"],
        ),
        (
            "/b/{id}",
            "/b/{name}",
            vec!["GET /b/{id}: removed Unreachable", "GET /b/{name}: added set_request.authorization"],
        ),
        ("[[routes]]\nmatch = \"GET /c\"", "", vec!["GET /c: removed Unreachable"]),
        // The secret of a route is found again at another place.
        (A, "", vec!["GET /a: removed Unreachable"]),
        (
            "[[routes]]\nmatch = \"GET /c\"",
            &format!("[[routes]]\nmatch = \"GET /c\"\n{}", A.replace("/a", "/d")),
            vec!["GET /d: added cache.ttl"],
        ),
        ("paths = [\"/a\"]", "paths = [\"/b\"]", vec!["POST /a: paths [\"/a\"] [\"/b\"]"]),
        (
            "[upstream]",
            "[upstreams.api]\nurl = \"http://127.0.0.1:4000\"\n[upstream]",
            vec!["upstreams.api.url - \"http://127.0.0.1:4000\""],
        ),
    ] {
        let new = FILE.replacen(from, to, 1);
        let told = told(FILE, &new);
        let fits = told.len() == wanted.len()
            && told
                .iter()
                .zip(&wanted)
                .all(|(told, wanted)| told == wanted || told.contains(wanted) && !wanted.contains(' '));
        assert!(fits, "{to}: {told:#?}\nwanted {wanted:#?}");
    }
}

#[test]
fn a_route_that_moves_is_told_once() {
    let second = "[[routes]]\nmatch = \"GET /c\"\n";
    let without = FILE.replace(second, "");
    let new = without.replacen("[[routes]]", &format!("{second}[[routes]]"), 1);
    assert_eq!(told(FILE, &new), ["GET /c: moved 3 1"]);
}

#[test]
fn what_changes_the_rules_of_all_routes_is_told_of_each() {
    let new = FILE.replace(":3000", ":3001");
    let told = told(FILE, &new);
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(told[0].starts_with("upstream.url") && told[4] == "unmatched: rules Unreachable", "{told:?}");
}

#[test]
fn marks_without_a_proper_key_are_refused() {
    let (policy, settings) = load(FILE);
    for key in ["", "00", "zz", &"é".repeat(32), &"0".repeat(66)] {
        let marks = format!("{{\"key\":\"{key}\",\"secrets\":{{}},\"files\":{{}},\"routes\":[]}}");
        let marks: Marks = serde_json::from_str(&marks).unwrap();
        assert!(marks.compare(&settings, &policy, &|_| 0).is_err(), "{key}");
    }
}
