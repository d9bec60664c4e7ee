//! The output of the admin listener: metrics, paths, members of documents, states, and the webhook.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::Facts;
use super::requests::Scene;
use crate::harness::*;

/// Labels whose values are the user's own or unlimited in number. The values of `rule` are listed with the words.
const OPEN: [&str; 11] = [
    "digest",
    "route",
    "upstream",
    "address",
    "tier",
    "limit",
    "worker",
    "version",
    "certificate",
    "status",
    "rule",
];

pub(crate) fn gather(facts: &mut Facts) {
    let scene = Scene::new();
    scene.play();
    metrics(&scene.pillion.admin_get("/metrics").text(), facts);
    paths(&scene.pillion.admin_get("/openapi.json").json(), facts);
    refusals(&scene.pillion, facts);
    events(&scene.pillion, facts);
    words_of_states(&scene, facts);
    webhook(facts);
}

/// Adds names, types, labels, and the label values that Pillion chooses.
fn metrics(text: &str, facts: &mut Facts) {
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            facts.add("metrics", rest);
            continue;
        }
        let Some((name, rest)) = line.split_once('{').filter(|(name, _)| !name.starts_with('#')) else {
            continue;
        };
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|base| text.contains(&format!("# TYPE {base} histogram\n")))
            .unwrap_or(name);
        let labels = rest.rsplit_once('}').unwrap().0.split("\",");
        let labels = labels.filter_map(|label| label.split_once("=\"")).filter(|(label, _)| *label != "le");
        let (open, ours): (Vec<_>, Vec<_>) = labels.partition(|(label, _)| OPEN.contains(label));
        open.iter().for_each(|(label, _)| facts.add("metrics", format!("{name} label {label}")));
        // Not every combination of values occurs.
        let ours: Vec<String> =
            ours.iter().map(|(label, value)| format!("{label}={}", value.trim_end_matches('"'))).collect();
        if !ours.is_empty() {
            facts.add("metrics", format!("{name} label {}", ours.join(" ")));
        }
    }
}

/// Adds paths, parameters, statuses, media types and members from the API description. `tests/house/dashboards.rs`
/// validates every response against the description.
fn paths(described: &Value, facts: &mut Facts) {
    for (path, methods) in described["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let asked = format!("{} {path}", method.to_uppercase());
            let secured = operation["security"].is_array();
            facts.add("admin paths", format!("{asked}{}", if secured { " (admin token)" } else { "" }));
            for parameter in operation["parameters"].as_array().unwrap() {
                let (name, place) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
                let required = if parameter["required"] == true { "required " } else { "" };
                let told = format!("{asked} {required}{place} parameter {name}");
                shape(&parameter["schema"], &told, "admin paths", facts);
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                for (media, content) in response["content"].as_object().unwrap() {
                    facts.add("admin paths", format!("{asked} {status} {media}"));
                    if media == "application/json" && content["schema"]["type"] == "object" {
                        shape(&content["schema"], &format!("{asked} {status}"), "admin members", facts);
                    }
                }
            }
        }
    }
    shape(&described["components"]["schemas"]["Problem"], "problem", "admin members", facts);
}

/// Adds errors that occur before the path is examined, which no description includes.
fn refusals(pillion: &Pillion, facts: &mut Facts) {
    for (line, more) in [("GET /live", "origin: http://a.example\r\n"), ("GET /none", ""), ("POST /live", "")]
    {
        let refused = wire::ask(pillion.admin, line, more);
        let told = refused.json()["type"].as_str().unwrap().to_owned();
        assert_eq!(told, format!("urn:pillion:problem:admin-{}", refused.status));
        facts.add("problem types", told);
    }
}

/// Adds one fact for each member, at any depth.
fn shape(schema: &Value, told: &str, section: &'static str, facts: &mut Facts) {
    if let Some(words) = schema["enum"].as_array() {
        for word in words {
            facts.add(section, format!("{told}: {}", word.as_str().unwrap()));
        }
        return;
    }
    if let Some(kinds) = schema["anyOf"].as_array() {
        let real = kinds.iter().find(|kind| kind["type"] != "null").unwrap();
        return shape(real, &format!("{told} (or null)"), section, facts);
    }
    match schema["type"].as_str().unwrap_or_default() {
        "object" if schema["properties"].is_object() => {
            for (name, member) in schema["properties"].as_object().unwrap() {
                let required = schema["required"].as_array().unwrap().iter().any(|known| known == name);
                let name = if required { name.clone() } else { format!("{name}?") };
                shape(member, &format!("{told} .{name}"), section, facts);
            }
        }
        "object" if schema["additionalProperties"].is_object() => {
            shape(&schema["additionalProperties"], &format!("{told} .*"), section, facts);
        }
        "array" => shape(&schema["items"], &format!("{told} []"), section, facts),
        kind => facts.add(section, format!("{told}: {kind}")),
    }
}

/// Adds the members of a document without a description, with the types of their values.
pub(crate) fn members(value: &Value, told: &str, section: &'static str, facts: &mut Facts) {
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, value)| self::members(value, &format!("{told} .{name}"), section, facts)),
        Value::Array(items) => {
            items.iter().for_each(|item| members(item, &format!("{told} []"), section, facts));
        }
        // In other documents this member is a number.
        Value::Null => {}
        Value::String(_) => facts.add(section, format!("{told}: string")),
        Value::Number(_) => facts.add(section, format!("{told}: number")),
        Value::Bool(_) => facts.add(section, format!("{told}: boolean")),
    }
}

/// Adds the members of the page's events, which the description lists only as a stream.
fn events(pillion: &Pillion, facts: &mut Facts) {
    let mut tcp = connect(pillion.admin);
    tcp.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 16 * 1024]);
    // The figures of a route appear only after a measuring step has passed.
    let event = eventually("an event has all lists", || {
        let read = tcp.read(&mut buffer).unwrap();
        assert!(read > 0, "the stream of events ended: {text}");
        text += &String::from_utf8_lossy(&buffer[..read]);
        let whole = text.split("data: ").skip(1).filter_map(|event| event.split_once("\n\n"));
        let mut parsed = whole.map(|(event, _)| serde_json::from_str::<Value>(event).unwrap());
        let is_filled =
            |event: &Value, name: &str| event[name].as_array().is_some_and(|rows| !rows.is_empty());
        parsed.find(|event| ["routes", "tiers", "upstreams"].iter().all(|name| is_filled(event, name)))
    });
    facts.add("admin members", "GET /events data .warnings []: as of GET /performance/system");
    members(&event, "GET /events data", "admin members", facts);
}

/// Adds the words that documents can contain where the description says only that they are strings.
fn words_of_states(scene: &Scene, facts: &mut Facts) {
    let mut say = |asked: &str, answer: Answer| {
        let word = answer.json()["status"].as_str().unwrap().to_owned();
        facts.add("health", format!("{asked} {} status: {word}", answer.status));
    };
    let unready = Pillion::in_front_of(absent_app());
    say("GET /ready", unready.admin_get("/ready"));
    let pillion = &scene.pillion;
    pillion.wait_until_ready();
    say("GET /live", pillion.admin_get("/live"));
    say("GET /ready", pillion.admin_get("/ready"));
    say("POST /reload", pillion.admin_post("/reload"));
    let health = pillion.admin_get("/health").json();
    say("POST /drain", pillion.admin_post("/drain"));
    say("GET /ready", pillion.admin_get("/ready"));
    say("POST /quit", pillion.admin_post("/quit"));
    for check in health["checks"].as_object().unwrap().keys() {
        facts.add("health", format!("check {check}"));
    }
}

/// Adds the members of documents sent to `health.webhook`.
fn webhook(facts: &mut Facts) {
    let told: Arc<Mutex<Vec<Request>>> = Arc::default();
    let into = told.clone();
    let receiver = Script::answering(move |request| {
        into.lock().unwrap().push(request.clone());
        ok("")
    });
    // A tiny memory limit makes a check unhealthy.
    let _pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[health]\nmemory_limit = \"1B\"\nwebhook = \"http://{0}/\"\nwebhook_secret = \"a secret\"\n",
        receiver.address
    ));
    let request = eventually("the webhook is told", || {
        told.lock().unwrap().iter().find(|request| request.line.starts_with("POST ")).cloned()
    });
    let document: Value = serde_json::from_slice(&request.body).unwrap();
    members(&document, "document", "webhook", facts);
    let names: BTreeSet<&String> = request.fields.iter().map(|(name, _)| name).collect();
    names.into_iter().for_each(|name| facts.add("webhook", format!("field {name}")));
}
