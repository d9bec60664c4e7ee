//! The OpenAPI 3.1 description of the admin API, from the table of endpoints.

use serde_json::{Map, Value, json};

use super::{Action, ENDPOINTS, Endpoint, Guard, JSON, Takes};
use crate::admin::schemas;
use crate::admin::schemas::Shape;
use crate::policy::Check;

/// Builds the OpenAPI 3.1 description of the admin API.
pub(in crate::admin) fn describe(version: &str) -> Value {
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
        Takes::Required | Takes::Text => json!({ "type": "string" }),
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
        (Action::Explain, _) => &schemas::EXPLAINED,
        (Action::CacheStats, _) => &schemas::CACHE_STATS,
        (Action::Fleet, _) => &schemas::FLEET,
        (Action::CacheLookup, _) => &schemas::CACHE_LOOKUP,
        (Action::CachePurge, _) => &schemas::PURGED,
        (Action::LimitsStatus, _) => &schemas::LIMITS_STATUS,
        (Action::LimitsTop, _) => &schemas::LIMITS_TOP,
        (Action::LimitsReset, _) => &schemas::LIMITS_RESET,
        (Action::Performance, "/performance/routes") => &schemas::ROUTES,
        (Action::Performance, "/performance/system") => &schemas::SYSTEM,
        (Action::Performance, _) => &schemas::SINGLE,
        (Action::Settings, _) => &schemas::SETTINGS,
        (Action::Compare, _) => &schemas::COMPARED,
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
        Action::Tail => {
            vec![("503", "the maximum number of readers is connected, or the process drains", false)]
        }
        Action::Explain => vec![("404", "the request is not among the latest decisions", false)],
        Action::Reload => {
            vec![("422", "the configuration file is invalid; the current configuration stays", false)]
        }
        Action::CachePurge => vec![("413", "the form is too long", false)],
        Action::Compare => vec![("413", "the marks are too long", false)],
        Action::LimitsReset => vec![
            ("404", "no key has this name, hash or address", false),
            ("503", "Redis did not take the reset", false),
        ],
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

pub(super) fn operation_id(endpoint: &Endpoint) -> String {
    let name = endpoint.path.trim_matches('/').replace(['/', '.'], "_").replace(['{', '}'], "");
    if name.is_empty() { "root".to_owned() } else { name }
}
