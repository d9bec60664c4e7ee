//! The table of every path on the admin and probe listeners. Dispatch, the plain-text list at the root and the OpenAPI
//! description all derive from it.

use http::Method;
use serde_json::{Map, Value, json};

use super::performance::{SORTS, WINDOWS};
use crate::admin::schemas;
use crate::admin::schemas::Shape;
use crate::policy::Check;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Live,
    Ready,
    Health,
    Check,
    Metrics,
    Root,
    File,
    Events,
    Describe,
    CacheStats,
    CacheLookup,
    CachePurge,
    Fleet,
    LimitsStatus,
    LimitsTop,
    Performance,
    Settings,
    Reload,
    Maintenance,
    Drain,
    Quit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// Open to every client, on the probes listener too.
    Open,
    /// Open to every client that reaches the admin listener.
    Admin,
    /// Requires the admin token if one is configured, because responses name paths, users and keys.
    Operator,
    /// Requires the admin token like `Operator`. The endpoint changes state, so it takes POST.
    Order,
}

impl Guard {
    /// Returns whether the endpoint requires the admin token if one is configured.
    pub(super) fn needs_token(self) -> bool {
        matches!(self, Guard::Operator | Guard::Order)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Takes {
    /// A required text value.
    Required,
    /// A text value that may be repeated.
    Texts,
    /// A number of rows, 1 to 1000.
    Rows,
    /// One of these words. The first is the default.
    OneOf(&'static [&'static str]),
}

/// A query parameter: its name, its description, and its type.
pub(super) type Parameter = (&'static str, &'static str, Takes);

#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint {
    /// The path; `{check}` stands for one variable segment.
    pub path: &'static str,
    pub action: Action,
    pub guard: Guard,
    pub summary: &'static str,
    /// Parameters in the query. A POST takes them in a form body too.
    pub parameters: &'static [Parameter],
    /// Media types of a successful response. The first is the default.
    pub media: &'static [&'static str],
}

const JSON: &[&str] = &["application/json"];
/// JSON, or a text table for clients that ask for `text/plain`.
const REPORT: &[&str] = &["application/json", "text/plain"];
const EXPOSITIONS: &[&str] =
    &["text/plain", "application/openmetrics-text", "application/vnd.google.protobuf"];

const SHOWN: [Parameter; 2] = [
    ("limit", "maximum number of rows", Takes::Rows),
    ("format", "text: a table instead of JSON", Takes::OneOf(&["json", "text"])),
];
const SINGLE: &[Parameter] =
    &[("sort", "order of the rows", Takes::OneOf(&["time", "duration"])), SHOWN[0], SHOWN[1]];

const fn endpoint(
    path: &'static str,
    action: Action,
    guard: Guard,
    summary: &'static str,
    parameters: &'static [Parameter],
    media: &'static [&'static str],
) -> Endpoint {
    Endpoint { path, action, guard, summary, parameters, media }
}

pub(super) const ENDPOINTS: [Endpoint; 27] = [
    endpoint(
        "/live",
        Action::Live,
        Guard::Open,
        "Liveness: responds as long as the process works",
        &[],
        JSON,
    ),
    endpoint(
        "/ready",
        Action::Ready,
        Guard::Open,
        "Readiness: 200 if requests should be sent here, else 503",
        &[],
        JSON,
    ),
    endpoint(
        "/health",
        Action::Health,
        Guard::Open,
        "State of all health checks, and the overall state",
        &[],
        JSON,
    ),
    endpoint(
        "/health/{check}",
        Action::Check,
        Guard::Open,
        "State of one health check: upstream, memory, certificate, file_descriptors, disk, workers",
        &[],
        JSON,
    ),
    endpoint(
        "/metrics",
        Action::Metrics,
        Guard::Open,
        "Metrics, in the format that Accept asks for: Prometheus text, OpenMetrics, or protobuf \
        with native histograms",
        &[],
        EXPOSITIONS,
    ),
    endpoint(
        "/",
        Action::Root,
        Guard::Admin,
        "HTML page for browsers, a list of paths for other clients",
        &[],
        &["text/html", "text/plain"],
    ),
    endpoint("/page.css", Action::File, Guard::Admin, "Part of the HTML page", &[], &["text/css"]),
    endpoint("/page.js", Action::File, Guard::Admin, "Part of the HTML page", &[], &["text/javascript"]),
    endpoint(
        "/api",
        Action::File,
        Guard::Admin,
        "HTML page to try the operations of this description",
        &[],
        &["text/html"],
    ),
    endpoint("/api.js", Action::File, Guard::Admin, "Part of the page /api", &[], &["text/javascript"]),
    endpoint("/openapi.json", Action::Describe, Guard::Admin, "This OpenAPI description", &[], JSON),
    endpoint(
        "/events",
        Action::Events,
        Guard::Operator,
        "Current figures every two seconds, as server-sent events",
        &[],
        &["text/event-stream"],
    ),
    endpoint(
        "/cache/stats",
        Action::CacheStats,
        Guard::Operator,
        "Contents and operations of the cache",
        &[],
        JSON,
    ),
    endpoint(
        "/cache/lookup",
        Action::CacheLookup,
        Guard::Operator,
        "Stored responses of a URL: variants, age, lifetime, tags, size, hits; never content",
        &[("url", "path or URL", Takes::Required)],
        JSON,
    ),
    endpoint(
        "/cache/purge",
        Action::CachePurge,
        Guard::Order,
        "Purges cached responses; requires at least one of url, prefix, tag, principal, everything",
        &[
            ("url", "path or URL: purges every query, variant and user of it", Takes::Texts),
            ("prefix", "path: purges it and every path below it", Takes::Texts),
            ("tag", "purges every response with this tag", Takes::Texts),
            (
                "principal",
                "SOURCE=VALUE as in identity.principal: purges the responses of this user",
                Takes::Texts,
            ),
            ("everything", "purges every stored response", Takes::OneOf(&["true"])),
            ("mode", "hard removes the responses, soft marks them stale", Takes::OneOf(&["hard", "soft"])),
        ],
        JSON,
    ),
    endpoint(
        "/fleet",
        Action::Fleet,
        Guard::Operator,
        "Processes that share Redis with this one: which are alive, how far each has read, and what this one lacks",
        &[],
        JSON,
    ),
    endpoint(
        "/limits/status",
        Action::LimitsStatus,
        Guard::Operator,
        "State of one key with every limit",
        &[("key", "name in the file of keys, hash as /limits/top shows it, or IP address", Takes::Required)],
        JSON,
    ),
    endpoint(
        "/limits/top",
        Action::LimitsTop,
        Guard::Operator,
        "Keys that are limited most often, by name or hash",
        &[("n", "maximum number of keys", Takes::Rows)],
        JSON,
    ),
    endpoint(
        "/performance/routes",
        Action::Performance,
        Guard::Operator,
        "Count, rate, percentiles, errors, hits and bytes of every route over 1m, 5m and 1h",
        &[
            ("sort", "order of the rows", Takes::OneOf(&SORTS)),
            ("window", "time window of the figures", Takes::OneOf(&WINDOWS)),
            SHOWN[0],
            SHOWN[1],
        ],
        REPORT,
    ),
    endpoint(
        "/performance/slow",
        Action::Performance,
        Guard::Operator,
        "Most recent requests that took longer than log.slow",
        SINGLE,
        REPORT,
    ),
    endpoint(
        "/performance/errors",
        Action::Performance,
        Guard::Operator,
        "Most recent failed requests",
        SINGLE,
        REPORT,
    ),
    endpoint(
        "/performance/system",
        Action::Performance,
        Guard::Operator,
        "Memory, CPU, connections and warnings of the process",
        &[SHOWN[1]],
        REPORT,
    ),
    endpoint(
        "/config",
        Action::Settings,
        Guard::Operator,
        "Effective settings with their origins, secrets masked",
        &[("format", "TOML with origins in comments, or JSON", Takes::OneOf(&["toml", "json"]))],
        &["application/toml", "application/json"],
    ),
    endpoint(
        "/reload",
        Action::Reload,
        Guard::Order,
        "Reloads the configuration (422 if it is invalid)",
        &[],
        JSON,
    ),
    endpoint(
        "/maintenance",
        Action::Maintenance,
        Guard::Order,
        "Switches maintenance: requests for the upstream get 503 while it is on",
        &[("state", "on or off", Takes::OneOf(&["on", "off"]))],
        JSON,
    ),
    endpoint(
        "/drain",
        Action::Drain,
        Guard::Order,
        "Prepares the process for its stop: /ready responds with 503 from now on",
        &[],
        JSON,
    ),
    endpoint("/quit", Action::Quit, Guard::Order, "Stops the process, as SIGTERM does", &[], JSON),
];

impl Endpoint {
    /// Returns the method this endpoint takes. GET endpoints take HEAD too.
    pub(super) fn method(&self) -> Method {
        if self.guard == Guard::Order { Method::POST } else { Method::GET }
    }

    /// Rejects unknown and repeated parameter names: a misspelled parameter must not be silently ignored.
    pub(super) fn check(&self, parameters: &[(String, String)]) -> Result<(), String> {
        // Endpoints without parameters ignore any query, because probes and scrapers add their own. Commands do not
        // ignore it.
        if self.parameters.is_empty() && self.guard != Guard::Order {
            return Ok(());
        }
        for (at, (name, _)) in parameters.iter().enumerate() {
            let Some((_, _, takes)) = self.parameters.iter().find(|(known, _, _)| known == name) else {
                let known: Vec<&str> = self.parameters.iter().map(|(name, _, _)| *name).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(format!("unknown parameter {name:?}; expected {known}"));
            };
            if !matches!(takes, Takes::Texts) && parameters[..at].iter().any(|(before, _)| before == name) {
                return Err(format!("the parameter {name} is given twice; give it once"));
            }
        }
        Ok(())
    }
}

/// Finds the endpoint of a path and the value of its variable segment (empty if it has none).
pub(super) fn find(path: &str) -> Option<(&'static Endpoint, &str)> {
    ENDPOINTS.iter().find_map(|endpoint| match endpoint.path.split_once('{') {
        None => (endpoint.path == path).then_some((endpoint, "")),
        Some((begin, _)) => {
            let rest = path.strip_prefix(begin)?;
            (!rest.is_empty() && !rest.contains('/')).then_some((endpoint, rest))
        }
    })
}

/// Renders the plain-text list of endpoints for clients other than browsers.
pub(super) fn list() -> String {
    let mut text = "Pillion admin\n\n".to_owned();
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.action != Action::File) {
        let names = endpoint.parameters.iter().map(|(name, _, _)| format!("{name}="));
        let asked = names.collect::<Vec<_>>().join("&");
        let asked = if asked.is_empty() { asked } else { format!("?{asked}") };
        text += &format!("{:<4} {:<24} {}\n", endpoint.method(), endpoint.path, endpoint.summary);
        if !asked.is_empty() {
            text += &format!("{:<29} {asked}\n", "");
        }
    }
    text
}

/// Builds the OpenAPI 3.1 description of the admin API.
pub(super) fn describe(version: &str) -> Value {
    let mut paths = Map::new();
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.action != Action::File) {
        let mut parameters: Vec<Value> = endpoint
            .parameters
            .iter()
            .map(|(name, description, takes)| {
                let required = matches!(takes, Takes::Required);
                let schema = schema(*takes);
                json!({ "name": name, "in": "query", "required": required, "description": description, "schema": schema })
            })
            .collect();
        if let Some((_, rest)) = endpoint.path.split_once('{') {
            let name = rest.trim_end_matches('}');
            let checks = Check::ALL.map(Check::as_str);
            parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "enum": checks } }));
        }
        let problem = json!({
            "description": "problem document (RFC 9457)",
            "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
        });
        let shape = shape(endpoint);
        let media: Map<String, Value> =
            endpoint.media.iter().map(|media| ((*media).to_owned(), content(media, shape))).collect();
        let mut responses = json!({
            success(endpoint.action): { "description": "the requested document", "content": media },
            "default": problem,
        });
        for (status, description, document) in refusals(endpoint) {
            let media = if document { JSON[0] } else { "application/problem+json" };
            let content = content(media, shape);
            responses[status] = json!({ "description": description, "content": { media: content } });
        }
        let mut operation = json!({
            "summary": endpoint.summary,
            "operationId": operation_id(endpoint),
            "parameters": parameters,
            "responses": responses,
        });
        if matches!(endpoint.guard, Guard::Operator | Guard::Order) {
            operation["security"] = json!([{ "admin_token": [] }, {}]);
        }
        paths.insert(
            endpoint.path.to_owned(),
            json!({ endpoint.method().as_str().to_ascii_lowercase(): operation }),
        );
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Admin listener of Pillion", "version": version, "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" } },
        "paths": paths,
        "components": {
            "securitySchemes": { "admin_token": { "type": "http", "scheme": "bearer", "description": "server.admin_token, if one is set" } },
            "schemas": {
                "Problem": schemas::PROBLEM.schema(),
            },
        },
    })
}

fn schema(takes: Takes) -> Value {
    match takes {
        Takes::Required => json!({ "type": "string" }),
        // OpenAPI's default for arrays in a query repeats the name for each value.
        Takes::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Takes::Rows => json!({ "type": "integer", "minimum": 1, "maximum": 1000 }),
        Takes::OneOf(words) => json!({ "type": "string", "enum": words }),
    }
}

fn shape(endpoint: &Endpoint) -> &'static Shape {
    match (endpoint.action, endpoint.path) {
        (Action::Health, _) => &schemas::HEALTH,
        (Action::Check, _) => &schemas::CHECK,
        (Action::Describe, _) => &schemas::OPENAPI,
        (Action::CacheStats, _) => &schemas::CACHE_STATS,
        (Action::Fleet, _) => &schemas::FLEET,
        (Action::CacheLookup, _) => &schemas::CACHE_LOOKUP,
        (Action::CachePurge, _) => &schemas::PURGED,
        (Action::LimitsStatus, _) => &schemas::LIMITS_STATUS,
        (Action::LimitsTop, _) => &schemas::LIMITS_TOP,
        (Action::Performance, "/performance/routes") => &schemas::ROUTES,
        (Action::Performance, "/performance/system") => &schemas::SYSTEM,
        (Action::Performance, _) => &schemas::SINGLE,
        (Action::Settings, _) => &schemas::SETTINGS,
        _ => &schemas::STATUS,
    }
}

/// Returns the status of success: 202 for commands that only start an action.
fn success(action: Action) -> &'static str {
    if matches!(action, Action::Drain | Action::Quit) { "202" } else { "200" }
}

/// Describes the content of a response in one media type.
fn content(media: &str, shape: &Shape) -> Value {
    match media {
        "application/json" => json!({ "schema": shape.schema() }),
        "application/problem+json" => json!({ "schema": { "$ref": "#/components/schemas/Problem" } }),
        _ => json!({ "schema": { "type": "string" } }),
    }
}

/// Lists the other responses of an endpoint: the status, its meaning, and whether it carries the same document as
/// success.
fn refusals(endpoint: &Endpoint) -> Vec<(&'static str, &'static str, bool)> {
    let mut refusals = match endpoint.action {
        Action::Ready => vec![("503", "requests should not be sent here; detail says why", true)],
        Action::Health => vec![("503", "a check named in health.ready_requires is unhealthy", true)],
        Action::Check => {
            vec![("503", "the check is unhealthy; detail says why", true), ("404", "unknown check", false)]
        }
        Action::Events => vec![("503", "the maximum number of event streams is open", false)],
        Action::Reload => {
            vec![("422", "the configuration file is invalid; the current configuration stays", false)]
        }
        Action::CachePurge => vec![("413", "the form is too long", false)],
        Action::LimitsStatus => vec![("404", "no key has this name, hash or address", false)],
        _ => Vec::new(),
    };
    if !endpoint.parameters.is_empty() || endpoint.guard == Guard::Order {
        refusals.push(("400", "unknown parameter, or invalid value", false));
    }
    if matches!(endpoint.guard, Guard::Operator | Guard::Order) {
        refusals.push(("401", "the admin token is missing or wrong", false));
    }
    refusals
}

fn operation_id(endpoint: &Endpoint) -> String {
    let name = endpoint.path.trim_matches('/').replace(['/', '.'], "_").replace(['{', '}'], "");
    if name.is_empty() { "root".to_owned() } else { name }
}

#[cfg(test)]
mod tests;
