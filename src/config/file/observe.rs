//! `[health]`, `[maintenance]`, `[log]`, `[metrics]` and `[tracing]`, as they are written.

use std::time::Duration;

use crate::config::diagnostic::Diagnostics;
use crate::config::keys::{health, log, maintenance, metrics, tracing};
use crate::config::table_reader::{AutoOr, Section, Size, Spanned};
use crate::config::value::{EMPTY, Table};
use crate::policy::AccessLog;

/// `[health]`.
pub(crate) struct Health {
    pub ready_requires: Vec<Spanned<String>>,
    pub memory_limit: Spanned<AutoOr<Size>>,
    pub degraded_at: Spanned<f64>,
    pub webhook: Spanned<String>,
    pub webhook_secret: Spanned<String>,
}

/// `[maintenance]`.
pub(crate) struct Maintenance {
    pub enabled: Spanned<bool>,
    pub document: Spanned<String>,
    pub retry_after: Spanned<Duration>,
    pub serve_stored: Spanned<bool>,
    pub ready: Spanned<bool>,
    pub allow: Vec<Spanned<String>>,
    pub except: Vec<Spanned<String>>,
}

/// `[log]`.
pub(crate) struct Log {
    pub format: Option<crate::policy::LogFormat>,
    pub level: ::tracing::Level,
    pub access: AccessLog,
    pub sample: Spanned<f64>,
    pub slow: Spanned<Duration>,
    pub mask: Vec<Spanned<String>>,
}

/// `[metrics]`.
pub(crate) struct Metrics {
    pub buckets: Vec<Spanned<f64>>,
    pub max_routes: Spanned<u64>,
}

/// `[tracing]`.
pub(crate) struct Tracing {
    pub otlp_endpoint: Spanned<String>,
    pub sample: Spanned<f64>,
}

pub(super) fn read_health(table: Option<&Table>, p: &mut Diagnostics) -> Health {
    let mut s = Section::new("health", table.unwrap_or(EMPTY));
    let health = Health {
        ready_requires: s.read(&health::READY_REQUIRES, p),
        memory_limit: s.read(&health::MEMORY_LIMIT, p),
        degraded_at: s.read(&health::DEGRADED_AT, p),
        webhook: s.read(&health::WEBHOOK, p),
        webhook_secret: s.read(&health::WEBHOOK_SECRET, p),
    };
    s.finish(p);
    health
}

pub(super) fn read_maintenance(table: Option<&Table>, p: &mut Diagnostics) -> Maintenance {
    let mut s = Section::new("maintenance", table.unwrap_or(EMPTY));
    let maintenance = Maintenance {
        enabled: s.read(&maintenance::ENABLED, p),
        document: s.read(&maintenance::DOCUMENT, p),
        retry_after: s.read(&maintenance::RETRY_AFTER, p),
        serve_stored: s.read(&maintenance::SERVE_STORED, p),
        ready: s.read(&maintenance::READY, p),
        allow: s.read(&maintenance::ALLOW, p),
        except: s.read(&maintenance::EXCEPT, p),
    };
    s.finish(p);
    maintenance
}

pub(super) fn read_log(table: Option<&Table>, p: &mut Diagnostics) -> Log {
    let mut s = Section::new("log", table.unwrap_or(EMPTY));
    let log = Log {
        format: s.read(&log::FORMAT, p),
        level: s.read(&log::LEVEL, p),
        access: s.read(&log::ACCESS_LOG, p),
        sample: s.read(&log::SAMPLE, p),
        slow: s.read(&log::SLOW, p),
        mask: s.read(&log::MASKED, p),
    };
    s.finish(p);
    log
}

pub(super) fn read_metrics(table: Option<&Table>, p: &mut Diagnostics) -> Metrics {
    let mut s = Section::new("metrics", table.unwrap_or(EMPTY));
    let metrics =
        Metrics { buckets: s.read(&metrics::BUCKETS, p), max_routes: s.read(&metrics::MAX_ROUTES, p) };
    s.finish(p);
    metrics
}

pub(super) fn read_tracing(table: Option<&Table>, p: &mut Diagnostics) -> Tracing {
    let mut s = Section::new("tracing", table.unwrap_or(EMPTY));
    let tracing =
        Tracing { otlp_endpoint: s.read(&tracing::OTLP_ENDPOINT, p), sample: s.read(&tracing::SAMPLE, p) };
    s.finish(p);
    tracing
}
