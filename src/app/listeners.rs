//! The sockets that the process listens on.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use super::start_error::StartError;
use crate::policy::{LogFormat, Policy};
use crate::server::listener;
use crate::server::listener::Bound;

/// The addresses that listeners are bound to, with the ports that the system chose.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    /// The listeners for clients, each with whether it speaks TLS.
    pub data: Vec<(SocketAddr, bool)>,
    pub admin: Option<SocketAddr>,
}

/// Binds the addresses of one key. On a machine without IPv6, 127.0.0.1 alone serves for `localhost`.
fn bind(key: &'static str, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
    let mut bound = Vec::with_capacity(addresses.len());
    for address in addresses {
        let twin = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
        match listener::bind(*address) {
            Ok(listener) => bound.push(listener),
            Err(error)
                if address.ip() == Ipv6Addr::LOCALHOST
                    && addresses.contains(&twin)
                    && listener::is_without_ipv6(&error) => {}
            Err(error) => return Err(StartError::Bind(key, *address, error)),
        }
    }
    Ok(bound)
}

pub(super) struct Listeners {
    pub data: Vec<Bound>,
    pub admin: Vec<TcpListener>,
    pub probes: Vec<TcpListener>,
}

impl Listeners {
    pub(super) fn bind(policy: &Policy) -> Result<Listeners, StartError> {
        let server = &policy.server;
        let mut data = Vec::new();
        let tls = server.tls.as_ref().map_or(&[][..], |tls| &tls.listen);
        for (key, addresses, tls) in
            [("server.listen", &server.listen[..], false), ("server.tls.listen", tls, true)]
        {
            data.extend(bind(key, addresses)?.into_iter().map(|listener| Bound { listener, tls }));
        }
        let admin = bind("server.admin", &server.admin)?;
        let probes = bind("server.probes", &server.probes)?;
        Ok(Listeners { data, admin, probes })
    }

    /// Logs each address, for machines; people get them in one line.
    pub(super) fn announce(&self, format: LogFormat) -> Started {
        let address = |listener: &TcpListener| listener.local_addr().ok();
        let started = Started {
            data: self.data.iter().filter_map(|bound| Some((address(&bound.listener)?, bound.tls))).collect(),
            admin: self.admin.first().and_then(address),
        };
        if format == LogFormat::Pretty {
            return started;
        }
        for bound in &self.data {
            let kind = if bound.tls { "https" } else { "http" };
            if let Some(address) = address(&bound.listener) {
                tracing::info!(kind, %address, "listening");
            }
        }
        for (kind, listeners) in [("admin", &self.admin), ("probes", &self.probes)] {
            for address in listeners.iter().filter_map(address) {
                tracing::info!(kind, %address, "listening");
            }
        }
        started
    }
}
