//! One exchange with an upstream over an existing connection: the request, its timeouts, and the evaluation of the
//! response.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use http::{HeaderValue, Request, Response, Uri};
use http_body::Body as _;

use super::address::{Address, Evidence};
use super::body::{Lease, Leased, LeasedHttp1, LeasedIo, PoolReturn};
use super::call::{Call, Progress, Streaming};
use super::endpoint::Endpoint;
use super::error::ForwardError;
use super::http2::{Http2Connection, Passing};
use super::pool::Pool;
use super::retry::Attempt;
use super::state::Upstream;
use crate::fields::forwarded::ForwardedFields;
use crate::http1::client::{
    ClientConnection, Content, Outbound, SendError, Sent, Timeouts, UpstreamResponse,
};
use crate::http1::encode::Beside;
use crate::http1::head_error::HeadError;
use crate::message::body::{Body, Tunnel};
use crate::policy::Scheme;
use crate::runtime::clock;
use crate::runtime::clock::Instant;
use crate::upstream::admission::Entered;

/// Extends the silence timeout of a request whose response is a stream: its client may be in a two-way exchange, and as
/// silent as the upstream may be.
fn allow_silence(limit: Option<&Cell<Duration>>, silence: Duration) {
    if let Some(limit) = limit {
        limit.set(silence);
    }
}

#[allow(
    clippy::manual_async_fn,
    reason = "an async fn holds its arguments twice: as they came, and as what it works with"
)]
impl Upstream {
    fn timeouts(&self, call: &Call<'_>, stream: bool) -> Timeouts {
        let response = call.timeout.unwrap_or(self.policy.response_timeout);
        Timeouts {
            // The response to a stream may begin only after the whole request, which may take an hour.
            response: (!stream).then_some(response),
            body: if stream { call.stream_idle_timeout } else { self.policy.body_timeout },
            stream: call.stream_idle_timeout,
        }
    }

    /// Sends a request over HTTP/1. Here only `Streaming::Always` makes a request a stream.
    pub(super) fn over_http1<'a>(
        &'a self,
        pool: &'a Rc<Pool>,
        call: &'a mut Call<'_>,
        mut connection: Box<ClientConnection>,
        mut lease: Lease,
        idle_until: Option<Instant>,
        progress: &'a Progress,
    ) -> impl Future<Output = Result<Response<Body>, Attempt>> + 'a {
        async move {
            let reused = idle_until.is_some();
            let now = idle_until.unwrap_or_else(clock::now);
            let stream = call.streaming == Streaming::Always;
            if stream {
                call.body.allow_silence(call.stream_idle_timeout);
            }
            let timeouts = self.timeouts(call, stream);
            let outbound = Outbound {
                method: call.method,
                target: call.target.as_str().as_bytes(),
                headers: call.headers,
                beside: Beside {
                    lines: call.forwarding.map_or(&[], ForwardedFields::lines),
                    identified: call.identified,
                },
                upgrade: call.upgrade,
                takes_trailers: call.takes_trailers,
                interim: call.interim,
                limits: call.limits,
                room: call.room,
                sent: &progress.sent_earlier,
            };
            let has_body = !http_body::Body::is_end_stream(&call.body);
            let silence = call.body.silence();
            progress.sent.set(Some(now));
            let body = &mut call.body;
            let mut sending = connection.begin(&outbound, body, now);
            let polled = |cx: &mut Context<'_>| sending.poll(&mut connection, &outbound, body, timeouts, cx);
            let head = std::future::poll_fn(polled).await.map_err(|error| {
                let error = match error {
                    SendError::Broken(error) => ForwardError::Broken(error),
                    SendError::Closed => ForwardError::Closed,
                    SendError::Malformed(error) => ForwardError::Malformed(error),
                    SendError::TimedOut => ForwardError::TimedOut,
                    SendError::Body(error) => ForwardError::Body(error),
                };
                // Content taken from a streaming body is gone, even if it was never sent.
                let taken = has_body && call.body.content().is_none();
                let nothing_sent = !sending.has_started() && !taken;
                Attempt { error, nothing_sent, reused, suspect: false }
            })?;
            let room = outbound.room;
            let UpstreamResponse { parts, content } =
                connection.response(head, sending, &mut call.body, timeouts, room);
            let responded_at = clock::now();
            progress.responded.set(Some(responded_at));
            self.judge(&lease.address, parts.status);
            let pool_return = PoolReturn {
                pool: pool.clone(),
                keep_alive: self.policy.keep_alive,
                pinned: call.pinned.cloned(),
                client: call.client,
            };
            let body = match content {
                Content::Whole(content, connection) => {
                    if let Some(connection) = connection {
                        pool_return.receive(&lease.address, connection, responded_at);
                    }
                    Body::full(content)
                }
                Content::Tunnel(tunnel) => {
                    if !lease.become_stream() {
                        return Err(Attempt {
                            error: ForwardError::TooManyStreams,
                            nothing_sent: false,
                            reused,
                            suspect: false,
                        });
                    }
                    let Tunnel { io, read_ahead } = tunnel;
                    Body::tunnel(Tunnel { io: Box::new(LeasedIo { io, _lease: lease }), read_ahead })
                }
                Content::Streaming { body, endless } => {
                    // For an expected stream, a response without a declared length has no expected end.
                    let endless = endless || stream && body.size_hint().exact().is_none();
                    if endless && !lease.become_stream() {
                        return Err(Attempt {
                            error: ForwardError::TooManyStreams,
                            nothing_sent: false,
                            reused,
                            suspect: false,
                        });
                    }
                    let mut body = Body::streaming(LeasedHttp1 { body, lease: Some(lease), pool_return });
                    if endless {
                        body.set_endless();
                        allow_silence(silence.as_deref(), call.stream_idle_timeout);
                    }
                    body
                }
            };
            Ok(Response::from_parts(parts, body))
        }
    }

    /// Sends a request over HTTP/2.
    pub(super) async fn over_http2(
        &self,
        call: &mut Call<'_>,
        endpoint: &Endpoint,
        connection: Rc<Http2Connection>,
        mut lease: Lease,
        reused: bool,
        (progress, entered): (&Progress, &Cell<Option<Entered>>),
    ) -> Result<Response<Body>, Attempt> {
        let stream = call.streaming != Streaming::No;
        if stream {
            if !lease.become_stream() {
                return Err(Attempt::before_sending(ForwardError::TooManyStreams));
            }
            // The gate did not know that this upstream speaks HTTP/2.
            drop(entered.take());
            call.body.allow_silence(call.stream_idle_timeout);
        }
        let scheme = if matches!(endpoint.policy.scheme, Scheme::H2c) { "http" } else { "https" };
        let host = call.headers.get(http::header::HOST).map(HeaderValue::as_bytes);
        let authority = host
            .and_then(|host| http::uri::Authority::try_from(host).ok())
            .unwrap_or_else(|| endpoint.policy.authority.clone());
        let uri =
            Uri::builder().scheme(scheme).authority(authority).path_and_query(call.target.clone()).build();
        let uri = uri.map_err(|error| Attempt::before_sending(ForwardError::Http2(error.to_string())))?;
        let replayable = call.body.content().is_some();
        let silence = call.body.silence();
        let body = std::mem::replace(&mut call.body, Body::empty());
        let mut request = Request::new(body);
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = call.headers.clone();
        if let Some(fields) = call.forwarding {
            fields.insert_into(request.headers_mut(), true);
        }
        if let Some(identified) = &call.identified {
            identified.insert_into(request.headers_mut());
        }
        if call.takes_trailers {
            request.headers_mut().insert(http::header::TE, HeaderValue::from_static("trailers"));
        }
        progress.sent.set(Some(clock::now()));
        progress.start_over_http2();
        let passing = Passing { sent: &progress.sent_over_http2, interim: call.interim, room: call.room };
        let sent = connection.clone().send(request, passing, self.timeouts(call, stream), clock::now);
        let response = sent.await;
        let response = response.map_err(|error| {
            if matches!(error, ForwardError::Closed) {
                // RFC 9113 8.7: nothing of the request was processed.
                progress.sent_over_http2.set(Sent::Nothing);
            }
            // GOAWAY and refused streams appear as closed before anything was processed. Content taken from a streaming
            // body is gone, however.
            let nothing_sent = matches!(error, ForwardError::Closed) && replayable;
            let ended = matches!(
                error,
                ForwardError::Broken(_) | ForwardError::Http2Ended(_) | ForwardError::Objected(_)
            );
            Attempt { error, nothing_sent, reused, suspect: ended && !connection.is_dead() }
        })?;
        progress.responded.set(Some(clock::now()));
        let (parts, body) = response.into_parts();
        if parts.headers.len() > call.limits.fields {
            let error = ForwardError::Malformed(HeadError::TooManyFields);
            return Err(Attempt { error, nothing_sent: false, reused, suspect: false });
        }
        self.judge(&lease.address, parts.status);
        let endless = body.is_endless()
            || call.streaming == Streaming::Always && http_body::Body::size_hint(&body).exact().is_none();
        if endless && !lease.become_stream() {
            return Err(Attempt {
                error: ForwardError::TooManyStreams,
                nothing_sent: false,
                reused,
                suspect: false,
            });
        }
        let mut body = Body::streaming(Leased { body, lease: Some(lease) });
        if endless {
            body.set_endless();
            allow_silence(silence.as_deref(), call.stream_idle_timeout);
        }
        Ok(Response::from_parts(parts, body))
    }

    /// Records the outcome for the health of the address. A status of 502 to 504 means a failure behind the upstream
    /// and counts as a failure; any other status is a success.
    fn judge(&self, address: &Arc<Address>, status: http::StatusCode) {
        if matches!(status.as_u16(), 502..=504) {
            if self.policy.health.path.is_none() {
                self.note_response(address);
            }
            self.note_failure(address, Evidence::Exchange);
        } else {
            self.note_success(address, Evidence::Exchange);
        }
    }
}
