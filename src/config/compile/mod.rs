//! From the raw file to a policy: defaults are in, matchers compiled, certificates read, cross-checks
//! made. Whatever is wrong is noted and the rest still checked.

mod allow;
mod api_keys;
mod cache;
mod identity;
mod limits;
mod maintenance;
mod methods;
mod own_listeners;
mod redis;
mod represent;
mod route;
mod route_limits;
mod server;
mod simple_keys;
mod tracing;
mod upstream;
mod warm;
mod warnings;
mod when;

use std::path::{Path, PathBuf};

use crate::config::diagnostic::{Diagnostics, Span};
use crate::config::file::{self, File};
use crate::config::keys::{Bounds, metrics};
use crate::config::secrecy::Level;
use crate::config::source::{Environment, Source};
use crate::config::table_reader::{Spanned, nearest};
use crate::config::value::{self, Table};
use crate::log;
use crate::policy::{
    Check, HealthPolicy, LogFormat, LogPolicy, MetricsPolicy, Policy, Requirement, SourceFile, Webhook,
};
use crate::rendering::secret::Secret;
use crate::runtime::file_access;

/// The state that the steps of one compilation share.
struct Compiler<'a> {
    problems: Diagnostics,
    /// The file as it is written.
    table: &'a Table,
    /// Relative file names are relative to the configuration file.
    folder: PathBuf,
    sources: Vec<SourceFile>,
    environment: &'a Environment,
}

/// Compiles `text`; the only way to a policy.
pub(super) fn policy(
    name: &Path,
    text: &str,
    read: Option<SourceFile>,
    source: &Source,
    environment: &Environment,
) -> Result<Policy, Diagnostics> {
    let mut problems = Diagnostics::new(name, text);
    let Some(table) = value::parse(text, &environment.variables, Level::Root, &mut problems) else {
        return Err(problems.sorted());
    };
    let mut file = file::read(&table, &mut problems);
    override_by(&mut file, source, &mut problems);
    let mut compiler = Compiler {
        problems,
        table: &table,
        folder: name.parent().map(Path::to_path_buf).unwrap_or_default(),
        sources: read.into_iter().collect(),
        environment,
    };
    let server = compiler.server(&file);
    let upstreams = compiler.upstreams(&file);
    if let (Some(server), Some(upstreams)) = (&server, &upstreams) {
        compiler.own_listeners(&file, server, upstreams);
    }
    if let Some(upstreams) = &upstreams {
        compiler.hint_at_loopback(&file, upstreams);
    }
    compiler.warn_of_no_effect(&file);
    let compression = compiler.compression(&file);
    let etag = compiler.etag(&file);
    let (identity, keys) = compiler.identity(&file);
    let (limits, names) = compiler.limits(&file, &identity);
    let routes = compiler.routes(&file, &names);
    if let Some(routes) = &routes {
        compiler.check_costs(&file, &limits, routes);
    }
    let cache = compiler.cache(&file);
    let purge_from = compiler.networks("cache.purge_from", &file.cache.purge_from);
    let invalidate = compiler.invalidate(&file, routes.as_ref());
    let warm = compiler.warm(&file, routes.as_ref());
    let fleet = compiler.redis(&file);
    let health = compiler.health(&file);
    let maintenance = compiler.maintenance(&file);
    let log = LogPolicy { verbose: source.verbose, ..compiler.log(&file) };
    let metrics = compiler.metrics(&file);
    let tracing = compiler.tracing(&file);
    if compiler.problems.is_empty()
        && let (Some(server), Some(upstreams), Some(routes)) = (server, upstreams, routes)
    {
        return Ok(Policy {
            purge_from,
            keeps_users: cache.enabled && routes.keep_users(),
            server,
            upstreams,
            routes,
            compression,
            etag,
            identity,
            hashes_are_shared: !file.identity.hash_key.value.is_empty(),
            keys,
            cache,
            invalidate,
            warm,
            limits,
            fleet,
            health,
            maintenance,
            log,
            metrics,
            tracing,
            sources: compiler.sources,
            notices: compiler.problems.take_notices(),
        });
    }
    Err(compiler.problems.sorted())
}

fn override_by(file: &mut File, source: &Source, problems: &mut Diagnostics) {
    if let Some(listen) = &source.listen {
        file.server.listen = vec![Spanned { value: listen.clone(), span: None }];
    }
    if let Some(admin) = &source.admin {
        file.server.admin = Spanned { value: admin.clone(), span: None };
    }
    if let Some(probes) = &source.probes {
        file.server.probes = Spanned { value: probes.clone(), span: None };
    }
    if let Some(url) = &source.upstream {
        let url = Spanned { value: url.clone(), span: None };
        match &mut file.upstream {
            Some(upstream) => upstream.url = Some(url),
            None => file.upstream = Some(file::upstream_at(url, problems)),
        }
    }
}

impl Compiler<'_> {
    fn fail(&mut self, span: Option<&Span>, message: impl Into<String>, help: impl Into<String>) {
        let problem = match span {
            Some(span) => self.problems.at(span, message),
            None => self.problems.nowhere(message),
        };
        problem.help(help);
    }

    /// The help for a file that cannot be read: how its permissions are mended, where they are the reason.
    fn unreadable(&self, path: &Path, error: &std::io::Error, otherwise: &str) -> String {
        file_access::remedy(path, error).unwrap_or_else(|| otherwise.to_owned())
    }

    fn warn(&mut self, span: Option<&Span>, message: impl Into<String>, help: impl Into<String>) {
        Diagnostics::warn(&mut self.problems, span, message, help);
    }

    /// The place of the key with this full name, where it is written.
    fn key_span(&self, path: &str) -> Option<Span> {
        self.table.find(path).map(|(key, _)| key.span.clone())
    }

    /// A number between two bounds, both allowed.
    fn within(&mut self, path: &str, at: &Spanned<u64>, (min, max): Bounds) -> u64 {
        if at.value < min || at.value > max {
            let message = format!("{path} is {}", at.value);
            self.fail(at.span.as_ref(), message, format!("expected {min} to {max}"));
        }
        at.value.clamp(min, max)
    }

    /// A file named in the configuration, noted as one that is about to be read.
    fn file(&mut self, written: &str) -> PathBuf {
        let path = self.folder.join(written);
        self.sources.push(SourceFile::read(&path));
        path
    }

    fn health(&mut self, file: &File) -> HealthPolicy {
        let health = &file.health;
        let degraded_at = self.share("health.degraded_at", &health.degraded_at);
        let ready_requires =
            health.ready_requires.iter().filter_map(|at| self.requirement(at, file)).collect();
        HealthPolicy {
            ready_requires,
            memory_limit: health.memory_limit.value.0.map(|size| size.0).or(self.environment.memory_limit),
            degraded_at,
            webhook: self.webhook(health),
        }
    }

    /// A requirement for readiness, listed in `health.ready_requires`.
    fn requirement(&mut self, at: &Spanned<String>, file: &File) -> Option<Requirement> {
        let names = || file.upstreams.iter().map(|upstream| upstream.name.as_str());
        let found = match at.value.strip_prefix("upstream:") {
            Some("primary") if names().any(|name| name == "primary") => {
                let help = "\"upstream:primary\" means the url of [upstream]: rename [upstreams.primary]";
                self.fail(at.span.as_ref(), "\"upstream:primary\" can be read in two ways", help);
                return None;
            }
            Some("primary") => Some(Requirement::Primary),
            Some(name) => {
                names().position(|known| known == name).map(|place| Requirement::Upstream(place + 1))
            }
            None if at.value == Check::Upstream.as_str() => Some(Requirement::Upstream(0)),
            None => {
                let mut checks = Check::ALL.into_iter();
                checks.find(|check| check.as_str() == at.value).map(Requirement::Check)
            }
        };
        if found == Some(Requirement::Check(Check::Redis)) && file.redis.is_none() {
            self.fail(
                at.span.as_ref(),
                "readiness requires redis, and there is no [redis]",
                "add [redis], or remove it",
            );
        }
        if found.is_none() {
            let mut known: Vec<String> = Check::ALL.iter().map(|check| check.as_str().to_owned()).collect();
            known.push("upstream:primary".to_owned());
            known.extend(names().map(|name| format!("upstream:{name}")));
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let help = match nearest(&at.value, &known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("expected some of {}", known.join(", ")),
            };
            self.fail(at.span.as_ref(), format!("there is no check {:?}", at.value), help);
        }
        found
    }

    fn webhook(&mut self, health: &file::Health) -> Option<Webhook> {
        let secret = &health.webhook_secret;
        if health.webhook.value.is_empty() {
            if !secret.value.is_empty() {
                let help = "webhook = \"https://...\"";
                self.fail(secret.span.as_ref(), "health.webhook_secret without health.webhook", help);
            }
            return None;
        }
        let (upstream, target) = self.fetched("health.webhook", &health.webhook)?;
        let secret = Some(secret.value.clone()).filter(|secret| !secret.is_empty()).map(Secret::new);
        if secret.is_none() {
            let message = "health.webhook_secret is empty: webhook requests are not signed";
            self.warn(health.webhook.span.as_ref(), message, "");
        }
        Some(Webhook { upstream, target, secret })
    }

    fn share(&mut self, path: &str, at: &Spanned<f64>) -> f64 {
        if !(0.0..=1.0).contains(&at.value) {
            let message = format!("{path} is {}", at.value);
            self.fail(at.span.as_ref(), message, "expected a share from 0.0 to 1.0");
        }
        at.value
    }

    fn log(&mut self, file: &File) -> LogPolicy {
        let log = &file.log;
        let auto = if self.environment.terminal { LogFormat::Pretty } else { LogFormat::Json };
        LogPolicy {
            format: log.format.unwrap_or(auto),
            level: log.level,
            access: log.access,
            sample: self.share("log.sample", &log.sample),
            slow: log.slow.value,
            mask: masked_names(file),
            color: self.environment.color,
            verbose: false,
        }
    }

    fn metrics(&mut self, file: &File) -> MetricsPolicy {
        const MAX_BUCKETS: usize = 64;
        let buckets: Vec<f64> = file.metrics.buckets.iter().map(|at| at.value).collect();
        let rising = buckets.windows(2).all(|pair| pair[0] < pair[1]);
        if buckets.is_empty() || !rising || buckets[0] <= 0.0 || buckets.len() > MAX_BUCKETS {
            let span = file.metrics.buckets.iter().find_map(|at| at.span.clone());
            let help = format!("expected 1 to {MAX_BUCKETS} seconds, each greater than the one before");
            self.fail(span.as_ref(), "metrics.buckets is not a list of upper bounds", help);
        }
        let max_routes =
            self.within("metrics.max_routes", &file.metrics.max_routes, metrics::MAX_ROUTES.bounds());
        MetricsPolicy { buckets, max_routes: usize::try_from(max_routes).unwrap_or(usize::MAX) }
    }
}

/// `log.mask`, and where keys are said. Where both `code` and `state` are listed, they are secrets together.
fn masked_names(file: &File) -> Vec<String> {
    let api_key = file.identity.api_key.value.split_once(':').map(|(_, name)| name);
    let listed = file.log.mask.iter().map(|name| name.value.as_str()).chain(api_key);
    let mut names: Vec<String> = listed.map(log::bare).collect();
    if log::TOGETHER.iter().all(|name| names.iter().any(|known| known == name)) {
        names.retain(|name| !log::TOGETHER.contains(&name.as_str()));
        names.push(log::BOTH.to_owned());
    }
    names
}
