//! An upstream that is one of Pillion's own listeners: every request would come back until it is recognized.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Compiler;
use crate::config::address;
use crate::config::file::File;
use crate::policy::{Place, ServerPolicy, UpstreamPolicy};

impl Compiler<'_> {
    /// Refuses each URL that leads to a listener.
    pub(super) fn own_listeners(&mut self, file: &File, server: &ServerPolicy, upstreams: &[UpstreamPolicy]) {
        let tls = server.tls.iter().flat_map(|tls| tls.listen.iter().map(|at| ("server.tls.listen", *at)));
        let listeners: Vec<(&str, SocketAddr)> = server
            .listen
            .iter()
            .map(|at| ("server.listen", *at))
            .chain(tls)
            .chain(server.admin.iter().map(|at| ("server.admin", *at)))
            .chain(server.probes.iter().map(|at| ("server.probes", *at)))
            .collect();
        let written: Vec<_> = file
            .upstream
            .iter()
            .chain(&file.upstreams)
            .flat_map(|raw| raw.url.iter().chain(&raw.replicas))
            .map(|at| (address::upstream_url(&at.value).into_owned(), at.span.clone()))
            .collect();
        for endpoint in upstreams.iter().flat_map(|upstream| &upstream.endpoints) {
            let Place::Host(host, port) = &endpoint.place else { continue };
            let found = listeners.iter().find(|(_, listener)| leads_to(host, *port, *listener));
            let Some((key, listener)) = found else { continue };
            let span =
                written.iter().find(|(url, _)| *url == endpoint.url).and_then(|(_, span)| span.as_ref());
            let message = format!("{:?} is {key} of Pillion itself ({listener})", endpoint.url);
            self.fail(
                span,
                message,
                "give the address of the upstream, or let Pillion listen on another one",
            );
        }
    }
}

/// Whether this host and port are that listener on this machine, literally: other names and addresses may be anybody's.
fn leads_to(host: &str, port: u16, listener: SocketAddr) -> bool {
    // Port 0 is chosen at the start.
    if port != listener.port() || port == 0 {
        return false;
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let addresses = match name.parse::<IpAddr>() {
        // A connection to no address in particular goes to this machine.
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => vec![loopback[0]],
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => vec![loopback[1]],
        Ok(ip) => vec![ip.to_canonical()],
        Err(_) if name.eq_ignore_ascii_case("localhost") => loopback.to_vec(),
        Err(_) => return false,
    };
    addresses.into_iter().any(|ip| match listener.ip().to_canonical() {
        IpAddr::V4(own) if own.is_unspecified() => ip.is_loopback() && ip.is_ipv4(),
        // [::] takes IPv4 too.
        IpAddr::V6(own) if own.is_unspecified() => ip.is_loopback(),
        own => own == ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_11_which_urls_are_listeners() {
        for (host, port, listener, wanted) in [
            ("127.0.0.1", 80, "127.0.0.1:80", true),
            ("127.0.0.1", 81, "127.0.0.1:80", false),
            ("127.0.0.1", 80, "0.0.0.0:80", true),
            ("127.0.0.1", 80, "[::]:80", true),
            ("127.0.0.2", 80, "[::]:80", true),
            ("127.0.0.2", 80, "127.0.0.1:80", false),
            ("::1", 80, "[::]:80", true),
            ("::1", 80, "[::1]:80", true),
            ("::1", 80, "0.0.0.0:80", false),
            ("::1", 80, "127.0.0.1:80", false),
            ("::ffff:127.0.0.1", 80, "127.0.0.1:80", true),
            ("0.0.0.0", 80, "127.0.0.1:80", true),
            ("0.0.0.0", 80, "[::]:80", true),
            ("::", 80, "[::]:80", true),
            ("localhost", 80, "127.0.0.1:80", true),
            ("LOCALHOST.", 80, "[::1]:80", true),
            ("localhost", 80, "10.0.0.1:80", false),
            ("10.0.0.1", 80, "10.0.0.1:80", true),
            // Somebody else's, as far as anybody can say.
            ("10.0.0.2", 80, "[::]:80", false),
            ("app", 80, "[::]:80", false),
            ("127.0.0.1", 0, "127.0.0.1:0", false),
        ] {
            assert_eq!(leads_to(host, port, listener.parse().unwrap()), wanted, "{host}:{port} {listener}");
        }
    }
}
