//! The table of every path on the admin and probe listeners. Dispatch, the plain-text list at the root and the OpenAPI
//! description all derive from it.

mod openapi;

use http::Method;

pub(super) use self::openapi::describe;
use super::performance::{SORTS, WINDOWS};

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
    Explain,
    Describe,
    CacheStats,
    CacheLookup,
    CachePurge,
    Fleet,
    Tail,
    LimitsStatus,
    LimitsTop,
    LimitsReset,
    Performance,
    Settings,
    Compare,
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
    /// Requires the admin token like `Operator`. The endpoint changes state or takes content, so it takes POST.
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
    /// A text value.
    Text,
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

pub(super) const ENDPOINTS: [Endpoint; 31] = [
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
        "/tail",
        Action::Tail,
        Guard::Operator,
        "Live decisions: one JSON object a line for each completed request, for at most four readers (pillion tail)",
        &[
            ("status", "status, or class of statuses (5xx)", Takes::Texts),
            ("route", "label of the route; * stands for any text", Takes::Texts),
            ("method", "method of the request", Takes::Texts),
            ("path", "path without query, as the log shows it; * stands for any text", Takes::Texts),
            ("user_hash", "principal or caller, as the access log shows it", Takes::Texts),
            ("slow", "minimum duration: 200ms, 2s", Takes::Text),
            ("cache", "word for what the cache did", Takes::Texts),
            ("reason", "word for why the response was not stored, limited or failed", Takes::Texts),
            ("address", "shows the addresses of clients", Takes::OneOf(&["true"])),
        ],
        &["application/x-ndjson"],
    ),
    endpoint(
        "/explain",
        Action::Explain,
        Guard::Operator,
        "One of the latest decisions, by request id: members of its log line, and the decision in words",
        &[("request_id", "request id, as X-Request-Id has it", Takes::Required)],
        JSON,
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
        &[
            ("url", "path or URL", Takes::Required),
            ("key", "cache key in hexadecimal, which is also looked for in Redis", Takes::Text),
        ],
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
        "/limits/reset",
        Action::LimitsReset,
        Guard::Order,
        "Forgets what one key used; where limits are shared, in Redis too",
        &[("key", "name in the file of keys, hash as /limits/top shows it, or IP address", Takes::Required)],
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
        "/config/compare",
        Action::Compare,
        Guard::Order,
        "Tells by marks what of another configuration differs: secrets, files, rules of routes (pillion diff)",
        &[],
        JSON,
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

#[cfg(test)]
mod tests;
