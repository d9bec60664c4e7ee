//! Requests over HTTP/2 that are refused before the stack sees them: for lack of buffer memory here, and for their heads
//! by the library.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Request, Response, Version, header};
use tower::Service;

use crate::http1::head_error::HeadError;
use crate::http2::library_refusals::{self, Refusal};
use crate::memory::buffers::{BufferMemory, BufferReservation, ClientSlot};
use crate::message::body::Body;
use crate::message::inbound::{Inbound, Peer, Refused};
use crate::runtime::clock;

/// Returns the refusal of a head.
pub(super) fn refused(error: HeadError) -> Refused {
    Refused { status: error.status(), detail: error.detail() }
}

/// Reserves `buffer_memory` for a request of `bytes`, or refuses the request with a 503 if there is no room. The memory is
/// checked here, because all requests of one turn begin before the stack sees any of them.
pub(super) fn reserve_or_refuse(
    memory: &Arc<BufferMemory>,
    client: ClientSlot,
    bytes: usize,
) -> Result<BufferReservation, Refused> {
    memory.try_reserve_request(client, bytes).ok_or_else(|| refused(HeadError::NoMemory))
}

/// Takes the content from a refusal for lack of memory: a document that waits for its client would take memory that is
/// not there.
pub(super) fn without_content(headers: &mut HeaderMap, mut body: Body) -> Body {
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_TYPE);
    if let Some(mut observer) = body.take_observer() {
        observer.end(Ok(()));
    }
    Body::empty()
}

/// Returns the heads that the library has refused on this thread since the last call.
pub(super) fn by_library() -> impl Iterator<Item = HeadError> {
    library_refusals::take().into_iter().map(|refusal| match refusal {
        Refusal::TooLarge => HeadError::TooLarge,
        Refusal::Malformed => HeadError::Malformed("the request head is malformed"),
    })
}

/// Sends a refused head through the stack, so that it is counted and logged like every other refusal. The client gets
/// the library's response; the response made here is for the record alone.
pub(super) fn note<S>(error: HeadError, mut service: S, peer: Rc<Peer>)
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + 'static,
    S::Future: 'static,
{
    let mut request = Request::new(Body::empty());
    *request.version_mut() = Version::HTTP_2;
    let inbound = Inbound {
        request: Box::new(request),
        peer,
        received: clock::now(),
        upgrade: None,
        takes_trailers: false,
        refused: Some(Refused { status: error.status(), detail: error.detail() }),
        counted: 0,
        kept: 0,
        reserved: None,
    };
    tokio::task::spawn_local(async move {
        let Ok(response) = service.call(inbound).await;
        drop(response);
    });
}
