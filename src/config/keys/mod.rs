//! Declares each key of the configuration once: name, type, default, bounds, whether a change needs a restart, and one
//! sentence. The reader takes its defaults from here, `compile` its bounds, `pillion schema` all of it.
//!
//! The order of a table is the order in which the schema and the list for people show it.

mod address;
mod caching;
mod content;
mod credentials;
mod declare;
mod fleet;
mod kind;
mod limits;
mod listeners;
mod observe;
mod routes;
mod sections;
mod upstreams;

pub(crate) use caching::{cache, invalidate, route_cache, warm};
pub(crate) use content::{compression, etag};
pub(crate) use credentials::{identity, jwt};
pub(crate) use declare::{Apply, Bounds, Declared, Form, Key, Table};
pub(crate) use fleet::redis;
pub(crate) use kind::Value;
pub(crate) use limits::{api_key, limit, rate_limit, tier};
pub(crate) use listeners::{certificate, server, server_tls};
pub(crate) use observe::{health, log, maintenance, metrics, tracing};
pub(crate) use routes::{deprecated, redirect, route, when};
pub(crate) use sections::root;
pub(crate) use upstreams::{upstream, upstream_health, upstream_tls};

pub(crate) use caching::IGNORED_COOKIES;
pub(crate) use credentials::PRINCIPAL;
