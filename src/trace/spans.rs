//! The spans of a request and their attributes, by OpenTelemetry's semantic conventions for HTTP ("HTTP server", "HTTP
//! client").

use std::borrow::Cow;
use std::cell::RefCell;

use http::Method;

use super::otlp::{Attributes, Kind, Span, beginning, key, push};
use super::{ClientSpanInfo, ServerSpanInfo, span_id};
use crate::fields::fresh;
use crate::message::error::Fault;
use crate::rendering::json_text::EscapedText;
use crate::rendering::render_cache::{DirectMappedCache, same, stands};
use crate::runtime::clock::nanoseconds;
use crate::upstream::Target;

thread_local! {
    static OF_SERVERS: RefCell<DirectMappedCache<ServerAttributes>> = const { RefCell::new(DirectMappedCache::NONE) };
    static OF_CLIENTS: RefCell<DirectMappedCache<ClientAttributes>> = const { RefCell::new(DirectMappedCache::NONE) };
}

/// Appends the spans of one request.
pub(super) fn write(told: &ServerSpanInfo<'_>, out: &mut Vec<u8>) {
    let Some(client) = told.trace.span else { return };
    // The id of the server span is sent nowhere else, so it is made only now.
    let server = span_id();
    let (trace, flags, state) = (told.trace.id, told.trace.flags, told.state);
    let message = told.error.map_or("", |(_, error)| error);
    let began = nanoseconds(told.started);
    let ended = began.saturating_add(nanoseconds(told.duration));
    if let Some(asked) = &told.asked {
        let error = error_type(told, asked);
        let began = began.saturating_add(nanoseconds(asked.after));
        let ended = asked.duration.map_or(ended, |duration| began.saturating_add(nanoseconds(duration)));
        let (parent, failure) = (Some(server), error.is_some().then_some(message));
        let span = Span { trace, id: client, state, parent, began, ended, flags, failure };
        OF_CLIENTS.with_borrow_mut(|known| {
            push(out, &span, ClientAttributes::text(known, told, asked), |attributes| {
                rest_of_client(told, asked, error.as_deref(), attributes);
            });
        });
    }
    let (parent, failure) = (told.trace.parent, has_failed(told).then_some(message));
    let span = Span { trace, id: server, state, parent, began, ended, flags, failure };
    OF_SERVERS.with_borrow_mut(|known| {
        push(out, &span, ServerAttributes::text(known, told), |attributes| rest_of_server(told, attributes));
    });
}

/// Returns a method if it is a known one (RFC 9110 9, RFC 5789, and QUERY). Other methods may be any text that a client
/// chooses.
fn told_as(method: &Method) -> Option<&str> {
    let known = matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::CONNECT
            | Method::OPTIONS
            | Method::TRACE
            | Method::PATCH
    );
    (known || method.as_str() == "QUERY").then(|| method.as_str())
}

/// Returns the first word of a span's name.
fn name(method: &Method) -> &str {
    told_as(method).unwrap_or("HTTP")
}

fn of_method(method: &Method, attributes: &mut Attributes<'_, '_>) {
    let known = told_as(method);
    attributes.text(key!("http.request.method"), known.unwrap_or("_OTHER").as_bytes());
    if known.is_none() {
        attributes.text(key!("http.request.method_original"), method.as_str().as_bytes());
    }
}

/// The attributes that client spans of one method, address and status share, in encoded form.
struct ClientAttributes {
    method: Method,
    address: u64,
    status: Option<u16>,
    text: Vec<u8>,
}

impl ClientAttributes {
    fn text<'k>(
        known: &'k mut DirectMappedCache<ClientAttributes>,
        told: &ServerSpanInfo<'_>,
        asked: &ClientSpanInfo<'_>,
    ) -> &'k [u8] {
        let (address, status) = (asked.address.id, asked.status);
        let is = |known: &ClientAttributes| known.matches(told.method, address, status);
        &known
            .get([address, status.unwrap_or(0).into()], is, || ClientAttributes::new(told.method, asked))
            .text
    }

    fn matches(&self, method: &Method, address: u64, status: Option<u16>) -> bool {
        self.address == address && self.status == status && self.method == *method
    }

    #[cold]
    fn new(method: &Method, asked: &ClientSpanInfo<'_>) -> Box<ClientAttributes> {
        let text = beginning(name(method), Kind::Client, |attributes| {
            of_method(method, attributes);
            let address = asked.address;
            attributes.text(key!("server.address"), address.host.as_bytes());
            if let Some(port) = address.port {
                attributes.number(key!("server.port"), port.into());
            }
            if let Target::Tcp(peer) = address.target {
                attributes.text(key!("network.peer.address"), peer.ip().to_string().as_bytes());
                attributes.number(key!("network.peer.port"), peer.port().into());
            }
            if let Some(status) = asked.status {
                attributes.number(key!("http.response.status_code"), status.into());
            }
        });
        Box::new(ClientAttributes {
            method: method.clone(),
            address: asked.address.id,
            status: asked.status,
            text,
        })
    }
}

fn rest_of_client(
    told: &ServerSpanInfo<'_>,
    asked: &ClientSpanInfo<'_>,
    error: Option<&str>,
    attributes: &mut Attributes<'_, '_>,
) {
    if asked.address.port.is_some() {
        attributes.joined(key!("url.full"), [&asked.address.url, told.target]);
    }
    if asked.retries > 0 {
        attributes.number(key!("http.request.resend_count"), asked.retries.into());
    }
    if let Some(error) = error {
        attributes.text(key!("error.type"), error.as_bytes());
    }
}

/// Returns the error of the client span: no response, an incomplete one, or a status of 400 or more, as the conventions
/// define.
fn error_type(told: &ServerSpanInfo<'_>, asked: &ClientSpanInfo<'_>) -> Option<Cow<'static, str>> {
    let upstream = Fault::Upstream.as_str();
    match (told.error, asked.status) {
        (Some((fault, _)), _) if fault == upstream => Some(upstream.into()),
        (error, None) => Some(error.map_or(upstream, |(fault, _)| fault).into()),
        (_, Some(status)) => (status >= 400).then(|| status.to_string().into()),
    }
}

/// Returns whether the server span is an error, which by the conventions is a 5xx only.
fn has_failed(told: &ServerSpanInfo<'_>) -> bool {
    told.status >= 500
}

/// The attributes that server spans share, in encoded form. The route is kept alive here, so that no other text can
/// take its address.
struct ServerAttributes {
    method: Method,
    scheme: &'static str,
    route: Option<EscapedText>,
    status: u16,
    protocol: &'static str,
    cache: Option<&'static str>,
    limit: Option<&'static str>,
    text: Vec<u8>,
}

impl ServerAttributes {
    fn text<'k>(known: &'k mut DirectMappedCache<ServerAttributes>, told: &ServerSpanInfo<'_>) -> &'k [u8] {
        let route = told.route.map_or(0, |route| stands(route));
        let parts = [route, told.status.into(), told.cache.map_or(0, stands)];
        &known.get(parts, |known| known.matches(told), || ServerAttributes::new(told)).text
    }

    fn matches(&self, told: &ServerSpanInfo<'_>) -> bool {
        let route = match (&self.route, told.route) {
            (Some(known), Some(route)) => known.is(route),
            (None, None) => true,
            _ => false,
        };
        route
            && self.status == told.status
            && self.method == *told.method
            && same(Some(self.scheme), Some(told.scheme))
            && same(Some(self.protocol), Some(told.protocol))
            && same(self.cache, told.cache)
            && same(self.limit, told.limit)
    }

    #[cold]
    fn new(told: &ServerSpanInfo<'_>) -> Box<ServerAttributes> {
        let method = told.method;
        let route = told.route.map(|route| format!("{} {route}", name(method)));
        let text = beginning(route.as_deref().unwrap_or(name(method)), Kind::Server, |attributes| {
            of_method(method, attributes);
            attributes.text(key!("url.scheme"), told.scheme.as_bytes());
            if let Some(route) = told.route {
                attributes.text(key!("http.route"), route.as_bytes());
            }
            attributes.number(key!("http.response.status_code"), told.status.into());
            // The conventions omit the protocol's name for HTTP.
            attributes.text(key!("network.protocol.version"), told.protocol.as_bytes());
            if let Some(word) = told.cache {
                attributes.text(key!("pillion.cache"), word.as_bytes());
            }
            if let Some(word) = told.limit {
                attributes.text(key!("pillion.limit"), word.as_bytes());
            }
        });
        Box::new(ServerAttributes {
            method: method.clone(),
            scheme: told.scheme,
            route: told.route.cloned(),
            status: told.status,
            protocol: told.protocol,
            cache: told.cache,
            limit: told.limit,
            text,
        })
    }
}

fn rest_of_server(told: &ServerSpanInfo<'_>, attributes: &mut Attributes<'_, '_>) {
    let (path, query) = path_and_query(told);
    attributes.text(key!("url.path"), path.as_bytes());
    if let Some(query) = query {
        attributes.text(key!("url.query"), query.as_bytes());
    }
    attributes.number(key!("http.response.body.size"), told.bytes);
    fresh::with_address(told.client, |text| attributes.text(key!("client.address"), text));
    attributes.text(key!("pillion.request_id"), told.id.as_bytes());
    if has_failed(told) {
        match told.error {
            Some((fault, _)) => attributes.text(key!("error.type"), fault.as_bytes()),
            None => attributes.text(key!("error.type"), told.status.to_string().as_bytes()),
        }
    }
}

fn path_and_query<'t>(told: &'t ServerSpanInfo<'_>) -> (&'t str, Option<&'t str>) {
    told.target.split_once('?').map_or((told.target, None), |(path, query)| (path, Some(query)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;
    use crate::trace::Trace;

    /// Calls `of` with client requests that differ from each other in one value each.
    fn with_all(of: impl Fn(&[ServerSpanInfo<'_>])) {
        let (id, routes) = (HeaderValue::from_static("a"), [EscapedText::new("/a"), EscapedText::new("/b")]);
        let methods = [Method::GET, Method::PUT, Method::from_bytes(b"BAN").unwrap()];
        let plain = || ServerSpanInfo {
            trace: Trace { id: 1, parent: None, span: Some(2), flags: 1 },
            state: None,
            id: &id,
            started: Duration::ZERO,
            duration: Duration::ZERO,
            method: &methods[0],
            target: "/",
            route: Some(&routes[0]),
            protocol: "1.1",
            client: [127, 0, 0, 1].into(),
            scheme: "http",
            status: 200,
            bytes: 0,
            cache: None,
            limit: None,
            asked: None,
            error: None,
        };
        of(&[
            plain(),
            ServerSpanInfo { method: &methods[1], ..plain() },
            ServerSpanInfo { method: &methods[2], ..plain() },
            ServerSpanInfo { route: Some(&routes[1]), ..plain() },
            ServerSpanInfo { route: None, ..plain() },
            ServerSpanInfo { protocol: "2", ..plain() },
            ServerSpanInfo { scheme: "https", ..plain() },
            ServerSpanInfo { status: 404, ..plain() },
            ServerSpanInfo { cache: Some("hit"), ..plain() },
            ServerSpanInfo { cache: Some("miss"), ..plain() },
            ServerSpanInfo { limit: Some("limited"), ..plain() },
        ]);
    }

    #[test]
    fn no_span_has_what_is_another_s() {
        with_all(|all| {
            for (one, told) in all.iter().enumerate() {
                let known = ServerAttributes::new(told);
                for (two, other) in all.iter().enumerate() {
                    assert_eq!(known.matches(other), one == two, "{told:?} {other:?}");
                    assert_eq!(
                        known.text == ServerAttributes::new(other).text,
                        one == two,
                        "{told:?} {other:?}"
                    );
                }
            }
        });
        let client = |method, address, status| ClientAttributes { method, address, status, text: Vec::new() };
        let known = client(Method::GET, 1, Some(200));
        for (method, address, status, is) in [
            (Method::GET, 1, Some(200), true),
            (Method::PUT, 1, Some(200), false),
            (Method::GET, 2, Some(200), false),
            (Method::GET, 1, Some(404), false),
            (Method::GET, 1, None, false),
        ] {
            assert_eq!(known.matches(&method, address, status), is, "{method} {address} {status:?}");
        }
    }
}
