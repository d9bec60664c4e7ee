//! The future of the cache layer: a response that is here, comes from below or takes time. Reads that others wait for
//! and writes that invalidate go on without their client.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::error::CacheResult;
use super::exchange::{CacheExchange, WithoutClient};
use super::unattended::{outlive, to_its_end, unattended};
use crate::memory::buffers::BufferReservation;
use crate::upstream::ForwardError;

type Working = Pin<Box<dyn Future<Output = CacheResult>>>;

/// The response of the cache layer, from whatever source.
pub(crate) enum CacheFuture<F>
where
    F: Future<Output = CacheResult> + Unpin + 'static,
{
    Ready(Option<Box<CacheResult>>),
    /// From the upstream; the exchange decides about it.
    Below(Option<F>, Option<Box<CacheExchange>>),
    /// After work that takes time, such as waiting for another fetch.
    Working(Working),
}

impl<F> CacheFuture<F>
where
    F: Future<Output = CacheResult> + Unpin + 'static,
{
    pub(super) fn ready(response: CacheResult) -> CacheFuture<F> {
        CacheFuture::Ready(Some(Box::new(response)))
    }
}

impl<F> Future for CacheFuture<F>
where
    F: Future<Output = CacheResult> + Unpin + 'static,
{
    type Output = CacheResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CacheResult> {
        match &mut *self {
            CacheFuture::Ready(response) => {
                response.take().map_or(Poll::Pending, |response| Poll::Ready(*response))
            }
            CacheFuture::Below(below, exchange) => {
                let Some(future) = below else { return Poll::Pending };
                let result = match poll_below(future, exchange.as_deref_mut(), cx) {
                    Poll::Ready(result) => result,
                    Poll::Pending => {
                        let stale = exchange.as_deref_mut().and_then(|exchange| exchange.poll_stale(cx));
                        let Some((stale, place)) = stale else { return Poll::Pending };
                        if let (Some(below), Some(mut exchange)) = (below.take(), exchange.take()) {
                            exchange.client_is_served();
                            go_on(below, exchange, place, None);
                        }
                        return Poll::Ready(Ok(stale));
                    }
                };
                *below = None;
                let Some(exchange) = exchange.take() else { return Poll::Ready(result) };
                let Some(outbox) = exchange.published_to() else {
                    return Poll::Ready(exchange.on_response(result));
                };
                let tokens = exchange.tokens();
                let mut result = exchange.on_response(result);
                if !outbox.is_behind() {
                    tokens.into_iter().for_each(|tokens| tokens.give(&mut result, false));
                    return Poll::Ready(result);
                }
                // The client learns of its write when the other processes can know it too.
                let mut working: Working = Box::pin(async move {
                    let published = outbox.wait().await;
                    tokens.into_iter().for_each(|tokens| tokens.give(&mut result, published));
                    result
                });
                let polled = working.as_mut().poll(cx);
                *self = CacheFuture::Working(working);
                polled
            }
            CacheFuture::Working(working) => working.as_mut().poll(cx),
        }
    }
}

impl<F> Drop for CacheFuture<F>
where
    F: Future<Output = CacheResult> + Unpin + 'static,
{
    /// Lets a fetch outlive the client that began it, because other requests may wait for it and its response can be
    /// stored. A write that a rule matches goes on too, because only the upstream's response decides whether it
    /// invalidates.
    fn drop(&mut self) {
        let CacheFuture::Below(below, exchange) = self else { return };
        let (Some(below), Some(exchange)) = (below.take(), exchange.take()) else { return };
        let (place, timeout) = match exchange.without_its_client() {
            WithoutClient::Ends => return,
            // Beyond the limit the fetch ends here, and the requests that wait for it start again.
            WithoutClient::Reads => match unattended(&exchange.cache, &exchange.record) {
                Some(place) => (place, None),
                None => return,
            },
            WithoutClient::Writes(timeout) => (exchange.cache.unattended.write(), Some(timeout)),
        };
        exchange.client_is_gone();
        go_on(below, exchange, place, timeout);
    }
}

/// Lets a request go on without its client, for at most `timeout`.
fn go_on<F>(
    mut below: F,
    mut exchange: Box<CacheExchange>,
    place: BufferReservation,
    timeout: Option<Duration>,
) where
    F: Future<Output = CacheResult> + Unpin + 'static,
{
    outlive(async move {
        let _place = place;
        let below = poll_fn(|cx| poll_below(&mut below, Some(&mut exchange), cx));
        let result = match timeout {
            None => below.await,
            Some(timeout) => tokio::time::timeout(timeout, below)
                .await
                .unwrap_or_else(|_| Err(ForwardError::TimedOut.into())),
        };
        if let Ok(response) = exchange.on_response(result) {
            to_its_end(response.into_body()).await;
        }
    });
}

/// Polls the upstream. While it has no response, the waiting requests learn whether the request is queued.
fn poll_below<F>(
    below: &mut F,
    exchange: Option<&mut CacheExchange>,
    cx: &mut Context<'_>,
) -> Poll<CacheResult>
where
    F: Future<Output = CacheResult> + Unpin,
{
    let result = Pin::new(below).poll(cx);
    if let (Poll::Pending, Some(exchange)) = (&result, exchange) {
        exchange.tell_of_line();
    }
    result
}
