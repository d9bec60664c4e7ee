//! `[upstream]` and `[upstreams.*]`.

use std::path::PathBuf;
use std::sync::Arc;

use http::Uri;
use http::uri::Authority;

use super::Compiler;
use crate::config::address;
use crate::config::file::{File, Upstream};
use crate::config::keys::{Key, Value, upstream as keys, upstream_health};
use crate::config::table_reader::Spanned;
use crate::config::tls;
use crate::policy::{EndpointPolicy, Place, ProbePolicy, Scheme, UpstreamPolicy};

const FORMS: &str =
    "expected http://host:port, https://host, h2c://host:port, unix:/path/to.sock, or a port of this machine";

/// At least this many connections of all clients may wait at one address for their client connections; else as many as
/// `max_connections`.
const MIN_PINNED: usize = 64;

impl Compiler<'_> {
    /// Compiles all upstreams; `None` when something of them was wrong.
    pub(super) fn upstreams(&mut self, file: &File) -> Option<Vec<UpstreamPolicy>> {
        let before = self.problems.len();
        let Some(first) = &file.upstream else {
            if file.has_upstream {
                return None;
            }
            self.fail(
                None,
                "no upstream",
                "add [upstream] with url = \"http://127.0.0.1:3000\", or run with --upstream URL",
            );
            return None;
        };
        let compiled: Vec<UpstreamPolicy> =
            std::iter::once(first).chain(&file.upstreams).filter_map(|raw| self.upstream(raw)).collect();
        if let Some(other) = file.upstreams.iter().find(|upstream| upstream.name == "upstream") {
            self.fail(
                other.span.as_ref(),
                "[upstreams.upstream] has the same name as [upstream]",
                "rename it",
            );
        }
        (self.problems.len() == before).then_some(compiled)
    }

    pub(super) fn upstream(&mut self, raw: &Upstream) -> Option<UpstreamPolicy> {
        let section =
            if raw.name == "upstream" { raw.name.clone() } else { format!("upstreams.{}", raw.name) };
        if !raw.has_url && raw.url.is_none() {
            self.fail(raw.span.as_ref(), format!("[{section}] has no url"), FORMS);
        }
        let endpoints = self.endpoints(raw);
        let health_section = format!("{section}.health");
        for (section, key, at) in [
            (&section, &keys::CONNECT_TIMEOUT, &raw.connect_timeout),
            (&section, &keys::RESPONSE_TIMEOUT, &raw.response_timeout),
            (&section, &keys::BODY_TIMEOUT, &raw.body_timeout),
            (&section, &keys::QUEUE_TIMEOUT, &raw.queue_timeout),
            (&health_section, &upstream_health::INTERVAL, &raw.probe_interval),
            (&health_section, &upstream_health::TIMEOUT, &raw.probe_timeout),
        ] {
            self.duration(&format!("{section}.{}", key.name), at, key.bounds());
        }
        self.warn_of_probes(&health_section, raw);
        let mut number = |section: &str, key: &Key<Value<u64>>, at: &Spanned<u64>| {
            let value = self.within(&format!("{section}.{}", key.name), at, key.bounds());
            usize::try_from(value).unwrap_or(usize::MAX)
        };
        let max_connections = number(&section, &keys::MAX_CONNECTIONS, &raw.max_connections);
        let max_streams = number(&section, &keys::MAX_STREAMS, &raw.max_streams);
        let max_waiting = number(&section, &keys::MAX_WAITING, &raw.max_waiting);
        let retries = number(&section, &keys::RETRIES, &raw.retries) as u32;
        let unhealthy_after =
            number(&health_section, &upstream_health::UNHEALTHY_AFTER, &raw.unhealthy_after) as u32;
        let healthy_after =
            number(&health_section, &upstream_health::HEALTHY_AFTER, &raw.healthy_after) as u32;
        let path = Some(raw.probe_path.value.clone()).filter(|path| !path.is_empty());
        if path.as_ref().is_some_and(|path| !path.starts_with('/') || path.parse::<Uri>().is_err()) {
            let message = format!("{section}.health.path is {:?}", raw.probe_path.value);
            self.fail(raw.probe_path.span.as_ref(), message, "expected a path, like \"/healthz\"");
        }
        Some(UpstreamPolicy {
            name: raw.name.clone(),
            endpoints: endpoints?,
            writes_to_any: raw.writes_to_any,
            connect_timeout: raw.connect_timeout.value,
            response_timeout: raw.response_timeout.value,
            body_timeout: raw.body_timeout.value,
            max_connections,
            max_streams,
            max_idle: max_connections,
            max_pinned: max_connections.max(MIN_PINNED),
            max_waiting,
            queue_timeout: raw.queue_timeout.value,
            keep_alive: raw.keep_alive.value,
            retries,
            preserve_host: raw.preserve_host.value,
            adaptive_concurrency: raw.adaptive_concurrency.value,
            health: ProbePolicy {
                path,
                interval: raw.probe_interval.value,
                timeout: raw.probe_timeout.value,
                unhealthy_after,
                healthy_after,
            },
        })
    }

    fn endpoints(&mut self, raw: &Upstream) -> Option<Vec<EndpointPolicy>> {
        let written = || raw.url.iter().chain(&raw.replicas);
        let https = written().any(|at| at.value.starts_with("https://"));
        let tls = self.client_tls(raw, https);
        let mut endpoints: Vec<EndpointPolicy> = Vec::new();
        for at in written() {
            if tls.is_none() && at.value.starts_with("https://") {
                // Why TLS could not be set up is said already.
                continue;
            }
            match endpoint(&at.value, tls.as_ref()) {
                Ok(endpoint) if endpoints.iter().any(|known| known.place == endpoint.place) => {
                    let message = format!("{:?} is listed twice", at.value);
                    self.fail(at.span.as_ref(), message, "list each replica once");
                }
                Ok(endpoint) => endpoints.push(endpoint),
                Err(message) => {
                    self.fail(
                        at.span.as_ref(),
                        format!("{:?} is not a URL of an upstream: {message}", at.value),
                        FORMS,
                    );
                }
            }
        }
        (endpoints.len() == raw.replicas.len() + 1).then_some(endpoints)
    }

    fn client_tls(&mut self, raw: &Upstream, https: bool) -> Option<Scheme> {
        let written = [&raw.ca, &raw.cert, &raw.key, &raw.server_name];
        if !https {
            if let Some(at) = written.iter().find(|at| at.is_written() && !at.value.is_empty()) {
                self.fail(
                    at.span.as_ref(),
                    "TLS is configured for an upstream without an https:// url",
                    "write https://, or remove it",
                );
            }
            return None;
        }
        let mut file = |at: &Spanned<String>| (!at.value.is_empty()).then(|| self.file(&at.value));
        let (ca, cert, key) = (file(&raw.ca), file(&raw.cert), file(&raw.key));
        let client = match (&cert, &key) {
            (Some(cert), Some(key)) => Some((cert.as_path(), key.as_path())),
            (None, None) => None,
            _ => {
                let span = raw.cert.span.as_ref().or(raw.key.span.as_ref());
                self.fail(span, "a client certificate needs both cert and key", "add the missing one");
                None
            }
        };
        let server_name = Some(raw.server_name.value.clone()).filter(|name| !name.is_empty());
        if let Some(name) = &server_name
            && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
        {
            self.fail(
                raw.server_name.span.as_ref(),
                format!("{name:?} is not a server name"),
                "expected a DNS name or an IP address",
            );
        }
        match tls::client_config(ca.as_deref(), client) {
            Ok(config) => {
                let mut both = config.clone();
                both.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
                let mut http1 = config;
                http1.alpn_protocols = vec![b"http/1.1".to_vec()];
                Some(Scheme::Https { tls: Arc::new(both), tls_http1: Arc::new(http1), server_name })
            }
            Err(message) => {
                let span = raw.ca.span.as_ref().or(raw.cert.span.as_ref()).or(raw.span.as_ref());
                self.fail(span, message, "expected PEM files");
                None
            }
        }
    }
}

fn endpoint(written: &str, tls: Option<&Scheme>) -> Result<EndpointPolicy, String> {
    let url = &*address::upstream_url(written);
    if let Some(path) = url.strip_prefix("unix:") {
        if !path.starts_with('/') {
            return Err("the path of the socket is not absolute".to_owned());
        }
        return Ok(EndpointPolicy {
            url: url.to_owned(),
            place: Place::Unix(PathBuf::from(path)),
            scheme: Scheme::Http,
            authority: Authority::from_static("localhost"),
        });
    }
    let (scheme, port, rest) = match url.split_once("://") {
        Some(("http", rest)) => (Scheme::Http, 80, rest),
        Some(("h2c", rest)) => (Scheme::H2c, 80, rest),
        Some(("https", rest)) => (tls.cloned().ok_or("TLS could not be set up")?, 443, rest),
        Some((other, _)) => return Err(format!("{other}:// is not supported")),
        None => return Err("it has no scheme".to_owned()),
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if path.len() > 1 {
        return Err("the URL of an upstream has no path; use rewrite in a route".to_owned());
    }
    let authority: Authority = host.parse().map_err(|_| "the host is malformed".to_owned())?;
    if authority.host().is_empty() || host.contains('@') {
        return Err("the host is malformed".to_owned());
    }
    if authority.as_str().len() > authority.host().len() && authority.port_u16().is_none() {
        return Err("the port is not a number up to 65535".to_owned());
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(port);
    if port == 0 {
        return Err("port 0 cannot be connected to".to_owned());
    }
    Ok(EndpointPolicy { url: url.to_owned(), place: Place::Host(name, port), scheme, authority })
}
