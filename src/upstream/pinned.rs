//! Connections that belong to one client connection: they carried `Authorization: NTLM` or `Negotiate`, and whoever
//! comes later on them is taken for the one who sent it. They hold a place at the upstream only while in use, and end
//! with the client connection.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::Endpoint;
use super::address::Address;
use super::http2::Http2Connection;
use crate::clock::Instant;
use crate::http1::client::ClientConnection;
use crate::inbound::Peer;

/// Maximum connections kept for one client connection; over HTTP/1 a client uses one at a time for each upstream.
const MAX_PINNED: usize = 16;

/// A connection.
pub(super) enum Pinned {
    /// In use by one request at a time.
    Http1(Box<ClientConnection>),
    /// Shared by the requests of the client connection.
    Http2(Rc<Http2Connection>),
}

struct Kept {
    address: Arc<Address>,
    connection: Pinned,
}

/// A connection of `peer` to one of `endpoints` that is still good; not to an address among `except`.
pub(super) fn take<'a>(
    peer: &Peer,
    endpoints: &'a [Arc<Endpoint>],
    except: &[u64],
    now: Instant,
) -> Option<(&'a Endpoint, Arc<Address>, Pinned)> {
    let mut connections = peer.pinned.connections.borrow_mut();
    let mut cx = Context::from_waker(Waker::noop());
    // The last one that was used goes first.
    for place in (0..connections.len()).rev() {
        let Some(kept) = connections.get_mut(place).and_then(|kept| kept.downcast_mut::<Kept>()) else {
            continue;
        };
        let leads_there = |endpoint: &&Arc<Endpoint>| {
            let resolved = endpoint.resolved.load();
            resolved.has(kept.address.id)
                || resolved.missing(now).any(|address| address.id == kept.address.id)
        };
        let Some(endpoint) = endpoints.iter().find(leads_there) else { continue };
        if except.contains(&kept.address.id) {
            continue;
        }
        let address = kept.address.clone();
        let good = match &mut kept.connection {
            Pinned::Http2(connection) if connection.has_room() => {
                return Some((endpoint, address, Pinned::Http2(connection.clone())));
            }
            Pinned::Http2(_) => false,
            Pinned::Http1(connection) => connection.is_silent(&mut cx),
        };
        let kept = connections.remove(place).downcast::<Kept>().ok()?;
        if good {
            return Some((endpoint, address, kept.connection));
        }
    }
    None
}

/// Keeps a connection for the next request of `peer`.
pub(super) fn keep(peer: &Peer, address: Arc<Address>, connection: Pinned) {
    let mut connections = peer.pinned.connections.borrow_mut();
    if connections.len() >= MAX_PINNED {
        connections.remove(0);
    }
    connections.push(Box::new(Kept { address, connection }));
}
