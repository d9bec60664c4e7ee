//! The paths of the admin and probe listeners.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::Service;

use super::health::{self, State};
use super::{Control, Order, cache, limits, performance};
use crate::body::Body;
use crate::fields::{host, query};
use crate::inbound::Inbound;
use crate::layer::record::{X_REQUEST_ID, request_id};
use crate::metrics::Exposition;
use crate::policy::Check;
use crate::represent::gather::{Gathered, Wanted};

/// The longest form that is read; bytes.
const MOST_FORM: usize = 64 * 1024;

/// What begins with these is for whoever operates the process: it names paths, users and keys.
const GUARDED: [&str; 3] = ["/cache/", "/limits/", "/performance/"];

/// What a listener may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Admin,
    /// Reading health and metrics.
    Probes,
}

/// Serves one connection.
#[derive(Clone)]
pub struct Handler {
    /// The process.
    pub control: Control,
    /// What may be done here.
    pub access: Access,
}

impl Service<Inbound> for Handler {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let handler = self.clone();
        Box::pin(async move { Ok(handler.answer(inbound).await) })
    }
}

impl Handler {
    async fn answer(&self, inbound: Inbound) -> Response<Body> {
        if let Some(refused) = inbound.refused {
            return problem(refused.status, refused.detail);
        }
        let (parts, body) = inbound.request.into_parts();
        let path = parts.uri.path();
        let read = parts.method == Method::GET || parts.method == Method::HEAD;
        if parts.headers.contains_key(header::ORIGIN) {
            return problem(StatusCode::FORBIDDEN, "requests of web pages are refused here");
        }
        match path {
            "/live" if read => document(StatusCode::OK, &json!({ "status": "live" })),
            "/ready" if read => self.ready(),
            "/health" if read => self.health(),
            "/metrics" if read => self.metrics(&parts.headers),
            "/" if read && self.access == Access::Admin => index(),
            _ if GUARDED.iter().any(|begin| path.starts_with(begin)) && self.access == Access::Admin => {
                if !self.is_meant(&parts.headers) {
                    let detail = "without an admin token this answers to localhost and to addresses only";
                    return problem(StatusCode::FORBIDDEN, detail);
                }
                match self.authorise(&parts.headers) {
                    Ok(()) if path.starts_with("/limits/") => self.limits(&parts),
                    Ok(()) if path.starts_with("/performance/") => self.performance(&parts),
                    Ok(()) => self.cache(&parts, body).await,
                    Err(response) => *response,
                }
            }
            "/reload" | "/drain" | "/quit" if self.access == Access::Admin => {
                if parts.method != Method::POST {
                    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "this takes POST");
                    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
                    return response;
                }
                match self.authorise(&parts.headers) {
                    Ok(()) => self.order(path).await,
                    Err(response) => *response,
                }
            }
            _ => match path.strip_prefix("/health/").filter(|_| read) {
                Some(name) => self.check(name),
                None => problem(StatusCode::NOT_FOUND, "nothing here"),
            },
        }
    }

    /// Whether it was asked under a name that nobody else can make lead here: a page of some other name, whose
    /// owner let that name lead to this address, is not answered (DNS rebinding). Who has the token is.
    fn is_meant(&self, headers: &HeaderMap) -> bool {
        if self.control.live.load().policy.server.admin_token.is_some() {
            return true;
        }
        let Some(given) = headers.get(header::HOST).and_then(|given| given.to_str().ok()) else {
            return true;
        };
        let name = host::name(given);
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        name.is_empty()
            || name.eq_ignore_ascii_case("localhost")
            || address.parse::<std::net::IpAddr>().is_ok()
    }

    /// What is stored, and purging it.
    async fn cache(&self, parts: &http::request::Parts, body: Body) -> Response<Body> {
        let query = parts.uri.query().unwrap_or("");
        let mut parameters = query::parameters(query);
        let told = match (parts.uri.path(), &parts.method) {
            ("/cache/stats", &Method::GET) => Ok(cache::stats(&self.control)),
            ("/cache/lookup", &Method::GET) => cache::lookup(&self.control, &parameters),
            ("/cache/purge", &Method::POST) => {
                let wanted = Wanted { least: MOST_FORM + 1, most: MOST_FORM + 1, end: false };
                let form = Gathered::waited_for(body, wanted).await.content();
                match form.filter(|form| form.len() <= MOST_FORM) {
                    Some(form) => {
                        parameters.extend(query::parameters(&String::from_utf8_lossy(&form)));
                        cache::purge(&self.control, &parameters)
                    }
                    None => Err((StatusCode::PAYLOAD_TOO_LARGE, format!("at most {MOST_FORM} bytes"))),
                }
            }
            ("/cache/stats" | "/cache/lookup" | "/cache/purge", _) => {
                let allowed = if parts.uri.path() == "/cache/purge" { "POST" } else { "GET" };
                let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("this takes {allowed}"));
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
                return response;
            }
            _ => Err((StatusCode::NOT_FOUND, "nothing here".to_owned())),
        };
        match told {
            Ok(value) => document(StatusCode::OK, &value),
            Err((status, detail)) => problem(status, &detail),
        }
    }

    /// Who is limited, and how.
    fn limits(&self, parts: &http::request::Parts) -> Response<Body> {
        let parameters = query::parameters(parts.uri.query().unwrap_or(""));
        let told = match (parts.uri.path(), &parts.method) {
            ("/limits/status", &Method::GET) => limits::status(&self.control, &parameters),
            ("/limits/top", &Method::GET) => limits::top(&self.control, &parameters),
            ("/limits/status" | "/limits/top", _) => {
                let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "this takes GET");
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
                return response;
            }
            _ => Err((StatusCode::NOT_FOUND, "nothing here".to_owned())),
        };
        match told {
            Ok(value) => document(StatusCode::OK, &value),
            Err((status, detail)) => problem(status, &detail),
        }
    }

    /// How the routes do.
    fn performance(&self, parts: &http::request::Parts) -> Response<Body> {
        if parts.method != Method::GET && performance::REPORTS.contains(&parts.uri.path()) {
            let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "this takes GET");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        let parameters = query::parameters(parts.uri.query().unwrap_or(""));
        let accept = parts.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
        let text = accept.starts_with("text/plain")
            || parameters.iter().any(|(name, value)| name == "format" && value == "text");
        match performance::report(&self.control, parts.uri.path(), &parameters) {
            Ok(report) if text => {
                respond(StatusCode::OK, "text/plain; charset=utf-8", performance::as_text(&report))
            }
            Ok(report) => document(StatusCode::OK, &report),
            Err((status, detail)) => problem(status, &detail),
        }
    }

    fn ready(&self) -> Response<Body> {
        if self.control.is_leaving() {
            return document(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "draining" }));
        }
        match health::ready(&self.control.live.load()) {
            Ok(()) => document(StatusCode::OK, &json!({ "status": "ready" })),
            Err(detail) => {
                document(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "not ready", "detail": detail }))
            }
        }
    }

    fn health(&self) -> Response<Body> {
        let snapshot = self.control.live.load();
        let findings: Vec<_> =
            Check::ALL.iter().map(|check| (*check, health::run(*check, &snapshot))).collect();
        let critical = findings.iter().any(|(check, finding)| {
            finding.status == State::Unhealthy && snapshot.policy.health.ready_requires.contains(check)
        });
        let worst = findings.iter().map(|(_, finding)| finding.status).max().unwrap_or(State::Healthy);
        // A check that is not required can degrade the whole, not take it down.
        let status = if critical { State::Unhealthy } else { worst.min(State::Degraded) };
        let checks: serde_json::Map<String, Value> =
            findings.iter().map(|(check, finding)| (check.as_str().to_owned(), json!(finding))).collect();
        let code = if critical { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        let body = json!({ "status": status, "generation": snapshot.generation, "draining": self.control.is_leaving(), "checks": checks });
        document(code, &body)
    }

    fn check(&self, name: &str) -> Response<Body> {
        match Check::ALL.iter().find(|check| check.as_str() == name) {
            Some(check) => {
                let finding = health::run(*check, &self.control.live.load());
                let unhealthy = finding.status == State::Unhealthy;
                let code = if unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
                document(code, &json!(finding))
            }
            None => problem(StatusCode::NOT_FOUND, "there is no such check"),
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Response<Body> {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
        let exposition = Exposition::asked_for(accept);
        let content = self.control.lasting.metrics.render(exposition);
        respond(StatusCode::OK, exposition.media_type(), content)
    }

    /// The token is asked for wherever one is configured; `compile` demands one off loopback.
    fn authorise(&self, headers: &HeaderMap) -> Result<(), Box<Response<Body>>> {
        let snapshot = self.control.live.load();
        let Some(token) = &snapshot.policy.server.admin_token else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        // Scheme names have no case (RFC 9110 11.1).
        let given = match given.split_at_checked(7) {
            Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"bearer ") => given.trim_ascii(),
            _ => b"",
        };
        if same(given, token.as_bytes()) {
            return Ok(());
        }
        let mut response = problem(StatusCode::UNAUTHORIZED, "this takes the admin token as a bearer token");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Err(Box::new(response))
    }

    async fn order(&self, path: &str) -> Response<Body> {
        let gone = || problem(StatusCode::SERVICE_UNAVAILABLE, "the process is stopping");
        let order = match path {
            "/drain" => Order::Drain,
            "/quit" => Order::Quit,
            _ => {
                let (reply, answer) = oneshot::channel();
                if self.control.orders.send(Order::Reload(reply)).is_err() {
                    return gone();
                }
                return match answer.await {
                    Ok(Ok(text)) => {
                        document(StatusCode::OK, &json!({ "status": "reloaded", "detail": text }))
                    }
                    Ok(Err(text)) => problem(StatusCode::UNPROCESSABLE_ENTITY, &text),
                    Err(_) => gone(),
                };
            }
        };
        if self.control.orders.send(order).is_err() {
            return gone();
        }
        document(StatusCode::ACCEPTED, &json!({ "status": "draining" }))
    }
}

/// Compares in a time that does not tell how much was right.
fn same(given: &[u8], token: &[u8]) -> bool {
    given.len() == token.len() && given.iter().zip(token).fold(0, |wrong, (a, b)| wrong | (a ^ b)) == 0
}

fn index() -> Response<Body> {
    let text = "Pillion admin\n\nGET  /live /ready /health /health/{upstream,memory,certificate} /metrics\nPOST /reload /drain /quit\n\nGET  /cache/stats /cache/lookup?url= /limits/top /limits/status?key=\n     /performance/routes /performance/slow /performance/errors /performance/system [?format=text]\nPOST /cache/purge?url= prefix= tag= principal= everything [mode=soft]\n";
    respond(StatusCode::OK, "text/plain; charset=utf-8", text.to_owned())
}

fn respond(status: StatusCode, kind: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn document(status: StatusCode, value: &Value) -> Response<Body> {
    respond(status, "application/json", format!("{value}\n"))
}

fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let id = request_id();
    let value = json!({
        "request_id": id.to_str().unwrap_or("-"),
        "type": format!("urn:pillion:problem:admin-{}", status.as_u16()),
        "title": status.canonical_reason().unwrap_or("refused"),
        "status": status.as_u16(),
        "detail": detail,
    });
    let mut response = respond(status, "application/problem+json", format!("{value}\n"));
    response.headers_mut().insert(X_REQUEST_ID, id);
    response
}
