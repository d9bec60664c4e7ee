//! The compiled configuration: immutable, complete, and valid by construction. Only `config::compile` creates a
//! [`Policy`], and only `reload` replaces it as a whole. This room knows nothing of configuration files.

mod affixed;
pub(crate) mod cache;
mod compression;
pub(crate) mod descriptors;
mod etag;
pub(crate) mod fleet;
mod health;
mod identity;
pub(crate) mod limits;
mod log;
pub(crate) mod login_redirect;
pub(crate) mod loose;
pub(crate) mod maintenance;
mod metrics;
pub(crate) mod notice;
pub(crate) mod path;
pub(crate) mod pattern;
mod route;
pub(crate) mod secrets;
pub(crate) mod segment;
mod server;
pub(crate) mod source_file;
pub(crate) mod table;
pub(crate) mod template;
mod tracing;
pub(crate) mod underscores;
mod upstream;
mod warm;
pub(crate) mod when;

use std::sync::Arc;

use ipnet::IpNet;

use crate::cache::settings::CacheSettings;
use crate::identity::principal::Identity;
use cache::InvalidateRule;
pub(crate) use fleet::{Carrier, Copies, CopiesPolicy, FleetPolicy, WRITTEN};
use limits::LimitPolicy;
use maintenance::MaintenancePolicy;
use notice::Notice;
pub(crate) use warm::Warmed;

pub(crate) use compression::CompressionPolicy;
pub(crate) use etag::EtagPolicy;
pub(crate) use health::{Awaited, Check, HealthPolicy, Requirement, Webhook};
pub(crate) use identity::{Checks, KeySource};
pub(crate) use log::{AccessLog, LogFormat, LogPolicy};
pub(crate) use metrics::MetricsPolicy;
pub(crate) use route::{Action, Conditions, FieldEdits, RoutePolicy, Routes};
pub(crate) use server::{ServerPolicy, TlsPolicy};
pub(crate) use source_file::SourceFile;
pub(crate) use tracing::{OtlpReceiver, TracingPolicy};
pub(crate) use upstream::{EndpointPolicy, Place, ProbePolicy, Scheme, UpstreamPolicy};

#[derive(Debug)]
pub(crate) struct Policy {
    pub server: ServerPolicy,
    /// The table `[upstream]` first, then `[upstreams.*]` in their order.
    pub upstreams: Vec<UpstreamPolicy>,
    pub routes: Routes,
    pub compression: CompressionPolicy,
    pub etag: EtagPolicy,
    pub identity: Identity,
    /// Whether `identity.hash_key` is set. Without it, keyed hashes differ from process to process.
    pub hashes_are_shared: bool,
    /// The source of keys at `identity.jwt.jwks_url`.
    pub keys: Option<KeySource>,
    pub cache: CacheSettings,
    /// Whether some route stores a separate response for each user.
    pub keeps_users: bool,
    /// Clients whose `PURGE` requests Pillion accepts.
    pub purge_from: Vec<IpNet>,
    /// The rules in `[[invalidate]]`, in configured order.
    pub invalidate: Vec<Arc<InvalidateRule>>,
    /// The responses in `[[warm]]`, each with its host.
    pub warm: Vec<Warmed>,
    pub limits: LimitPolicy,
    /// The processes that share a Redis with this one.
    pub fleet: Option<FleetPolicy>,
    pub health: HealthPolicy,
    pub maintenance: MaintenancePolicy,
    pub log: LogPolicy,
    pub metrics: MetricsPolicy,
    pub tracing: TracingPolicy,
    /// Every file that was read, the configuration file first, for `server.watch`.
    pub sources: Vec<SourceFile>,
    /// Warnings and hints about settings that work, in the order of the file.
    pub notices: Vec<Notice>,
}

impl Policy {
    /// Returns whether single requests are reported, to a trace receiver or in the access log.
    pub(crate) fn tells_of_requests(&self) -> bool {
        self.tracing.receiver.is_some() || self.log.access != AccessLog::Off
    }
}
