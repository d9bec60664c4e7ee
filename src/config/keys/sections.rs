//! The sections of the file.

use super::caching::{cache, invalidate, warm};
use super::content::{compression, etag};
use super::credentials::identity;
use super::declare::table;
use super::fleet::redis;
use super::kind::{Named, Sub, Switch, Tables};
use super::limits::rate_limit;
use super::listeners::server;
use super::observe::{health, log, maintenance, metrics, tracing};
use super::routes::route;
use super::upstreams::upstream;

table! {
    /// The whole file.
    root, in sections, requires [];
    SERVER "server": Sub = Sub(&server::TABLE), Reload,
        "Listeners, client connections, requests and shutdown.";
    UPSTREAM "upstream": Switch = Switch(&upstream::TABLE), Reload,
        "The upstream of every route that names no other.";
    UPSTREAMS "upstreams": Named = Named(&upstream::TABLE, &["url"]), Reload,
        "Further upstreams, which routes name.";
    ROUTES "routes": Tables = Tables(&route::TABLE), Reload,
        "Routes; the first that matches a request holds.";
    COMPRESSION "compression": Sub = Sub(&compression::TABLE), Reload,
        "Content coding of responses.";
    ETAG "etag": Sub = Sub(&etag::TABLE), Reload,
        "Entity tags of responses that have no validator.";
    IDENTITY "identity": Sub = Sub(&identity::TABLE), Reload,
        "The credentials that tell users apart.";
    CACHE "cache": Sub = Sub(&cache::TABLE), Reload,
        "The response cache.";
    INVALIDATE "invalidate": Tables = Tables(&invalidate::TABLE), Reload,
        "Rules by which writes invalidate stored responses.";
    WARM "warm": Tables = Tables(&warm::TABLE), Reload,
        "Responses that are fetched before a client asks for them.";
    RATE_LIMIT "rate_limit": Sub = Sub(&rate_limit::TABLE), Reload,
        "Request limits for each client key, by its tier.";
    REDIS "redis": Switch = Switch(&redis::TABLE), Restart,
        "The Redis by which several processes behave as one.";
    HEALTH "health": Sub = Sub(&health::TABLE), Reload,
        "Readiness and health checks.";
    MAINTENANCE "maintenance": Sub = Sub(&maintenance::TABLE), Reload,
        "Responses while the upstream is left alone.";
    LOG "log": Sub = Sub(&log::TABLE), Reload,
        "Events on standard error and the access log on standard output.";
    METRICS "metrics": Sub = Sub(&metrics::TABLE), Restart,
        "Prometheus metrics.";
    TRACING "tracing": Sub = Sub(&tracing::TABLE), Reload,
        "Traces over OTLP.";
}
