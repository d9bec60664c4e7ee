//! The sockets that the process listens on.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use super::inherited::{Inherited, LISTENERS, SocketIdentity};
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

/// Takes the inherited sockets of the addresses of one key, and binds all other addresses. On a machine without IPv6, 127.0.0.1 alone serves for `localhost`.
fn bind(
    key: &'static str,
    addresses: &[SocketAddr],
    inherited: &mut Inherited,
    taken: &mut Vec<(&'static str, SocketIdentity)>,
) -> Result<Vec<TcpListener>, StartError> {
    let mut bound = Vec::with_capacity(addresses.len());
    for address in addresses {
        if let Some(socket) = inherited.socket_for(key, *address) {
            taken.push((key, socket.identity));
            bound.push(socket.listener);
            continue;
        }
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
    /// The sockets among them that the service manager passed, each with the key of its address.
    inherited: Vec<(&'static str, SocketIdentity)>,
    /// The process that sockets were passed to instead of this one.
    other_process: Option<String>,
}

impl Listeners {
    /// Fails if an address cannot be bound, or a passed socket has the address of no listener.
    pub(super) fn bind(policy: &Policy, mut inherited: Inherited) -> Result<Listeners, StartError> {
        let server = &policy.server;
        let tls = server.tls.as_ref().map_or(&[][..], |tls| &tls.listen);
        let keys = [&server.listen[..], tls, &server.admin, &server.probes];
        let keys: [(&'static str, &[SocketAddr]); 4] =
            std::array::from_fn(|index| (LISTENERS[index].1, keys[index]));
        let other_process = inherited.other_process.take();
        inherited.check(&keys).map_err(StartError::Inherit)?;
        let mut taken = Vec::new();
        let mut bound = Vec::with_capacity(keys.len());
        for (key, addresses) in keys {
            bound.push(bind(key, addresses, &mut inherited, &mut taken)?);
        }
        let mut next = bound.into_iter();
        let mut next = || next.next().unwrap_or_default();
        let (plain, tls) = (next(), next());
        let data = plain.into_iter().map(|listener| Bound { listener, tls: false });
        let data = data.chain(tls.into_iter().map(|listener| Bound { listener, tls: true })).collect();
        Ok(Listeners { data, admin: next(), probes: next(), inherited: taken, other_process })
    }

    /// Logs the sockets that the service manager passed.
    fn announce_inherited(&self) {
        for (key, SocketIdentity { descriptor, name, address }) in &self.inherited {
            tracing::info!(key, %address, name, descriptor, "listening on a socket of the service manager");
        }
        if let Some(process) = &self.other_process {
            tracing::warn!(
                process,
                "the service manager passed sockets to another process (LISTEN_PID), so Pillion has bound its own: \
                 start Pillion without a shell, or with exec"
            );
        }
    }

    /// Logs each address, for machines; people get them in one line.
    pub(super) fn announce(&self, format: LogFormat) -> Started {
        let address = |listener: &TcpListener| listener.local_addr().ok();
        let started = Started {
            data: self.data.iter().filter_map(|bound| Some((address(&bound.listener)?, bound.tls))).collect(),
            admin: self.admin.first().and_then(address),
        };
        self.announce_inherited();
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
