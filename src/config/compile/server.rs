//! `[server]` and `[server.tls]`.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::Compiler;
use crate::config::address;
use crate::config::file::{File, Tls};
use crate::config::keys::{Bounds, server as keys};
use crate::config::table_reader::Spanned;
use crate::config::tls;
use crate::fields::host;
use crate::http1::head::HeadLimits;
use crate::http1::server::Settings;
use crate::policy::{ServerPolicy, TlsPolicy, descriptors};
use crate::rendering::secret::Secret;

/// `workers = "auto"` never takes more than this.
const MAX_AUTO_WORKERS: usize = 4;
/// The meaning of "private" in `trusted_proxies`: RFC 1918, RFC 4193, loopback, link-local and the
/// shared space of RFC 6598 that clusters use.
const PRIVATE: [&str; 9] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// `buffer_memory = "auto"`: this, or an eighth of the cgroup's memory.
const AUTO_MEMORY: u64 = 64 << 20;

struct Buffers {
    request: usize,
    response: usize,
    memory: usize,
}

impl Compiler<'_> {
    /// Compiles `[server]`; `None` when something of it was wrong.
    pub(super) fn server(&mut self, file: &File) -> Option<ServerPolicy> {
        let before = self.problems.len();
        let server = &file.server;
        let listen: Vec<SocketAddr> =
            server.listen.iter().flat_map(|at| self.address("server.listen", at)).collect();
        let tls = file.tls.as_ref().and_then(|tls| self.tls(tls));
        let tls_listens = file.tls.as_ref().is_some_and(|tls| !tls.listen.is_empty());
        if server.listen.is_empty() && !tls_listens {
            let help = "give server.listen or [server.tls] listen an address";
            self.fail(server.listen_span.as_ref(), "no address to listen on", help);
        }
        let admin = self.optional_address("server.admin", &server.admin);
        let probes = self.optional_address("server.probes", &server.probes);
        self.clashes(file);
        self.warn_of_shared_port(file);
        let token = Some(server.admin_token.value.clone()).filter(|token| !token.is_empty());
        if admin.iter().any(|admin| !admin.ip().is_loopback()) && token.is_none() {
            let span = server.admin.span.as_ref();
            let help = "set server.admin_token, or use server.probes, which only allows reads";
            self.fail(span, "server.admin can be reached from outside without a token", help);
        }
        let admin_hosts = self.admin_hosts(&server.admin_hosts);
        if server.redirect_https.value && file.tls.is_none() && server.trusted_proxies.is_empty() {
            let help = "add [server.tls], or list trusted_proxies that send X-Forwarded-Proto";
            self.fail(
                server.redirect_https.span.as_ref(),
                "redirect_https without an https listener: the redirect leads nowhere",
                help,
            );
        }
        if server.proxy_protocol.value && server.trusted_proxies.is_empty() {
            let help = "name the balancers that send the header in server.trusted_proxies";
            self.fail(server.proxy_protocol.span.as_ref(), "proxy_protocol without trusted_proxies", help);
        }
        self.warn_of_trust(&server.trusted_proxies);
        let trusted_proxies = self.networks("server.trusted_proxies", &server.trusted_proxies);
        let workers = self.workers(&server.workers);
        let header_size = self.within(
            "server.max_header_size in bytes",
            &size(&server.max_header_size),
            keys::MAX_HEADER_SIZE.bounds(),
        );
        let fields = self.within("server.max_headers", &server.max_headers, keys::MAX_HEADERS.bounds());
        let max_connections =
            self.within("server.max_connections", &server.max_connections, keys::MAX_CONNECTIONS.bounds());
        let streams =
            self.within("server.h2_max_streams", &server.h2_max_streams, keys::H2_MAX_STREAMS.bounds());
        for (key, at) in [
            (&keys::HEADER_TIMEOUT, &server.header_timeout),
            (&keys::BODY_TIMEOUT, &server.body_timeout),
            (&keys::SEND_TIMEOUT, &server.send_timeout),
            (&keys::IDLE_TIMEOUT, &server.idle_timeout),
            (&keys::STREAM_IDLE_TIMEOUT, &server.stream_idle_timeout),
        ] {
            self.duration(&format!("server.{}", key.name), at, key.bounds());
        }
        let buffers = self.buffers(server);
        let settings = Settings {
            header_timeout: server.header_timeout.value,
            body_timeout: server.body_timeout.value,
            send_timeout: server.send_timeout.value,
            idle_timeout: server.idle_timeout.value,
            stream_idle_timeout: server.stream_idle_timeout.value,
            buffer_response: buffers.response,
            limits: HeadLimits { size: to_usize(header_size), fields: to_usize(fields) },
        };
        (self.problems.len() == before).then_some(ServerPolicy {
            listen,
            tls,
            admin,
            probes,
            admin_token: token.map(Secret::new),
            admin_hosts,
            workers,
            max_connections: to_usize(max_connections),
            admin_connections: descriptors::MAX_ADMIN,
            settings,
            max_body_size: server.max_body_size.value.0.map_or(u64::MAX, |size| size.0),
            buffer_request: buffers.request,
            buffer_memory: buffers.memory,
            min_body_rate: server.min_body_rate.value.0,
            h2_max_streams: u32::try_from(streams).unwrap_or(u32::MAX),
            trusted_proxies,
            underscores: server.underscores,
            proxy_protocol: server.proxy_protocol.value,
            redirect_https: server.redirect_https.value,
            drain_delay: server.drain_delay.value,
            drain_timeout: server.drain_timeout.value,
            watch: server.watch.value,
        })
    }

    /// How much of bodies is held for slow clients.
    fn buffers(&mut self, server: &crate::config::file::Server) -> Buffers {
        let request = self.within(
            "server.buffer_request in bytes",
            &size(&server.buffer_request),
            keys::BUFFER_REQUEST.bounds(),
        );
        let response = self.within(
            "server.buffer_response in bytes",
            &size(&server.buffer_response),
            keys::BUFFER_RESPONSE.bounds(),
        );
        let eighth = self.environment.memory_limit.map_or(AUTO_MEMORY, |limit| limit / 8);
        let memory = server.buffer_memory.value.0.map_or(AUTO_MEMORY.min(eighth), |memory| memory.0);
        Buffers { request: to_usize(request), response: to_usize(response), memory: to_usize(memory) }
    }

    /// Names without a port; a trailing dot does not count.
    fn admin_hosts(&mut self, names: &[Spanned<String>]) -> Vec<String> {
        let mut hosts = Vec::with_capacity(names.len());
        for at in names {
            let name = at.value.strip_suffix('.').unwrap_or(&at.value).to_ascii_lowercase();
            if name.is_empty() || name.contains(':') || !host::is_host(name.as_bytes()) {
                let message = format!("{:?} is not a host name", at.value);
                let help = "expected a name without scheme, port and pattern, like \"pillion.example.com\"";
                self.fail(at.span.as_ref(), message, help);
            }
            hosts.push(name);
        }
        hosts
    }

    /// Two listeners on one address would only be found at the start.
    fn clashes(&mut self, file: &File) {
        let server = &file.server;
        let tls = file.tls.iter().flat_map(|tls| &tls.listen);
        let written = (server.listen.iter().map(|at| ("server.listen", at)))
            .chain(tls.map(|at| ("server.tls.listen", at)))
            .chain([("server.admin", &server.admin), ("server.probes", &server.probes)]);
        let mut seen: Vec<(&str, SocketAddr)> = Vec::new();
        for (name, at) in written {
            // Another check reports values that are no address. Port 0 is a different port each time.
            let addresses = address::listeners(&at.value).unwrap_or_default();
            let before = seen.len();
            for address in addresses.into_iter().filter(|address| address.port() != 0) {
                if let Some((other, _)) = seen[..before].iter().find(|(_, known)| *known == address) {
                    let message = format!("{name} is {address}, which {other} already uses");
                    self.fail(at.span.as_ref(), message, "every listener needs an address of its own");
                }
                seen.push((name, address));
            }
        }
    }

    /// Fails if a duration is below its minimum, which is one millisecond or none. Zero would be "at once", which nobody
    /// means, and there is no "never".
    pub(super) fn duration(&mut self, path: &str, at: &Spanned<std::time::Duration>, (min, _): Bounds) {
        if min > 0 && at.value.is_zero() {
            self.fail(at.span.as_ref(), format!("{path} is zero"), "expected a duration above zero");
        }
    }

    /// The addresses that one written address means: `localhost` means two.
    fn address(&mut self, path: &str, at: &Spanned<String>) -> Vec<SocketAddr> {
        address::listeners(&at.value).unwrap_or_else(|| {
            self.fail(at.span.as_ref(), format!("{path} is {:?}", at.value), address::LISTENER_FORMS);
            Vec::new()
        })
    }

    fn optional_address(&mut self, path: &str, at: &Spanned<String>) -> Vec<SocketAddr> {
        if at.value.is_empty() { Vec::new() } else { self.address(path, at) }
    }

    pub(super) fn networks(&mut self, key: &str, list: &[Spanned<String>]) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for at in list {
            if at.value == "private" {
                networks.extend(PRIVATE.iter().filter_map(|net| net.parse::<IpNet>().ok()));
                continue;
            }
            let parsed =
                at.value.parse().or_else(|_| at.value.parse().map(|ip: std::net::IpAddr| IpNet::from(ip)));
            match parsed {
                Ok(net) if net.addr() == net.network() => networks.push(net),
                Ok(net) => {
                    let message = format!("{key} holds {:?}, which has bits behind its prefix", at.value);
                    let one = IpNet::from(net.addr());
                    let help = format!(
                        "write {:?} for the network, {:?} for the address",
                        net.trunc().to_string(),
                        one.to_string()
                    );
                    self.fail(at.span.as_ref(), message, help);
                }
                Err(_) => {
                    let message = format!("{key} holds {:?}", at.value);
                    self.fail(
                        at.span.as_ref(),
                        message,
                        "expected \"private\" or a network like \"10.0.0.0/8\"",
                    );
                }
            }
        }
        networks
    }

    fn workers(&mut self, at: &Spanned<crate::config::table_reader::AutoOr<u64>>) -> usize {
        match at.value.0 {
            None => self.environment.cores.clamp(1, MAX_AUTO_WORKERS),
            Some(count) => {
                let count = Spanned { value: count, span: at.span.clone() };
                to_usize(self.within("server.workers", &count, keys::WORKERS.bounds()))
            }
        }
    }

    fn tls(&mut self, file: &Tls) -> Option<TlsPolicy> {
        let listen: Vec<SocketAddr> =
            file.listen.iter().flat_map(|at| self.address("server.tls.listen", at)).collect();
        let certificates = file.certificates.as_ref()?;
        if certificates.is_empty() {
            let help = "certificates = [{ cert = \"tls.crt\", key = \"tls.key\" }]";
            self.fail(Some(&file.span), "[server.tls] has no certificates", help);
            return None;
        }
        let mut loaded = Vec::new();
        let mut expiries = Vec::new();
        for (cert, key) in certificates.iter().filter(|_| !self.environment.without_certificates) {
            let (cert_path, key_path) = (self.file(&cert.value), self.file(&key.value));
            match tls::certified_key(&cert_path, &key_path) {
                Ok(certified) => {
                    if let Some(certificate) = certified.cert.first() {
                        self.warn_of_expiry(cert, certificate);
                    }
                    if let Some(expiry) = certified.cert.first().and_then(|cert| tls::expiry(cert)) {
                        expiries.push((cert_path, expiry));
                    }
                    loaded.push(certified);
                }
                Err(error) => {
                    let (at, message) = error;
                    let span = if at == tls::Part::Certificate { &cert.span } else { &key.span };
                    self.fail(span.as_ref(), message, "expected PEM files that belong together");
                }
            }
        }
        let client_ca = match file.client_ca.value.as_str() {
            "" => None,
            written => Some(self.file(written)),
        };
        match tls::server_config(loaded, client_ca.as_deref()) {
            Ok(config) => Some(TlsPolicy { listen, config, expiries }),
            Err(message) => {
                let span = file.client_ca.span.as_ref().or(Some(&file.span));
                self.fail(span, message, "expected PEM files with certificates");
                None
            }
        }
    }
}

fn size(at: &Spanned<crate::config::table_reader::Size>) -> Spanned<u64> {
    Spanned { value: at.value.0, span: at.span.clone() }
}

/// Only for values already within small bounds.
fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
