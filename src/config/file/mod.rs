//! The raw mirror of the file: what was written and where, or the default. The defaults stand here
//! and nowhere else. It has no behaviour; `compile` gives it meaning.

mod cache;
mod limits;

use std::time::Duration;

use crate::config::diagnostic::{Diagnostics, Span};
use crate::config::reserved;
use crate::config::table_reader::{AutoOr, FromNode as _, Section, Size, Spanned};
use crate::config::value::{Node, Table, Value};
use crate::log::MASK;
use crate::policy::AccessLog;
use crate::policy::underscores::Underscores;
use crate::represent::coding::{Coding, Effort};

pub(super) use cache::{Cache, IGNORED_COOKIES, Identity, Invalidate, Jwt, PRINCIPAL, RouteCache};
pub(super) use limits::{ApiKey, Limit, Rate, RateLimit, RouteLimits, read_keys};

pub(super) struct File {
    pub server: Server,
    pub tls: Option<Tls>,
    /// `None` also where it is written and wrong, which is said already.
    pub upstream: Option<Upstream>,
    pub has_upstream: bool,
    pub upstreams: Vec<Upstream>,
    pub routes: Vec<Route>,
    pub compression: Compression,
    pub etag: Etag,
    pub identity: Identity,
    pub cache: Cache,
    pub invalidate: Vec<Invalidate>,
    pub rate_limit: RateLimit,
    pub health: Health,
    pub log: Log,
    pub metrics: Metrics,
    pub tracing: Tracing,
}

/// `[server]`.
pub(super) struct Server {
    pub listen: Vec<Spanned<String>>,
    /// Where `listen` is written.
    pub listen_span: Option<Span>,
    pub admin: Spanned<String>,
    pub probes: Spanned<String>,
    pub admin_token: Spanned<String>,
    pub admin_hosts: Vec<Spanned<String>>,
    pub workers: Spanned<AutoOr<u64>>,
    pub max_connections: Spanned<u64>,
    pub header_timeout: Spanned<Duration>,
    pub body_timeout: Spanned<Duration>,
    pub send_timeout: Spanned<Duration>,
    pub idle_timeout: Spanned<Duration>,
    pub stream_idle_timeout: Spanned<Duration>,
    pub max_header_size: Spanned<Size>,
    pub max_headers: Spanned<u64>,
    pub max_body_size: Spanned<AutoOr<Size>>,
    pub buffer_request: Spanned<Size>,
    pub buffer_response: Spanned<Size>,
    pub buffer_memory: Spanned<AutoOr<Size>>,
    pub min_body_rate: Spanned<Size>,
    pub h2_max_streams: Spanned<u64>,
    pub trusted_proxies: Vec<Spanned<String>>,
    pub underscores: Underscores,
    pub proxy_protocol: Spanned<bool>,
    pub redirect_https: Spanned<bool>,
    pub drain_delay: Spanned<Duration>,
    pub drain_timeout: Spanned<Duration>,
    pub watch: Spanned<bool>,
}

/// Settings of the table `[server.tls]`.
pub(super) struct Tls {
    pub span: Span,
    pub listen: Vec<Spanned<String>>,
    pub certificates: Vec<(Spanned<String>, Spanned<String>)>,
    pub client_ca: Spanned<String>,
}

/// Settings of the table `[upstream]`, or of one of `[upstreams.*]`.
pub(super) struct Upstream {
    pub name: String,
    pub span: Option<Span>,
    /// `None` also where it is written and wrong, which is said already.
    pub url: Option<Spanned<String>>,
    pub has_url: bool,
    pub replicas: Vec<Spanned<String>>,
    pub writes_to_any: bool,
    pub connect_timeout: Spanned<Duration>,
    pub response_timeout: Spanned<Duration>,
    pub body_timeout: Spanned<Duration>,
    pub max_connections: Spanned<u64>,
    pub max_streams: Spanned<u64>,
    pub max_waiting: Spanned<u64>,
    pub queue_timeout: Spanned<Duration>,
    pub keep_alive: Spanned<Duration>,
    pub retries: Spanned<u64>,
    pub preserve_host: Spanned<bool>,
    pub adaptive_concurrency: Spanned<bool>,
    pub ca: Spanned<String>,
    pub cert: Spanned<String>,
    pub key: Spanned<String>,
    pub server_name: Spanned<String>,
    pub probe_path: Spanned<String>,
    pub probe_interval: Spanned<Duration>,
    pub probe_timeout: Spanned<Duration>,
    pub unhealthy_after: Spanned<u64>,
    pub healthy_after: Spanned<u64>,
}

/// Settings of one entry in `[[routes]]`.
pub(super) struct Route {
    pub span: Span,
    pub pattern: Option<Spanned<String>>,
    pub upstream: Option<Spanned<String>>,
    pub rewrite: Option<Spanned<String>>,
    pub deny: Option<Spanned<u64>>,
    pub redirect: Option<Redirect>,
    pub deprecated: Option<Deprecated>,
    pub timeout: Option<Spanned<Duration>>,
    pub stream: Spanned<bool>,
    pub max_body_size: Option<Spanned<AutoOr<Size>>>,
    pub compress: Spanned<bool>,
    pub etag: Spanned<bool>,
    pub browser_ttl: Option<Spanned<Duration>>,
    pub cache: Option<RouteCache>,
    pub limits: Option<RouteLimits>,
    pub cost: Option<Spanned<u64>>,
    pub concurrency: Option<Spanned<u64>>,
    pub set_request: Vec<(Spanned<String>, Spanned<String>)>,
    pub set_response: Vec<(Spanned<String>, Spanned<String>)>,
    pub remove_request: Vec<Spanned<String>>,
    pub remove_response: Vec<Spanned<String>>,
}

/// `redirect = { to, status }`.
pub(super) struct Redirect {
    pub span: Span,
    pub to: Option<Spanned<String>>,
    pub status: Spanned<u64>,
}

/// `deprecated = { since, sunset, link }`.
pub(super) struct Deprecated {
    pub span: Span,
    pub since: Option<Spanned<String>>,
    pub sunset: Option<Spanned<String>>,
    pub link: Option<Spanned<String>>,
}

pub(super) struct Compression {
    pub enabled: Spanned<bool>,
    pub codings: Vec<Spanned<String>>,
    pub min_size: Spanned<Size>,
    pub types: Vec<Spanned<String>>,
    pub effort: Effort,
    pub ask_identity: bool,
    pub breach_guard: Spanned<bool>,
}

pub(super) struct Etag {
    pub generate: Spanned<bool>,
    pub max_size: Spanned<Size>,
}

/// `[health]`.
pub(super) struct Health {
    pub ready_requires: Vec<Spanned<String>>,
    pub memory_limit: Spanned<AutoOr<Size>>,
    pub degraded_at: Spanned<f64>,
    pub webhook: Spanned<String>,
    pub webhook_secret: Spanned<String>,
}

/// `[log]`.
pub(super) struct Log {
    pub format: Option<crate::policy::LogFormat>,
    pub level: tracing::Level,
    pub access: AccessLog,
    pub sample: Spanned<f64>,
    pub slow: Spanned<Duration>,
    pub mask: Vec<Spanned<String>>,
}

/// `[metrics]`.
pub(super) struct Metrics {
    pub buckets: Vec<Spanned<f64>>,
    pub max_routes: Spanned<u64>,
}

/// `[tracing]`.
pub(super) struct Tracing {
    pub otlp_endpoint: Spanned<String>,
    pub sample: Spanned<f64>,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn text(text: &str) -> String {
    text.to_owned()
}

const EMPTY: &Table = &Table { entries: Vec::new() };

/// Reads the file; everything wrong with its form goes to `problems`.
pub(super) fn read(table: &Table, problems: &mut Diagnostics) -> File {
    let mut root = Section::new("", table);
    let (server, tls) = read_server(root.table("server", problems).map(|(table, _)| table), problems);
    let has_upstream = root.has("upstream");
    let upstream = root.table("upstream", problems).map(|(table, span)| {
        read_upstream("upstream", Section::new("upstream", table), Some(span), problems)
    });
    let upstreams = root.table("upstreams", problems).map_or_else(Vec::new, |(table, _)| {
        Section::new("upstreams", table)
            .entries()
            .filter_map(|(name, node, _)| read_named(name, node, problems))
            .collect()
    });
    let routes = read_routes(root.node("routes"), problems);
    let compression = read_compression(root.table("compression", problems).map(|(table, _)| table), problems);
    let etag = read_etag(root.table("etag", problems).map(|(table, _)| table), problems);
    let identity = cache::read_identity(root.table("identity", problems).map(|(table, _)| table), problems);
    let cache = cache::read_cache(root.table("cache", problems).map(|(table, _)| table), problems);
    let invalidate = cache::read_invalidate(root.node("invalidate"), problems);
    let rate_limit =
        limits::read_rate_limit(root.table("rate_limit", problems).map(|(table, _)| table), problems);
    let health = read_health(root.table("health", problems).map(|(table, _)| table), problems);
    let log = read_log(root.table("log", problems).map(|(table, _)| table), problems);
    let metrics = read_metrics(root.table("metrics", problems).map(|(table, _)| table), problems);
    let tracing = read_tracing(root.table("tracing", problems).map(|(table, _)| table), problems);
    reserved::sections(&mut root, problems);
    root.finish(problems);
    File {
        server,
        tls,
        upstream,
        has_upstream,
        upstreams,
        routes,
        compression,
        etag,
        identity,
        cache,
        invalidate,
        rate_limit,
        health,
        log,
        metrics,
        tracing,
    }
}

fn read_server(table: Option<&Table>, p: &mut Diagnostics) -> (Server, Option<Tls>) {
    let mut s = Section::new("server", table.unwrap_or(EMPTY));
    let tls = s.table("tls", p).map(|(table, span)| read_tls(table, span, p));
    let server = Server {
        listen_span: s.node("listen").map(|node| node.span.clone()),
        listen: s.list("listen", vec![text("[::]:8080")], p),
        admin: s.or("admin", text("127.0.0.1:9900"), p),
        probes: s.or("probes", text(""), p),
        admin_token: s.or("admin_token", text(""), p),
        admin_hosts: s.list("admin_hosts", Vec::new(), p),
        workers: s.or("workers", AutoOr(None), p),
        max_connections: s.or("max_connections", 10_000, p),
        header_timeout: s.or("header_timeout", seconds(10), p),
        body_timeout: s.or("body_timeout", seconds(60), p),
        send_timeout: s.or("send_timeout", seconds(60), p),
        idle_timeout: s.or("idle_timeout", seconds(75), p),
        stream_idle_timeout: s.or("stream_idle_timeout", seconds(3600), p),
        max_header_size: s.or("max_header_size", Size(64 * 1024), p),
        max_headers: s.or("max_headers", 256, p),
        max_body_size: s.or("max_body_size", AutoOr(None), p),
        buffer_request: s.or("buffer_request", Size(64 * 1024), p),
        buffer_response: s.or("buffer_response", Size(256 * 1024), p),
        buffer_memory: s.or("buffer_memory", AutoOr(None), p),
        min_body_rate: s.or("min_body_rate", Size(240), p),
        h2_max_streams: s.or("h2_max_streams", 128, p),
        trusted_proxies: s.list("trusted_proxies", Vec::new(), p),
        underscores: s.choice(
            "underscores",
            &[("twins", Underscores::Twins), ("drop", Underscores::Drop), ("pass", Underscores::Pass)],
            Underscores::Twins,
            p,
        ),
        proxy_protocol: s.or("proxy_protocol", false, p),
        redirect_https: s.or("redirect_https", false, p),
        drain_delay: s.or("drain_delay", seconds(0), p),
        drain_timeout: s.or("drain_timeout", seconds(20), p),
        watch: s.or("watch", true, p),
    };
    s.finish(p);
    (server, tls)
}

fn read_tls(table: &Table, span: Span, p: &mut Diagnostics) -> Tls {
    let mut s = Section::new("server.tls", table);
    let mut certificates = Vec::new();
    if let Some(node) = s.node("certificates") {
        let tables: Option<Vec<&Table>> = match &node.value {
            Value::Array(items) => items
                .iter()
                .map(|item| match &item.value {
                    Value::Table(table) => Some(table),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        match tables {
            Some(tables) => tables.into_iter().for_each(|table| {
                let mut s = Section::new("server.tls.certificates", table);
                let pair = (s.or("cert", text(""), p), s.or("key", text(""), p));
                s.finish(p);
                if pair.0.value.is_empty() || pair.1.value.is_empty() {
                    p.at(&node.span, "a certificate needs both cert and key");
                }
                certificates.push(pair);
            }),
            None => s.mismatch("certificates", node, "an array of { cert = \"...\", key = \"...\" }", p),
        }
    }
    let tls = Tls {
        span,
        listen: s.list("listen", vec![text("[::]:8443")], p),
        certificates,
        client_ca: s.or("client_ca", text(""), p),
    };
    s.finish(p);
    tls
}

fn read_named(name: &str, node: &Node, p: &mut Diagnostics) -> Option<Upstream> {
    let section = format!("upstreams.{name}");
    match &node.value {
        Value::Table(table) => {
            Some(read_upstream(name, Section::new(section, table), Some(node.span.clone()), p))
        }
        _ => {
            p.at(&node.span, format!("{section} is {}", node.value.kind())).help("expected a table");
            None
        }
    }
}

fn read_upstream(name: &str, mut s: Section<'_>, span: Option<Span>, p: &mut Diagnostics) -> Upstream {
    let tls = s.table("tls", p).map_or(EMPTY, |(table, _)| table);
    let health = s.table("health", p).map_or(EMPTY, |(table, _)| table);
    let mut t = Section::new(format!("{}.tls", s.name), tls);
    let mut h = Section::new(format!("{}.health", s.name), health);
    let upstream = Upstream {
        name: name.to_owned(),
        span,
        has_url: s.has("url"),
        url: s.get("url", p),
        replicas: s.list("replicas", Vec::new(), p),
        writes_to_any: s.choice("writes_to", &[("primary", false), ("any", true)], false, p),
        connect_timeout: s.or("connect_timeout", seconds(1), p),
        response_timeout: s.or("response_timeout", seconds(60), p),
        body_timeout: s.or("body_timeout", seconds(60), p),
        max_connections: s.or("max_connections", 256, p),
        max_streams: s.or("max_streams", 10_000, p),
        max_waiting: s.or("max_waiting", 1024, p),
        queue_timeout: s.or("queue_timeout", seconds(1), p),
        keep_alive: s.or("keep_alive", seconds(4), p),
        retries: s.or("retries", 2, p),
        preserve_host: s.or("preserve_host", true, p),
        adaptive_concurrency: s.or("adaptive_concurrency", false, p),
        ca: t.or("ca", text(""), p),
        cert: t.or("cert", text(""), p),
        key: t.or("key", text(""), p),
        server_name: t.or("server_name", text(""), p),
        probe_path: h.or("path", text(""), p),
        probe_interval: h.or("interval", seconds(5), p),
        probe_timeout: h.or("timeout", seconds(1), p),
        unhealthy_after: h.or("unhealthy_after", 3, p),
        healthy_after: h.or("healthy_after", 2, p),
    };
    t.finish(p);
    h.finish(p);
    s.finish(p);
    upstream
}

/// An upstream of which nothing is known but its URL, for `--upstream`.
pub(super) fn upstream_at(url: Spanned<String>, problems: &mut Diagnostics) -> Upstream {
    let mut upstream = read_upstream("upstream", Section::new("upstream", EMPTY), None, problems);
    upstream.url = Some(url);
    upstream.has_url = true;
    upstream
}

fn read_routes(node: Option<&Node>, p: &mut Diagnostics) -> Vec<Route> {
    let Some(node) = node else { return Vec::new() };
    let Value::Array(items) = &node.value else {
        p.at(&node.span, format!("routes is {}", node.value.kind())).help("expected [[routes]] tables");
        return Vec::new();
    };
    let mut routes = Vec::with_capacity(items.len());
    for item in items {
        match &item.value {
            Value::Table(table) => routes.push(read_route(table, item.span.clone(), p)),
            other => {
                p.at(&item.span, format!("a route is {}", other.kind())).help("expected a table");
            }
        }
    }
    routes
}

fn read_route(table: &Table, span: Span, p: &mut Diagnostics) -> Route {
    let mut s = Section::new("routes", table);
    let redirect = s.table("redirect", p).map(|(table, span)| {
        let mut s = Section::new("routes.redirect", table);
        let redirect = Redirect { span, to: s.get("to", p), status: s.or("status", 308, p) };
        s.finish(p);
        redirect
    });
    let deprecated = s.table("deprecated", p).map(|(table, span)| {
        let mut s = Section::new("routes.deprecated", table);
        let deprecated =
            Deprecated { span, since: s.get("since", p), sunset: s.get("sunset", p), link: s.get("link", p) };
        s.finish(p);
        deprecated
    });
    let cache = s.table("cache", p).map(|(table, span)| cache::read_route_cache(table, span, p));
    let limits = limits::read_route_limits(&mut s, p);
    let route = Route {
        span,
        cache,
        limits,
        cost: s.get("cost", p),
        concurrency: s.get("concurrency", p),
        pattern: s.get("match", p),
        upstream: s.get("upstream", p),
        rewrite: s.get("rewrite", p),
        deny: s.get("deny", p),
        redirect,
        deprecated,
        timeout: s.get("timeout", p),
        stream: s.or("stream", false, p),
        max_body_size: s.get("max_body_size", p),
        compress: s.or("compress", true, p),
        etag: s.or("etag", true, p),
        browser_ttl: s.get("browser_ttl", p),
        set_request: read_pairs(&mut s, "set_request", p),
        set_response: read_pairs(&mut s, "set_response", p),
        remove_request: s.list("remove_request", Vec::new(), p),
        remove_response: s.list("remove_response", Vec::new(), p),
    };
    s.finish(p);
    route
}

fn read_pairs(
    s: &mut Section<'_>,
    key: &'static str,
    p: &mut Diagnostics,
) -> Vec<(Spanned<String>, Spanned<String>)> {
    let Some((table, _)) = s.table(key, p) else { return Vec::new() };
    let mut pairs = Vec::new();
    for (key, node) in &table.entries {
        match String::from_node(node) {
            Some(value) => {
                let name = Spanned { value: key.name.clone(), span: Some(key.span.clone()) };
                pairs.push((name, Spanned { value, span: Some(node.span.clone()) }));
            }
            None => {
                p.at(&node.span, format!("the field {} is {}", key.name, node.value.kind()))
                    .help("expected a string");
            }
        }
    }
    pairs
}

fn read_compression(table: Option<&Table>, p: &mut Diagnostics) -> Compression {
    let mut s = Section::new("compression", table.unwrap_or(EMPTY));
    let types = [
        "text/*",
        "application/json",
        "application/*+json",
        "application/xml",
        "application/*+xml",
        "application/javascript",
        "application/wasm",
        "image/svg+xml",
    ];
    let efforts = [("fast", Effort::Fast), ("balanced", Effort::Balanced), ("best", Effort::Best)];
    let compression = Compression {
        enabled: s.or("enabled", true, p),
        codings: s.list("codings", Coding::ALL.map(|coding| text(coding.as_str())).to_vec(), p),
        min_size: s.or("min_size", Size(1024), p),
        types: s.list("types", types.map(text).to_vec(), p),
        effort: s.choice("effort", &efforts, Effort::Balanced, p),
        ask_identity: s.choice("ask_app", &[("identity", true), ("client", false)], true, p),
        breach_guard: s.or("breach_guard", true, p),
    };
    s.finish(p);
    compression
}

fn read_etag(table: Option<&Table>, p: &mut Diagnostics) -> Etag {
    let mut s = Section::new("etag", table.unwrap_or(EMPTY));
    let etag = Etag { generate: s.or("generate", true, p), max_size: s.or("max_size", Size(64 * 1024), p) };
    s.finish(p);
    etag
}

fn read_health(table: Option<&Table>, p: &mut Diagnostics) -> Health {
    let mut s = Section::new("health", table.unwrap_or(EMPTY));
    let health = Health {
        ready_requires: s.list("ready_requires", vec![text("upstream")], p),
        memory_limit: s.or("memory_limit", AutoOr(None), p),
        degraded_at: s.or("degraded_at", 0.8, p),
        webhook: s.or("webhook", text(""), p),
        webhook_secret: s.or("webhook_secret", text(""), p),
    };
    s.finish(p);
    health
}

fn read_tracing(table: Option<&Table>, p: &mut Diagnostics) -> Tracing {
    let mut s = Section::new("tracing", table.unwrap_or(EMPTY));
    let tracing =
        Tracing { otlp_endpoint: s.or("otlp_endpoint", text(""), p), sample: s.or("sample", 0.1, p) };
    s.finish(p);
    tracing
}

fn read_log(table: Option<&Table>, p: &mut Diagnostics) -> Log {
    use crate::policy::LogFormat;
    use tracing::Level;
    let mut s = Section::new("log", table.unwrap_or(EMPTY));
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    let access = [
        ("all", AccessLog::All),
        ("errors", AccessLog::Errors),
        ("slow", AccessLog::Slow),
        ("off", AccessLog::Off),
    ];
    let formats = [("auto", None), ("json", Some(LogFormat::Json)), ("pretty", Some(LogFormat::Pretty))];
    let log = Log {
        format: s.choice("format", &formats, None, p),
        level: s.choice("level", &levels, Level::INFO, p),
        access: s.choice("access", &access, AccessLog::All, p),
        sample: s.or("sample", 1.0, p),
        slow: s.or("slow", seconds(1), p),
        mask: s.list("mask", MASK.map(text).to_vec(), p),
    };
    s.finish(p);
    log
}

fn read_metrics(table: Option<&Table>, p: &mut Diagnostics) -> Metrics {
    let mut s = Section::new("metrics", table.unwrap_or(EMPTY));
    let buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    let metrics =
        Metrics { buckets: s.list("buckets", buckets.to_vec(), p), max_routes: s.or("max_routes", 200, p) };
    s.finish(p);
    metrics
}
