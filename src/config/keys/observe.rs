//! `[health]`, `[log]`, `[metrics]` and `[tracing]`.

use super::declare::table;
use super::kind::{
    AutoSize, SecondsList, Text, Texts, Value, Word, auto_size, duration, flag, number, share, texts, timeout,
};
use crate::log::MASK;
use crate::policy::{AccessLog, LogFormat};
use ::tracing::Level;
use std::time::Duration;

table! {
    /// `[health]`.
    health, in observe, requires [];
    READY_REQUIRES "ready_requires": Texts = texts(&["upstream"]), Reload,
        "Checks that must hold for /ready to be 200.";
    MEMORY_LIMIT "memory_limit": AutoSize = auto_size(0), Reload,
        "Memory against which the memory check compares; \"auto\" takes the cgroup's limit.";
    DEGRADED_AT "degraded_at": Value<f64> = share(0.8), Reload,
        "Share of a limit from which a check is degraded.";
    WEBHOOK "webhook": Text = Text(""), Reload,
        "URL that gets a JSON document by POST when a check changes its state, or \"\" for none.";
    WEBHOOK_SECRET "webhook_secret": Text = Text(""), Reload,
        "Secret that signs each document to the webhook (X-Pillion-Signature).";
}

table! {
    /// `[maintenance]`.
    maintenance, in observe, requires [];
    ENABLED "enabled": Value<bool> = flag(false), Reload,
        "Whether maintenance is on from the start.";
    DOCUMENT "document": Text = Text(""), Reload,
        "File of the response's content (.html, .json, .txt or .xml), or \"\" for a problem document.";
    RETRY_AFTER "retry_after": Value<Duration> = timeout(300), Reload,
        "Time in the field Retry-After.";
    SERVE_STORED "serve_stored": Value<bool> = flag(false), Reload,
        "Whether stored responses are served, stale ones within stale_if_error.";
    READY "ready": Value<bool> = flag(true), Reload,
        "Whether /ready is what it is without maintenance, else 503.";
    ALLOW "allow": Texts = texts(&[]), Reload,
        "Networks, or \"private\", whose clients are served as usual.";
    EXCEPT "except": Texts = texts(&[]), Reload,
        "Requests that are served as usual, as METHOD[,METHOD] [host]path.";
}

const FORMATS: [(&str, Option<LogFormat>); 3] =
    [("auto", None), ("json", Some(LogFormat::Json)), ("pretty", Some(LogFormat::Pretty))];

const LEVELS: [(&str, Level); 5] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];

const ACCESS: [(&str, AccessLog); 4] = [
    ("all", AccessLog::All),
    ("errors", AccessLog::Errors),
    ("slow", AccessLog::Slow),
    ("off", AccessLog::Off),
];

table! {
    /// `[log]`.
    log, in observe, requires [];
    FORMAT "format": Word<Option<LogFormat>> = Word { words: &FORMATS, default: None }, Restart,
        "Format of events and access log; \"auto\" is pretty on a terminal, else JSON.";
    LEVEL "level": Word<Level> = Word { words: &LEVELS, default: Level::INFO }, Reload,
        "Lowest level of events that are logged.";
    ACCESS_LOG "access": Word<AccessLog> = Word { words: &ACCESS, default: AccessLog::All }, Reload,
        "Which requests the access log holds: \"all\", \"errors\", \"slow\" (and errors) or none (\"off\").";
    SAMPLE "sample": Value<f64> = share(1.0), Reload,
        "Share of ordinary requests in the access log.";
    SLOW "slow": Value<Duration> = duration(1), Reload,
        "Duration from which a request is slow and always logged.";
    MASKED "mask": Texts = texts(&MASK), Reload,
        "Names of parameters and path segments whose values are never logged.";
}

table! {
    /// `[metrics]`.
    metrics, in observe, requires [];
    BUCKETS "buckets": SecondsList = SecondsList(&BUCKETS_BY_DEFAULT), Restart,
        "Upper bounds of the buckets of classic histograms, in seconds.";
    MAX_ROUTES "max_routes": Value<u64> = number(200, 1..=10_000), Restart,
        "Maximum number of route labels; further routes share route=\"other\".";
}

const BUCKETS_BY_DEFAULT: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

table! {
    /// `[tracing]`.
    tracing, in observe, requires [];
    OTLP_ENDPOINT "otlp_endpoint": Text = Text(""), Reload,
        "URL that gets OpenTelemetry spans over OTLP (http/protobuf), or \"\" for none.";
    SAMPLE "sample": Value<f64> = share(0.1), Reload,
        "Share of the traces that begin here and are recorded.";
}
