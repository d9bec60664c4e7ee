//! Connections that belong to one client connection. They carried `Authorization: NTLM` or `Negotiate`, and the
//! upstream takes later requests on them for the same user. They hold a permit at the upstream only while in use, and
//! end with the client connection.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::address::Address;
use super::endpoint::Endpoint;
use super::http2::Http2Connection;
use crate::http1::client::ClientConnection;
use crate::memory::buffers::ClientSlot;
use crate::message::inbound::Peer;
use crate::runtime::clock::Instant;
use crate::upstream::queue::Permit;

/// Maximum connections kept for one client connection; over HTTP/1 a client uses a single one at a time for each
/// upstream.
const MAX_PINNED: usize = 16;

pub(super) enum Pinned {
    /// A connection for one request at a time.
    Http1(Box<ClientConnection>),
    /// A connection shared by the requests of the client connection.
    Http2(Rc<Http2Connection>),
}

struct Kept {
    address: Arc<Address>,
    connection: Pinned,
    /// The permit that counts the connection among the waiting ones of its address and client.
    _waiting: Permit,
}

/// Takes a usable connection of `peer` to one of `endpoints`, but not to an address in `except`.
pub(super) fn take<'a>(
    peer: &Peer,
    endpoints: &'a [Arc<Endpoint>],
    except: &[u64],
    now: Instant,
) -> Option<(&'a Endpoint, Arc<Address>, Pinned)> {
    let mut connections = peer.pinned.connections.borrow_mut();
    let mut cx = Context::from_waker(Waker::noop());
    // The most recently used connection comes first.
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

/// Keeps a connection for the next request of `peer`, in the share of `client`. Beyond the limit a connection is
/// closed: its client has to authenticate again.
pub(super) fn keep(peer: &Peer, client: ClientSlot, address: Arc<Address>, connection: Pinned) {
    let Some(waiting) = address.pinned.try_acquire(client) else {
        tracing::debug!("a connection reserved for one client was closed: too many of these are idle");
        return;
    };
    let mut connections = peer.pinned.connections.borrow_mut();
    if connections.len() >= MAX_PINNED {
        connections.remove(0);
    }
    connections.push(Box::new(Kept { address, connection, _waiting: waiting }));
}
