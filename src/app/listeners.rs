//! The sockets that the process listens on.

use std::net::{SocketAddr, TcpListener};

use super::start_error::StartError;
use crate::policy::Policy;
use crate::server::listener;
use crate::server::listener::Bound;

/// The addresses that listeners are bound to, with the ports that the system chose.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    pub data: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    listener::bind(address).map_err(|error| StartError::Bind(key, address, error))
}

pub(super) struct Listeners {
    pub data: Vec<Bound>,
    pub admin: Option<TcpListener>,
    pub probes: Option<TcpListener>,
}

impl Listeners {
    pub(super) fn bind(policy: &Policy) -> Result<Listeners, StartError> {
        let server = &policy.server;
        let mut data = Vec::new();
        for address in &server.listen {
            data.push(Bound { listener: bind("server.listen", *address)?, tls: false });
        }
        for address in server.tls.iter().flat_map(|tls| &tls.listen) {
            data.push(Bound { listener: bind("server.tls.listen", *address)?, tls: true });
        }
        let admin = server.admin.map(|address| bind("server.admin", address)).transpose()?;
        let probes = server.probes.map(|address| bind("server.probes", address)).transpose()?;
        Ok(Listeners { data, admin, probes })
    }

    pub(super) fn announce(&self) -> Started {
        let address = |listener: &TcpListener| listener.local_addr().ok();
        for bound in &self.data {
            let kind = if bound.tls { "https" } else { "http" };
            if let Some(address) = address(&bound.listener) {
                tracing::info!(kind, %address, "listening");
            }
        }
        for (kind, listener) in [("admin", &self.admin), ("probes", &self.probes)] {
            if let Some(address) = listener.as_ref().and_then(address) {
                tracing::info!(kind, %address, "listening");
            }
        }
        Started {
            data: self.data.iter().filter_map(|bound| address(&bound.listener)).collect(),
            admin: self.admin.as_ref().and_then(address),
        }
    }
}
