//! The figures of a running process at one moment, read from the documents of its admin listener.

use serde_json::{Value, json};

use crate::log::printable;

/// The figures of a route over the last minute. A figure is `None` where there is nothing to compute it from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Route {
    pub label: String,
    /// Requests a second.
    pub rate: f64,
    /// Share of failed requests, 0 to 1.
    pub errors: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// Share of cache lookups that are hits, 0 to 1.
    pub hits: Option<f64>,
    /// Bytes of content sent to clients.
    pub bytes: u64,
    /// Slow, failing, or neither.
    pub state: &'static str,
}

/// The figures of one process.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Snapshot {
    /// Readiness, with the reason where the process is not ready.
    pub ready: String,
    pub health: String,
    /// The checks that are not healthy: name and detail.
    pub unhealthy: Vec<(String, String)>,
    pub version: String,
    /// Number of the configuration in force; 1 is the one of the start.
    pub generation: u64,
    pub uptime_seconds: f64,
    pub resident_bytes: u64,
    pub connections: u64,
    pub in_flight: u64,
    /// The whole process.
    pub total: Route,
    pub routes: Vec<Route>,
    pub cache_bytes: u64,
    pub cache_max_bytes: u64,
    /// How lookups of the cache ended since the start: word and count, no zeros.
    pub lookups: Vec<(String, u64)>,
    /// Callers that were limited since the start: name or hash, tier, requests limited and allowed.
    pub limited: Vec<(String, String, u64, u64)>,
    /// Upstream addresses: name, address, health, requests in flight, requests that wait.
    pub addresses: Vec<(String, String, &'static str, u64, u64)>,
    /// Other and own processes of the fleet: name, version, state, seconds since it was heard.
    pub processes: Vec<(String, String, &'static str, f64)>,
}

/// Prefix of the counts of cache lookups in `/cache/stats`.
const LOOKUP: &str = "lookup ";

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| "-".to_owned(), printable)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn route(label: String, figures: &Value, state: &'static str) -> Route {
    let of = |name: &str| figures[name].as_f64();
    Route {
        label,
        rate: of("rate").unwrap_or(0.0),
        errors: of("error_rate"),
        p50_ms: of("p50_ms"),
        p95_ms: of("p95_ms"),
        p99_ms: of("p99_ms"),
        hits: of("hit_ratio"),
        bytes: number(&figures["bytes"]),
        state,
    }
}

impl Snapshot {
    /// Reads a snapshot by `ask`, which returns the body of the response for a path, or the reason why there is none.
    pub(super) fn read(ask: impl Fn(&str) -> Result<(bool, String), String>) -> Result<Snapshot, String> {
        let document = |path: &str, always: bool| -> Result<Value, String> {
            let (fine, body) = ask(path)?;
            let document: Value = serde_json::from_str(&body)
                .map_err(|_| format!("the response for {path} is no JSON; is this an admin listener?"))?;
            match fine || always {
                true => Ok(document),
                false => Err(format!("{path}: {}", document["detail"].as_str().unwrap_or("refused"))),
            }
        };
        let routes = document("/performance/routes?window=1m&limit=1000", false)?;
        let system = document("/performance/system", false)?;
        let ready = document("/ready", true)?;
        let health = document("/health", true)?;
        let cache = document("/cache/stats", false)?;
        let limits = document("/limits/top", false)?;
        // A process in no fleet responds with 404.
        let (in_fleet, fleet) = ask("/fleet")?;
        let fleet = if in_fleet { serde_json::from_str(&fleet).unwrap_or_default() } else { json!({}) };
        Ok(Snapshot::from_documents(&routes, &system, &ready, &health, &cache, &limits, &fleet))
    }

    fn from_documents(
        routes: &Value,
        system: &Value,
        ready: &Value,
        health: &Value,
        cache: &Value,
        limits: &Value,
        fleet: &Value,
    ) -> Snapshot {
        let listed = list(&routes["routes"]).map(|row| {
            let state = match (row["failing"].as_bool(), row["state"].as_str()) {
                (Some(true), _) => "failing",
                (_, Some("healthy") | None) => "",
                _ => "slow",
            };
            route(text(&row["route"]), &row["windows"]["1m"], state)
        });
        let checks = health["checks"].as_object().into_iter().flatten();
        let unhealthy = checks.filter(|(_, check)| check["status"] != "healthy");
        let lookups = cache["operations"].as_object().into_iter().flatten();
        let lookups = lookups.filter_map(|(name, count)| {
            let word = name.strip_prefix(LOOKUP)?;
            count.as_u64().filter(|count| *count > 0).map(|count| (word.to_owned(), count))
        });
        let limited = list(&limits["keys"]).filter(|key| number(&key["limited"]) > 0).map(|key| {
            let name = if key["name"].is_null() { &key["key"] } else { &key["name"] };
            (text(name), text(&key["tier"]), number(&key["limited"]), number(&key["allowed"]))
        });
        let addresses = list(&health["checks"]["upstream"]["addresses"]).map(|address| {
            let state = match (address["healthy"].as_bool(), address["answered"].as_bool()) {
                (Some(true), Some(true)) => "healthy",
                (Some(true), _) => "no response yet",
                _ => "failing",
            };
            let (in_flight, waiting) = (number(&address["in_flight"]), number(&address["waiting"]));
            (text(&address["name"]), text(&address["address"]), state, in_flight, waiting)
        });
        let processes = list(&fleet["processes"]).map(|process| {
            let state = if process["live"] == true { "live" } else { "gone" };
            let age = process["age_seconds"].as_f64().unwrap_or(0.0);
            (text(&process["name"]), text(&process["version"]), state, age)
        });
        let mut lookups: Vec<_> = lookups.collect();
        lookups.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let why = ready["detail"].as_str().map(|why| format!(": {}", printable(why)));
        Snapshot {
            ready: format!("{}{}", text(&ready["status"]), why.unwrap_or_default()),
            health: text(&health["status"]),
            unhealthy: unhealthy.map(|(name, check)| (name.clone(), text(&check["detail"]))).collect(),
            version: text(&system["version"]),
            generation: number(&system["generation"]),
            uptime_seconds: system["uptime_seconds"].as_f64().unwrap_or(0.0),
            resident_bytes: number(&system["resident_bytes"]),
            connections: number(&system["connections"]),
            in_flight: number(&system["requests_in_flight"]),
            total: route(String::new(), &routes["total"], ""),
            routes: listed.collect(),
            cache_bytes: number(&cache["bytes"]),
            cache_max_bytes: number(&cache["max_bytes"]),
            lookups,
            limited: limited.collect(),
            addresses: addresses.collect(),
            processes: processes.collect(),
        }
    }
}
