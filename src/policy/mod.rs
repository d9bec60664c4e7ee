//! What the configuration decided, compiled: immutable, complete, impossible to hold a wrong value.
//!
//! A [`Policy`] is made by `config::compile` alone and swapped whole by `reload`. Nothing here has an
//! opinion about files, and nothing here changes while requests run.

pub(crate) mod cache;
mod compression;
pub(crate) mod descriptors;
mod etag;
mod health;
mod identity;
pub(crate) mod limits;
mod log;
pub(crate) mod loose;
mod metrics;
pub(crate) mod path;
pub(crate) mod redirect;
mod route;
pub(crate) mod secrets;
mod server;
pub(crate) mod source_file;
pub(crate) mod table;
pub(crate) mod template;
mod tracing;
pub(crate) mod underscores;
mod upstream;

use std::sync::Arc;

use ipnet::IpNet;

use crate::cache::settings::CacheSettings;
use crate::identity::principal::Identity;
use cache::InvalidateRule;
use limits::LimitPolicy;

pub(crate) use compression::CompressionPolicy;
pub(crate) use etag::EtagPolicy;
pub(crate) use health::{Awaited, Check, HealthPolicy, Requirement, Webhook};
pub(crate) use identity::{Checks, KeySource};
pub(crate) use log::{AccessLog, LogFormat, LogPolicy};
pub(crate) use metrics::MetricsPolicy;
pub(crate) use route::{Action, FieldEdits, RoutePolicy, Routes};
pub(crate) use server::{ServerPolicy, TlsPolicy};
pub(crate) use source_file::SourceFile;
pub(crate) use tracing::{OtlpReceiver, TracingPolicy};
pub(crate) use upstream::{EndpointPolicy, Place, ProbePolicy, Scheme, UpstreamPolicy};

#[derive(Debug)]
pub(crate) struct Policy {
    /// `[server]`.
    pub server: ServerPolicy,
    /// `[upstream]` first, then `[upstreams.*]` in their order.
    pub upstreams: Vec<UpstreamPolicy>,
    /// `[[routes]]`.
    pub routes: Routes,
    /// `[compression]`.
    pub compression: CompressionPolicy,
    /// `[etag]`.
    pub etag: EtagPolicy,
    /// `[identity]`.
    pub identity: Identity,
    /// Whether `identity.hash_key` is written: else each process makes keyed hashes of its own.
    pub hashes_are_shared: bool,
    /// `identity.jwt.jwks_url`.
    pub keys: Option<KeySource>,
    /// `[cache]`.
    pub cache: CacheSettings,
    /// Whether there is a copy for each user under some route.
    pub keeps_users: bool,
    /// Clients whose `PURGE` Pillion answers.
    pub purge_from: Vec<IpNet>,
    /// `[[invalidate]]`.
    pub invalidate: Vec<Arc<InvalidateRule>>,
    /// `[rate_limit]`.
    pub limits: LimitPolicy,
    /// `[health]`.
    pub health: HealthPolicy,
    /// `[log]`.
    pub log: LogPolicy,
    /// `[metrics]`.
    pub metrics: MetricsPolicy,
    /// `[tracing]`.
    pub tracing: TracingPolicy,
    /// Every file that was read, the configuration itself first: what `watch` watches.
    pub sources: Vec<SourceFile>,
    /// Things that work but were probably not meant.
    pub warnings: Vec<String>,
}

impl Policy {
    /// Whether requests are told of one by one: to a receiver of traces, or by lines of the log.
    pub(crate) fn tells_of_requests(&self) -> bool {
        self.tracing.receiver.is_some() || self.log.access != AccessLog::Off
    }
}
