//! Schemas of the admin listener's JSON documents, for the OpenAPI description. A test validates every response against
//! them.

use serde_json::{Map, Value, json};

#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Text,
    OneOf(&'static [&'static str]),
    Integer,
    Number,
    Flag,
    Maybe(&'static Shape),
    List(&'static Shape),
    /// An object whose member names are not known in advance.
    Map(&'static Shape),
    /// An object with exactly these members.
    Object(&'static [Member]),
    /// An object whose schema is defined elsewhere.
    Document,
    /// Any value.
    Any,
}

/// An object member: its name, its schema, and whether it is always present.
pub(super) type Member = (&'static str, Shape, Presence);

/// Whether an object always has a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Always,
    Sometimes,
}

use Presence::{Always, Sometimes};
use Shape::{Any, Document, Flag, Integer, List, Map as MapOf, Maybe, Number, Object, OneOf, Text};

/// The document `{ "status": word }`, in some cases with a reason in `detail`.
pub(super) const STATUS: Shape = Object(&[("status", Text, Always), ("detail", Text, Sometimes)]);

const STATES: Shape = OneOf(&["healthy", "degraded", "unhealthy"]);

const ADDRESS: Shape = Object(&[
    ("name", Text, Always),
    ("address", Text, Always),
    ("healthy", Flag, Always),
    ("answered", Flag, Always),
    ("since", Maybe(&Number), Always),
    ("failures", Integer, Always),
    ("in_flight", Integer, Always),
    ("waiting", Integer, Always),
]);

pub(super) const CHECK: Shape = Object(&[
    ("status", STATES, Always),
    ("detail", Text, Always),
    ("required", Flag, Always),
    ("took_ms", Number, Always),
    ("since", Maybe(&Number), Always),
    ("addresses", List(&ADDRESS), Sometimes),
    ("workers", List(&Object(&[("worker", Integer, Always), ("quiet_ms", Number, Always)])), Sometimes),
]);

pub(super) const HEALTH: Shape = Object(&[
    ("status", STATES, Always),
    ("generation", Integer, Always),
    ("draining", Flag, Always),
    ("maintenance", Flag, Always),
    ("checks", MapOf(&CHECK), Always),
]);

/// The document of `GET /config?format=json`.
pub(super) const SETTINGS: Shape = Object(&[
    ("file", Text, Always),
    ("digest", Text, Always),
    (
        "settings",
        List(&Object(&[
            ("key", Text, Always),
            ("value", Any, Always),
            ("origin", Text, Always),
            ("secret", Flag, Always),
        ])),
        Always,
    ),
]);

/// The document of `POST /config/compare`.
pub(super) const COMPARED: Shape = Object(&[
    ("digest", Text, Always),
    ("secrets", List(&Text), Always),
    ("files", List(&Text), Always),
    ("routes", List(&Integer), Always),
]);

const HIT_RATIO: Shape = Object(&[
    ("hits", Integer, Always),
    ("lookups", Integer, Always),
    ("bypassed", Integer, Always),
    ("hit_ratio", Maybe(&Number), Always),
]);

/// The document of `GET /cache/stats`.
pub(super) const CACHE_STATS: Shape = Object(&[
    ("bytes", Integer, Always),
    ("max_bytes", Integer, Always),
    ("keys", Integer, Always),
    ("evictions", Integer, Always),
    ("fetches_in_progress", Integer, Always),
    ("hits", Integer, Always),
    ("lookups", Integer, Always),
    ("bypassed", Integer, Always),
    ("hit_ratio", Maybe(&Number), Always),
    ("routes", MapOf(&HIT_RATIO), Always),
    ("operations", MapOf(&Integer), Always),
]);

const VARIANT: Shape = Object(&[
    ("state", OneOf(&["fresh", "stale", "invalidated"]), Always),
    ("status", Integer, Always),
    ("age", Integer, Always),
    ("lifetime", Integer, Always),
    ("ttl", Maybe(&Integer), Always),
    ("stale_while_revalidate", Integer, Always),
    ("stale_if_error", Integer, Always),
    ("stale_if_unreachable", Integer, Always),
    ("vary", List(&Text), Always),
    ("tags", List(&Text), Always),
    ("content_bytes", Integer, Always),
    ("bytes", Integer, Always),
    ("made", MapOf(&Integer), Always),
    ("hits", Integer, Always),
]);

/// The document of `GET /cache/lookup`.
pub(super) const CACHE_LOOKUP: Shape = Object(&[
    ("url", Text, Always),
    (
        "found",
        List(&Object(&[
            ("scheme", OneOf(&["http", "https"]), Always),
            ("host", Text, Always),
            ("told_host", Maybe(&Text), Always),
            ("path", Text, Always),
            ("query", Text, Always),
            ("upstream", Text, Always),
            ("principal", Maybe(&Text), Always),
            ("variants", List(&VARIANT), Always),
        ])),
        Always,
    ),
    ("redis", IN_REDIS, Sometimes),
]);

/// What Redis has under a cache key.
const IN_REDIS: Shape = Object(&[
    ("result", OneOf(&["hit", "miss", "late", "unknown", "unreadable", "failed", "varies", "off"]), Always),
    ("age", Integer, Sometimes),
    ("ttl", Integer, Sometimes),
    ("kept_for", Integer, Sometimes),
    ("position", Text, Sometimes),
    ("status", Integer, Sometimes),
    ("content_bytes", Integer, Sometimes),
    ("vary", List(&Text), Sometimes),
]);

/// The document of `POST /cache/purge`.
pub(super) const PURGED: Shape = Object(&[
    ("status", OneOf(&["purged"]), Always),
    ("mode", OneOf(&["hard", "soft"]), Always),
    ("names", Integer, Always),
    ("applied_by", Integer, Sometimes),
    ("processes", Integer, Sometimes),
]);

/// The document of `GET /fleet`.
pub(super) const FLEET: Shape = Object(&[
    ("status", OneOf(&["connected", "lost"]), Always),
    ("process", Text, Always),
    ("applied", Text, Always),
    ("waiting_names", Integer, Always),
    ("round_trip_seconds", Number, Always),
    ("losses", MapOf(&Integer), Always),
    (
        "processes",
        List(&Object(&[
            ("process", Text, Always),
            ("name", Text, Always),
            ("version", Text, Always),
            ("live", Flag, Always),
            ("age_seconds", Number, Always),
            ("published", Integer, Always),
            ("applied", Text, Always),
        ])),
        Always,
    ),
]);

/// The document of `GET /limits/status`.
pub(super) const LIMITS_STATUS: Shape = Object(&[
    ("key", Text, Always),
    ("kind", Text, Sometimes),
    ("name", Maybe(&Text), Always),
    ("tier", Maybe(&Text), Sometimes),
    ("allowed", Integer, Sometimes),
    ("limited", Integer, Sometimes),
    ("held", Flag, Always),
    ("shared", Flag, Always),
    (
        "limits",
        List(&Object(&[
            ("tier", Text, Always),
            ("limit", Text, Always),
            ("rate", Integer, Always),
            ("period_seconds", Integer, Always),
            ("burst", Integer, Always),
            ("remaining", Integer, Always),
            ("full_in_seconds", Number, Always),
            ("shadow", Flag, Always),
        ])),
        Always,
    ),
]);

/// The document of `POST /limits/reset`.
pub(super) const LIMITS_RESET: Shape =
    Object(&[("key", Text, Always), ("held", Flag, Always), ("shared", Flag, Always)]);

/// The document of `GET /limits/top`.
pub(super) const LIMITS_TOP: Shape = Object(&[
    ("held", Integer, Always),
    ("max_keys", Integer, Always),
    (
        "keys",
        List(&Object(&[
            ("key", Text, Always),
            ("kind", Text, Always),
            ("name", Maybe(&Text), Always),
            ("tier", Maybe(&Text), Always),
            ("allowed", Integer, Always),
            ("limited", Integer, Always),
        ])),
        Always,
    ),
]);

const FIGURES: Shape = Object(&[
    ("seconds", Integer, Always),
    ("count", Integer, Always),
    ("rate", Number, Always),
    ("p50_ms", Maybe(&Number), Always),
    ("p90_ms", Maybe(&Number), Always),
    ("p95_ms", Maybe(&Number), Always),
    ("p99_ms", Maybe(&Number), Always),
    ("max_ms", Maybe(&Number), Always),
    ("error_rate", Maybe(&Number), Always),
    ("slow_rate", Maybe(&Number), Always),
    ("hit_ratio", Maybe(&Number), Always),
    ("bytes", Integer, Always),
]);

/// The document of `GET /performance/routes`.
pub(super) const ROUTES: Shape = Object(&[
    ("sort", Text, Always),
    ("window", Text, Always),
    ("total", FIGURES, Always),
    (
        "routes",
        List(&Object(&[
            ("route", Text, Always),
            ("state", STATES, Always),
            ("failing", Flag, Always),
            ("windows", MapOf(&FIGURES), Always),
        ])),
        Always,
    ),
]);

/// The document of `/performance/slow` and `/performance/errors`.
pub(super) const SINGLE: Shape = Object(&[
    ("sort", Text, Always),
    (
        "requests",
        List(&Object(&[
            ("time", Number, Always),
            ("request_id", Text, Always),
            ("method", Text, Always),
            ("path", Text, Always),
            ("route", Text, Always),
            ("status", Integer, Always),
            ("duration_ms", Number, Always),
            ("upstream_ms", Maybe(&Number), Always),
            ("upstream", Maybe(&Text), Always),
            ("cache", Maybe(&Text), Always),
            ("fault", Maybe(&Text), Always),
            ("error", Maybe(&Text), Always),
        ])),
        Always,
    ),
]);

/// The document of `GET /explain`.
pub(super) const EXPLAINED: Shape = Object(&[
    ("request", Document, Always),
    ("explanation", List(&Object(&[("part", Text, Always), ("text", Text, Always)])), Always),
]);

/// The document of `GET /performance/system`.
pub(super) const SYSTEM: Shape = Object(&[
    ("version", Text, Always),
    ("uptime_seconds", Number, Always),
    ("generation", Integer, Always),
    ("cpu_seconds", Number, Always),
    ("cpu_share", Maybe(&Number), Always),
    ("resident_bytes", Integer, Always),
    ("memory_limit_bytes", Maybe(&Integer), Always),
    ("open_fds", Integer, Always),
    ("max_fds", Integer, Always),
    ("threads", Integer, Always),
    ("workers", List(&Object(&[("worker", Integer, Always), ("cpu_seconds", Number, Always)])), Always),
    ("connections", Integer, Always),
    ("requests_in_flight", Integer, Always),
    ("cache_bytes", Integer, Always),
    ("cache_max_bytes", Integer, Always),
    ("limit_keys", Integer, Always),
    (
        "warnings",
        List(&Object(&[("time", Number, Always), ("text", Text, Always), ("recovered", Flag, Always)])),
        Always,
    ),
]);

/// A problem document (RFC 9457).
pub(super) const PROBLEM: Shape = Object(&[
    ("type", Text, Always),
    ("title", Text, Always),
    ("status", Integer, Always),
    ("detail", Text, Always),
    ("request_id", Text, Always),
]);

/// The OpenAPI description itself; only its outermost members are listed here.
pub(super) const OPENAPI: Shape = Object(&[
    ("openapi", Text, Always),
    ("info", Document, Always),
    ("paths", Document, Always),
    ("components", Document, Always),
]);

impl Shape {
    /// Converts to a JSON Schema (2020-12, the dialect of OpenAPI 3.1).
    pub(super) fn schema(&self) -> Value {
        match self {
            Text => json!({ "type": "string" }),
            OneOf(words) => json!({ "type": "string", "enum": words }),
            Integer => json!({ "type": "integer" }),
            Number => json!({ "type": "number" }),
            Flag => json!({ "type": "boolean" }),
            Maybe(shape) => json!({ "anyOf": [shape.schema(), { "type": "null" }] }),
            List(shape) => json!({ "type": "array", "items": shape.schema() }),
            Document => json!({ "type": "object" }),
            Any => json!({}),
            MapOf(shape) => json!({ "type": "object", "additionalProperties": shape.schema() }),
            Object(members) => {
                let properties: Map<String, Value> =
                    members.iter().map(|(name, shape, _)| ((*name).to_owned(), shape.schema())).collect();
                let always = members.iter().filter(|(_, _, presence)| *presence == Always);
                let required: Vec<&str> = always.map(|(name, _, _)| *name).collect();
                json!({ "type": "object", "properties": properties, "required": required })
            }
        }
    }
}
