//! The raw mirror of the file: what was written and where, or the default that `keys` declares. It has no behaviour;
//! `compile` gives it meaning.

mod cache;
mod content;
mod limits;
mod observe;
mod redis;
mod when;

use std::time::Duration;

use crate::config::diagnostic::{Diagnostics, Span};
use crate::config::keys::{
    certificate, deprecated, redirect, root, route, server, server_tls, upstream, upstream_health,
    upstream_tls,
};
use crate::config::table_reader::{AutoOr, FromNode as _, Section, Size, Spanned};
use crate::config::value::{EMPTY, Node, Table, Value};
use crate::policy::underscores::Underscores;

pub(super) use cache::{Cache, Identity, Invalidate, Jwt, RouteCache, Warm};
pub(super) use content::{Compression, Etag};
pub(super) use limits::{ApiKey, Limit, RateLimit, RouteLimits, read_keys};
pub(super) use observe::{Health, Log, Maintenance, Metrics, Tracing};
pub(super) use redis::Redis;
pub(super) use when::{Named, When};

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
    pub warm: Vec<Warm>,
    pub rate_limit: RateLimit,
    pub redis: Option<Redis>,
    pub health: Health,
    pub maintenance: Maintenance,
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
    /// `None` where they are written and wrong, which is said already.
    pub certificates: Option<Vec<(Spanned<String>, Spanned<String>)>>,
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
    /// `None` also where it is written and wrong, which is said already.
    pub pattern: Option<Spanned<String>>,
    pub has_pattern: bool,
    pub when: Option<When>,
    pub allow: Option<Vec<Spanned<String>>>,
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
    pub has_to: bool,
    pub to: Option<Spanned<String>>,
    pub status: Spanned<u64>,
}

/// `deprecated = { since, sunset, link }`.
pub(super) struct Deprecated {
    pub span: Span,
    pub has_since: bool,
    pub since: Option<Spanned<String>>,
    pub sunset: Option<Spanned<String>>,
    pub link: Option<Spanned<String>>,
}

/// Reads the file; everything wrong with its form goes to `problems`.
pub(super) fn read(table: &Table, problems: &mut Diagnostics) -> File {
    let mut root = Section::new("", table);
    let (server, tls) =
        read_server(root.table(root::SERVER.name, problems).map(|(table, _)| table), problems);
    let has_upstream = root.has(root::UPSTREAM.name);
    let upstream = root.table(root::UPSTREAM.name, problems).map(|(table, span)| {
        read_upstream("upstream", Section::new("upstream", table), Some(span), problems)
    });
    let upstreams = root.table(root::UPSTREAMS.name, problems).map_or_else(Vec::new, |(table, _)| {
        Section::new("upstreams", table)
            .entries()
            .filter_map(|(name, node, _)| read_named(name, node, problems))
            .collect()
    });
    let routes = read_routes(root.node(root::ROUTES.name), problems);
    let compression = content::read_compression(
        root.table(root::COMPRESSION.name, problems).map(|(table, _)| table),
        problems,
    );
    let etag = content::read_etag(root.table(root::ETAG.name, problems).map(|(table, _)| table), problems);
    let identity =
        cache::read_identity(root.table(root::IDENTITY.name, problems).map(|(table, _)| table), problems);
    let cache = cache::read_cache(root.table(root::CACHE.name, problems).map(|(table, _)| table), problems);
    let invalidate = cache::read_invalidate(root.node(root::INVALIDATE.name), problems);
    let warm = cache::read_warm(root.node(root::WARM.name), problems);
    let rate_limit = limits::read_rate_limit(
        root.table(root::RATE_LIMIT.name, problems).map(|(table, _)| table),
        problems,
    );
    let redis =
        root.table(root::REDIS.name, problems).map(|(table, span)| redis::read_redis(table, span, problems));
    let health =
        observe::read_health(root.table(root::HEALTH.name, problems).map(|(table, _)| table), problems);
    let maintenance = observe::read_maintenance(
        root.table(root::MAINTENANCE.name, problems).map(|(table, _)| table),
        problems,
    );
    let log = observe::read_log(root.table(root::LOG.name, problems).map(|(table, _)| table), problems);
    let metrics =
        observe::read_metrics(root.table(root::METRICS.name, problems).map(|(table, _)| table), problems);
    let tracing =
        observe::read_tracing(root.table(root::TRACING.name, problems).map(|(table, _)| table), problems);
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
        warm,
        rate_limit,
        redis,
        health,
        maintenance,
        log,
        metrics,
        tracing,
    }
}

fn read_server(table: Option<&Table>, p: &mut Diagnostics) -> (Server, Option<Tls>) {
    let mut s = Section::new("server", table.unwrap_or(EMPTY));
    let tls = s.table(server::TLS.name, p).map(|(table, span)| read_tls(table, span, p));
    let server = Server {
        listen_span: s.node(server::LISTEN.name).map(|node| node.span.clone()),
        listen: s.read(&server::LISTEN, p),
        admin: s.read(&server::ADMIN, p),
        probes: s.read(&server::PROBES, p),
        admin_token: s.read(&server::ADMIN_TOKEN, p),
        admin_hosts: s.read(&server::ADMIN_HOSTS, p),
        workers: s.read(&server::WORKERS, p),
        max_connections: s.read(&server::MAX_CONNECTIONS, p),
        header_timeout: s.read(&server::HEADER_TIMEOUT, p),
        body_timeout: s.read(&server::BODY_TIMEOUT, p),
        send_timeout: s.read(&server::SEND_TIMEOUT, p),
        idle_timeout: s.read(&server::IDLE_TIMEOUT, p),
        stream_idle_timeout: s.read(&server::STREAM_IDLE_TIMEOUT, p),
        max_header_size: s.read(&server::MAX_HEADER_SIZE, p),
        max_headers: s.read(&server::MAX_HEADERS, p),
        max_body_size: s.read(&server::MAX_BODY_SIZE, p),
        buffer_request: s.read(&server::BUFFER_REQUEST, p),
        buffer_response: s.read(&server::BUFFER_RESPONSE, p),
        buffer_memory: s.read(&server::BUFFER_MEMORY, p),
        min_body_rate: s.read(&server::MIN_BODY_RATE, p),
        h2_max_streams: s.read(&server::H2_MAX_STREAMS, p),
        trusted_proxies: s.read(&server::TRUSTED_PROXIES, p),
        underscores: s.read(&server::UNDERSCORES, p),
        proxy_protocol: s.read(&server::PROXY_PROTOCOL, p),
        redirect_https: s.read(&server::REDIRECT_HTTPS, p),
        drain_delay: s.read(&server::DRAIN_DELAY, p),
        drain_timeout: s.read(&server::DRAIN_TIMEOUT, p),
        watch: s.read(&server::WATCH, p),
    };
    s.finish(p);
    (server, tls)
}

fn read_tls(table: &Table, span: Span, p: &mut Diagnostics) -> Tls {
    let mut s = Section::new("server.tls", table);
    let mut certificates = Some(Vec::new());
    if let Some(node) = s.node(server_tls::CERTIFICATES.name) {
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
            Some(tables) => {
                for table in tables {
                    let mut s = Section::new("server.tls.certificates", table);
                    let pair = (s.read(&certificate::CERT, p), s.read(&certificate::KEY, p));
                    s.finish(p);
                    if pair.0.value.is_empty() || pair.1.value.is_empty() {
                        p.at(&node.span, "a certificate needs both cert and key").help("add the missing one");
                        certificates = None;
                    }
                    certificates.iter_mut().for_each(|all| all.push(pair.clone()));
                }
            }
            None => {
                certificates = None;
                let expected = "an array of { cert = \"...\", key = \"...\" }";
                s.mismatch(server_tls::CERTIFICATES.name, node, expected, p);
            }
        }
    }
    let tls = Tls {
        span,
        listen: s.read(&server_tls::LISTEN, p),
        certificates,
        client_ca: s.read(&server_tls::CLIENT_CA, p),
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
    let tls = s.table(upstream::TLS.name, p).map_or(EMPTY, |(table, _)| table);
    let health = s.table(upstream::HEALTH.name, p).map_or(EMPTY, |(table, _)| table);
    let mut t = Section::new(format!("{}.tls", s.name), tls);
    let mut h = Section::new(format!("{}.health", s.name), health);
    let upstream = Upstream {
        name: name.to_owned(),
        span,
        has_url: s.has(upstream::URL.name),
        url: s.read(&upstream::URL, p),
        replicas: s.read(&upstream::REPLICAS, p),
        writes_to_any: s.read(&upstream::WRITES_TO, p),
        connect_timeout: s.read(&upstream::CONNECT_TIMEOUT, p),
        response_timeout: s.read(&upstream::RESPONSE_TIMEOUT, p),
        body_timeout: s.read(&upstream::BODY_TIMEOUT, p),
        max_connections: s.read(&upstream::MAX_CONNECTIONS, p),
        max_streams: s.read(&upstream::MAX_STREAMS, p),
        max_waiting: s.read(&upstream::MAX_WAITING, p),
        queue_timeout: s.read(&upstream::QUEUE_TIMEOUT, p),
        keep_alive: s.read(&upstream::KEEP_ALIVE, p),
        retries: s.read(&upstream::RETRIES, p),
        preserve_host: s.read(&upstream::PRESERVE_HOST, p),
        adaptive_concurrency: s.read(&upstream::ADAPTIVE_CONCURRENCY, p),
        ca: t.read(&upstream_tls::CA, p),
        cert: t.read(&upstream_tls::CERT, p),
        key: t.read(&upstream_tls::KEY, p),
        server_name: t.read(&upstream_tls::SERVER_NAME, p),
        probe_path: h.read(&upstream_health::PATH, p),
        probe_interval: h.read(&upstream_health::INTERVAL, p),
        probe_timeout: h.read(&upstream_health::TIMEOUT, p),
        unhealthy_after: h.read(&upstream_health::UNHEALTHY_AFTER, p),
        healthy_after: h.read(&upstream_health::HEALTHY_AFTER, p),
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
    let redirect = s.table(route::REDIRECT.name, p).map(|(table, span)| {
        let mut s = Section::new("routes.redirect", table);
        let has_to = s.has(redirect::TO.name);
        let redirect =
            Redirect { span, has_to, to: s.read(&redirect::TO, p), status: s.read(&redirect::STATUS, p) };
        s.finish(p);
        redirect
    });
    let deprecated = s.table(route::DEPRECATED.name, p).map(|(table, span)| {
        let mut s = Section::new("routes.deprecated", table);
        let deprecated = Deprecated {
            span,
            has_since: s.has(deprecated::SINCE.name),
            since: s.read(&deprecated::SINCE, p),
            sunset: s.read(&deprecated::SUNSET, p),
            link: s.read(&deprecated::LINK, p),
        };
        s.finish(p);
        deprecated
    });
    let when = s.table(route::WHEN.name, p).map(|(table, span)| when::read_when(table, span, p));
    let cache = s.table(route::CACHE.name, p).map(|(table, span)| cache::read_route_cache(table, span, p));
    let limits = limits::read_route_limits(&mut s, p);
    let route = Route {
        span,
        when,
        allow: s.read(&route::ALLOW, p),
        cache,
        limits,
        cost: s.read(&route::COST, p),
        concurrency: s.read(&route::CONCURRENCY, p),
        has_pattern: s.has(route::MATCH.name),
        pattern: s.read(&route::MATCH, p),
        upstream: s.read(&route::UPSTREAM, p),
        rewrite: s.read(&route::REWRITE, p),
        deny: s.read(&route::DENY, p),
        redirect,
        deprecated,
        timeout: s.read(&route::TIMEOUT, p),
        stream: s.read(&route::STREAM, p),
        max_body_size: s.read(&route::MAX_BODY_SIZE, p),
        compress: s.read(&route::COMPRESS, p),
        etag: s.read(&route::ETAG, p),
        browser_ttl: s.read(&route::BROWSER_TTL, p),
        set_request: read_pairs(&mut s, route::SET_REQUEST.name, p),
        set_response: read_pairs(&mut s, route::SET_RESPONSE.name, p),
        remove_request: s.read(&route::REMOVE_REQUEST, p),
        remove_response: s.read(&route::REMOVE_RESPONSE, p),
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
