//! Warnings about single keys: what works and was probably not meant so.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, UNIX_EPOCH};

use http::Method;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;

use super::Compiler;
use crate::cache::settings::Scope;
use crate::config::file::{File, Route, Upstream};
use crate::config::table_reader::Spanned;
use crate::config::{address, tls, units};
use crate::policy::pattern::Methods;
use crate::policy::{AccessLog, Place, UpstreamPolicy};

/// A certificate that is valid for less is warned of.
const RENEWAL: Duration = Duration::from_secs(14 * DAY);
const DAY: u64 = 86_400;

/// Health checks at shorter intervals load the upstream more than they tell.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

impl Compiler<'_> {
    /// A network of all addresses trusts everybody.
    pub(super) fn warn_of_trust(&mut self, list: &[Spanned<String>]) {
        for at in list {
            let everybody = at.value.parse::<IpNet>().is_ok_and(|net| net.prefix_len() == 0);
            if everybody {
                let message = format!(
                    "server.trusted_proxies holds {:?}: every client may claim any address in X-Forwarded-For",
                    at.value
                );
                self.warn(at.span.as_ref(), message, "name the networks of your proxies, or \"private\"");
            }
        }
    }

    /// A certificate that has expired or will soon.
    pub(super) fn warn_of_expiry(&mut self, at: &Spanned<String>, certificate: &CertificateDer<'_>) {
        let now = self.environment.now;
        let Some(expiry) = tls::expiry(certificate).and_then(|end| end.duration_since(UNIX_EPOCH).ok())
        else {
            return;
        };
        if now.is_zero() || expiry > now + RENEWAL {
            return;
        }
        let days = |span: Duration| match span.as_secs() / DAY {
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        };
        let when = match expiry.checked_sub(now) {
            Some(left) => format!("expires in {}", days(left)),
            None => format!("expired {} ago", days(now - expiry)),
        };
        let message = format!("the certificate {:?} {when}", at.value);
        self.warn(at.span.as_ref(), message, "renew it: clients refuse it once it has expired");
    }

    /// Health checks that are too frequent, or longer than the time between them.
    pub(super) fn warn_of_probes(&mut self, section: &str, raw: &Upstream) {
        let (interval, timeout) = (&raw.probe_interval, &raw.probe_timeout);
        let shown = units::duration_text(interval.value);
        if interval.value < MIN_INTERVAL && !interval.value.is_zero() {
            let message =
                format!("{section}.interval is {shown}: each address gets more than ten checks a second");
            self.warn(interval.span.as_ref(), message, "write at least \"100ms\"");
        }
        if timeout.value > interval.value {
            let message = format!(
                "{section}.timeout is {}, more than the interval of {shown}: a check that hangs delays the next",
                units::duration_text(timeout.value)
            );
            let span = timeout.span.as_ref().or(interval.span.as_ref());
            self.warn(span, message, "write a timeout below the interval");
        }
    }

    /// `cache` on a route none of whose methods is ever stored.
    pub(super) fn warn_of_method(&mut self, raw: &Route, methods: &Methods) {
        let (Some(cache), Methods::Only(methods)) = (&raw.cache, methods) else { return };
        let stored = |method: &Method| {
            matches!(*method, Method::GET | Method::HEAD)
                || method.as_str() == "QUERY"
                || (*method == Method::POST && cache.key_body.value)
        };
        if cache.scope == Scope::Off || methods.iter().any(stored) {
            return;
        }
        let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let message = format!("cache has no effect: responses to {} are never stored", names.join(", "));
        let help = if methods.contains(&Method::POST) {
            "match GET, or write key_body = true for a POST that only reads"
        } else {
            "match GET, or remove cache"
        };
        self.warn(Some(&cache.span), message, help);
    }

    /// The admin listener on the port of clients: whoever mixes them up opens the wrong one.
    pub(super) fn warn_of_shared_port(&mut self, file: &File) {
        let tls = file.tls.iter().flat_map(|tls| &tls.listen);
        let data: Vec<SocketAddr> = file
            .server
            .listen
            .iter()
            .chain(tls)
            .filter_map(|at| address::listeners(&at.value))
            .flatten()
            .collect();
        for (key, at) in [("server.admin", &file.server.admin), ("server.probes", &file.server.probes)] {
            let own = address::listeners(&at.value).unwrap_or_default();
            let shared = own.iter().find_map(|own| {
                let same =
                    data.iter().find(|data| data.port() == own.port() && own.port() != 0 && *data != own);
                same.map(|data| (*own, *data))
            });
            let Some((own, data)) = shared else { continue };
            if overlaps(own.ip(), data.ip()) {
                let message = format!("{key} is {own}, which the listener {data} takes too");
                self.fail(at.span.as_ref(), message, "give it a port of its own");
            } else {
                let message = format!("{key} and a listener for clients are both on port {}", own.port());
                self.warn(at.span.as_ref(), message, "give it a port of its own");
            }
        }
    }

    /// Keys that something else takes the effect from.
    pub(super) fn warn_of_no_effect(&mut self, file: &File) {
        let access = file.log.access;
        let no_tier = file.rate_limit.tiers.is_empty() && file.rate_limit.enabled.is_none();
        let no_admin = file.server.admin.value.is_empty();
        let sections: [(&str, bool, &[&str], &str); 8] = [
            ("compression", !file.compression.enabled.value, &[], "compression.enabled is false"),
            ("etag", !file.etag.generate.value, &[], "etag.generate is false"),
            ("cache", !file.cache.enabled.value, &[], "cache.enabled is false"),
            ("rate_limit", no_tier, &["keys"], "no tier is written"),
            ("server.admin_token", no_admin, &[], "server.admin is off"),
            ("server.admin_hosts", no_admin, &[], "server.admin is off"),
            (
                "tracing.sample",
                file.tracing.otlp_endpoint.value.is_empty(),
                &[],
                "tracing.otlp_endpoint is empty",
            ),
            ("log.sample", access != AccessLog::All, &[], "log.access is not \"all\""),
        ];
        for (path, is_off, but, why) in sections {
            if is_off {
                self.warn_below(path, but, why);
            }
        }
        for upstream in file.upstream.iter().chain(&file.upstreams) {
            if upstream.writes_to_any && upstream.replicas.is_empty() {
                let section = match upstream.name.as_str() {
                    "upstream" => "upstream".to_owned(),
                    name => format!("upstreams.{name}"),
                };
                self.warn_below(&format!("{section}.writes_to"), &[], "there are no replicas");
            }
        }
    }

    /// Warns of a key, or of each key of a table but for those that turn it off.
    fn warn_below(&mut self, path: &str, but: &[&str], why: &str) {
        let Some((key, node)) = self.table.find(path) else { return };
        let keys = match &node.value {
            crate::config::value::Value::Table(table) => {
                let others = table.entries.iter().map(|(key, _)| key);
                let others = others.filter(|key| !["enabled", "generate"].contains(&&*key.name));
                let others = others.filter(|key| !but.contains(&&*key.name));
                others.map(|key| (format!("{path}.{}", key.name), key.span.clone())).collect()
            }
            _ => vec![(path.to_owned(), key.span.clone())],
        };
        for (name, span) in keys {
            self.warn(Some(&span), format!("{name} has no effect: {why}"), "remove it");
        }
    }

    /// Keys of a route that no request of it reaches.
    pub(super) fn warn_of_route(&mut self, raw: &Route) {
        let action = match (&raw.deny, &raw.redirect) {
            (Some(_), _) => "deny",
            (None, Some(_)) => "redirect",
            (None, None) => return,
        };
        let set = |pairs: &[(Spanned<String>, Spanned<String>)]| {
            pairs.first().and_then(|(name, _)| name.span.clone())
        };
        let first = |list: &[Spanned<String>]| list.first().and_then(|at| at.span.clone());
        let written = [
            ("upstream", raw.upstream.as_ref().and_then(|at| at.span.clone())),
            ("timeout", raw.timeout.as_ref().and_then(|at| at.span.clone())),
            ("set_request", set(&raw.set_request)),
            ("remove_request", first(&raw.remove_request)),
        ];
        for (key, span) in written.iter().filter_map(|(key, span)| Some((key, span.as_ref()?))) {
            let message = format!("{key} has no effect: {action} sends nothing to an upstream");
            self.warn(Some(span), message, "remove it");
        }
    }

    /// In a container of its own, the loopback is the container's, not the host's nor another container's.
    pub(super) fn hint_at_loopback(&mut self, file: &File, upstreams: &[UpstreamPolicy]) {
        if !self.environment.own_container {
            return;
        }
        let raw = file.upstream.iter().chain(&file.upstreams);
        for (raw, upstream) in raw.zip(upstreams) {
            let local = upstream.endpoints.iter().find(|endpoint| match &endpoint.place {
                Place::Host(host, _) => {
                    host.eq_ignore_ascii_case("localhost")
                        || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
                }
                Place::Unix(_) => false,
            });
            let Some(local) = local else { continue };
            let message = format!("{:?} is the loopback of this container, not of the host", local.url);
            let help = "write the name of the app's service (http://app:3000), or let both share a network \
                        (network_mode: \"service:app\")";
            self.problems.hint(raw.url.as_ref().and_then(|at| at.span.as_ref()), message, help);
        }
    }
}

/// Whether the system refuses to listen on both: one is all interfaces, which the other is one of.
fn overlaps(one: IpAddr, other: IpAddr) -> bool {
    let takes = |all: IpAddr, one: IpAddr| match all {
        // [::] takes IPv4 too.
        IpAddr::V6(all) => all.is_unspecified(),
        IpAddr::V4(all) => all.is_unspecified() && one.is_ipv4(),
    };
    takes(one, other) || takes(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_interfaces_overlap_with_each_of_their_family() {
        for (one, other, wanted) in [
            ("::", "127.0.0.1", true),
            ("127.0.0.1", "::", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("0.0.0.0", "::", true),
            ("0.0.0.0", "::1", false),
            ("127.0.0.1", "127.0.0.2", false),
            ("127.0.0.1", "::1", false),
        ] {
            assert_eq!(overlaps(one.parse().unwrap(), other.parse().unwrap()), wanted, "{one} {other}");
        }
    }
}
