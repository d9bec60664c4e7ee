//! Request handling on the admin and probe listeners: parameter checks and dispatch to the endpoints.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::Service;

use super::access::{self, Access};
use super::control::{Command, Control};
use super::endpoints::{self, Action, Endpoint, Guard};
use super::finding::{Finding, State};
use super::report::Report;
use super::{addresses, cache, elsewhere, events, explain, fleet, health, limits, page, performance, tail};
use crate::fields::query;
use crate::fields::request_id::X_REQUEST_ID;
use crate::layer::record::request_id;
use crate::message::body::Body;
use crate::message::inbound::Inbound;
use crate::metrics::Exposition;
use crate::policy::Check;
use crate::represent::buffered_prefix::{BufferGoal, BufferedPrefix};
use crate::runtime::clock;
use crate::state::live_policy::Snapshot;

/// Maximum length of a form body, in bytes.
const MAX_FORM: usize = 64 * 1024;
/// Maximum length of the marks of a configuration; those of thirty thousand routes fit.
const MAX_MARKS: usize = 4 * 1024 * 1024;

#[derive(Clone)]
pub(super) struct Handler {
    pub control: Control,
    /// The set of endpoints that this listener serves.
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
        Box::pin(async move { Ok(handler.respond_to(inbound).await) })
    }
}

impl Handler {
    async fn respond_to(&self, inbound: Inbound) -> Response<Body> {
        if let Some(refused) = inbound.refused {
            return problem(refused.status, refused.detail);
        }
        let (parts, body) = inbound.request.into_parts();
        if let Err(detail) = access::check_page(&parts.headers) {
            return problem(StatusCode::FORBIDDEN, detail);
        }
        let found = endpoints::find(parts.uri.path());
        let found =
            found.filter(|(endpoint, _)| self.access == Access::Admin || endpoint.guard == Guard::Open);
        let Some((endpoint, rest)) = found else {
            return problem(StatusCode::NOT_FOUND, &self.not_here(parts.uri.path()));
        };
        let method = endpoint.method();
        if parts.method != method && !(method == Method::GET && parts.method == Method::HEAD) {
            let mut response =
                problem(StatusCode::METHOD_NOT_ALLOWED, &format!("this path allows only {method}"));
            response.headers_mut().insert(
                header::ALLOW,
                HeaderValue::from_static(if method == Method::GET { "GET, HEAD" } else { "POST" }),
            );
            return response;
        }
        if let Err(refusal) = self.authorize(&parts, endpoint.guard) {
            return *refusal;
        }
        let parameters = query::parameters(parts.uri.query().unwrap_or(""));
        if let Err(detail) = endpoint.check(&parameters) {
            return problem(StatusCode::BAD_REQUEST, &detail);
        }
        self.act(endpoint, rest, &parts, parameters, body).await
    }

    /// Returns the refusal of a request that the Host or the lack of the admin token excludes from an endpoint.
    fn authorize(&self, parts: &Parts, guard: Guard) -> Result<(), Box<Response<Body>>> {
        let snapshot = self.control.live.load();
        let server = &snapshot.policy.server;
        if self.access == Access::Admin
            && let Err(detail) = access::check_host(server, parts, guard)
        {
            return Err(Box::new(problem(StatusCode::FORBIDDEN, detail)));
        }
        if guard.needs_token() && !access::has_token(server, &parts.headers) {
            let mut response =
                problem(StatusCode::UNAUTHORIZED, "the admin token is required as a bearer token");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Err(Box::new(response));
        }
        Ok(())
    }

    /// Returns the hint in a 404 response for a path.
    fn not_here(&self, path: &str) -> String {
        let known = match self.access {
            // The path is correct, but this listener does not serve it.
            Access::Probes if endpoints::find(path).is_some() => {
                return format!("{path} is served on the admin listener only");
            }
            _ => elsewhere::ours(path),
        };
        match known {
            Some(ours) => format!("{path} is {ours} here; GET / on the admin listener lists all paths"),
            None => format!("this listener has no path {path}; GET / on the admin listener lists all paths"),
        }
    }

    async fn act(
        &self,
        endpoint: &Endpoint,
        rest: &str,
        parts: &Parts,
        mut parameters: Vec<(String, String)>,
        body: Body,
    ) -> Response<Body> {
        let control = &self.control;
        match endpoint.action {
            Action::Live => document(StatusCode::OK, &json!({ "status": "live" })),
            Action::Ready => self.ready(),
            Action::Health => self.health(),
            Action::Check => self.check(rest),
            Action::Metrics => self.metrics(&parts.headers),
            Action::Root if !wants_page(&parts.headers) => {
                respond(StatusCode::OK, "text/plain; charset=utf-8", endpoints::list())
            }
            Action::Root | Action::File => page::file(parts.uri.path())
                .unwrap_or_else(|| problem(StatusCode::NOT_FOUND, "not found here")),
            Action::Describe => {
                document(StatusCode::OK, &endpoints::describe(control.shared_state.metrics.version()))
            }
            Action::Events => self.events(),
            Action::Explain => told(explain::explain(control, &parameters)),
            Action::Tail => self.tail(&parameters),
            Action::CacheStats => document(StatusCode::OK, &cache::stats(control)),
            Action::CacheLookup => told(cache::lookup(control, &parameters).await),
            Action::CachePurge => {
                let form = match content(body, MAX_FORM).await {
                    Ok(form) => form,
                    Err(refusal) => return *refusal,
                };
                parameters.extend(query::parameters(&form));
                if let Err(detail) = endpoint.check(&parameters) {
                    return problem(StatusCode::BAD_REQUEST, &detail);
                }
                told(cache::purge(control, &parameters).await)
            }
            Action::Fleet => match &control.shared_state.fleet {
                Some(fleet) => document(StatusCode::OK, &fleet::shown(fleet)),
                None => {
                    problem(StatusCode::NOT_FOUND, "this process is in no fleet: [redis] is not configured")
                }
            },
            Action::LimitsStatus => told(limits::status(control, &parameters).await),
            Action::LimitsReset => told(limits::reset(control, &parameters).await),
            Action::LimitsTop => told(limits::top(control, &parameters)),
            Action::Performance => self.performance(parts, &parameters),
            Action::Maintenance => self.maintenance(&parameters),
            Action::Settings => self.settings(&parts.headers, &parameters).await,
            Action::Compare => match content(body, MAX_MARKS).await {
                Ok(marks) => self.compare(marks).await,
                Err(refusal) => *refusal,
            },
            Action::Reload | Action::Drain | Action::Quit => self.order(endpoint.action).await,
        }
    }

    fn maintenance(&self, parameters: &[(String, String)]) -> Response<Body> {
        let state = parameters.iter().find(|(name, _)| name == "state").map(|(_, state)| &**state);
        let on = match state {
            Some("on") => true,
            Some("off") => false,
            Some(_) => return problem(StatusCode::BAD_REQUEST, "the parameter state is neither on nor off"),
            None => {
                return problem(StatusCode::BAD_REQUEST, "the parameter state is missing; give on or off");
            }
        };
        self.control.shared_state.maintenance.switch(on, "command");
        document(StatusCode::OK, &json!({ "status": if on { "maintenance on" } else { "maintenance off" } }))
    }

    fn events(&self) -> Response<Body> {
        let Some(body) = events::stream(&self.control) else {
            let detail =
                format!("{} event streams are open already, which is the maximum", events::MAX_WATCHERS);
            return problem(StatusCode::SERVICE_UNAVAILABLE, &detail);
        };
        let mut response = respond(StatusCode::OK, "text/event-stream", "");
        *response.body_mut() = body;
        response
    }

    fn tail(&self, parameters: &[(String, String)]) -> Response<Body> {
        match tail::stream(&self.control, parameters) {
            Ok(body) => {
                let mut response = respond(StatusCode::OK, "application/x-ndjson", "");
                *response.body_mut() = body;
                response
            }
            Err((status, detail)) => problem(status, &detail),
        }
    }

    fn performance(&self, parts: &Parts, parameters: &[(String, String)]) -> Response<Body> {
        let accept = parts.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
        let text = accept.starts_with("text/plain")
            || parameters.iter().any(|(name, value)| name == "format" && value == "text");
        match performance::report(&self.control, parts.uri.path(), parameters) {
            Ok(report) if text => {
                respond(StatusCode::OK, "text/plain; charset=utf-8", performance::as_text(&report))
            }
            report => told(report),
        }
    }

    fn ready(&self) -> Response<Body> {
        if self.control.is_leaving() {
            return document(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "draining" }));
        }
        let snapshot = self.control.live.load();
        if self.control.shared_state.maintenance.is_on() && !snapshot.policy.maintenance.ready {
            return document(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "maintenance" }));
        }
        match health::ready(&snapshot, &self.control.shared_state) {
            Ok(()) => document(StatusCode::OK, &json!({ "status": "ready" })),
            Err(detail) => {
                document(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "not ready", "detail": detail }))
            }
        }
    }

    fn checks(&self) -> impl Iterator<Item = Check> {
        health::checks(self.control.shared_state.redis.is_some())
    }

    fn health(&self) -> Response<Body> {
        let snapshot = self.control.live.load();
        let findings: Vec<_> = self.checks().map(|check| (check, self.found(check, &snapshot))).collect();
        let critical = health::ready(&snapshot, &self.control.shared_state).is_err();
        let worst = findings.iter().map(|(_, (finding, _))| finding.status).max().unwrap_or(State::Healthy);
        // A check that is not required can degrade the overall state but never make it unhealthy.
        let status = if critical { State::Unhealthy } else { worst.min(State::Degraded) };
        let checks: serde_json::Map<String, Value> =
            findings.into_iter().map(|(check, (_, shown))| (check.as_str().to_owned(), shown)).collect();
        let code = if critical { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        let body = json!({ "status": status, "generation": snapshot.generation, "draining": self.control.is_leaving(), "maintenance": self.control.shared_state.maintenance.is_on(), "checks": checks });
        document(code, &body)
    }

    /// Runs one check and renders its result, with the time the check took and the time since when the state holds.
    fn found(&self, check: Check, snapshot: &Snapshot) -> (Finding, Value) {
        let began = clock::now();
        let finding = health::run(check, snapshot, &self.control.shared_state);
        let took = clock::now().saturating_duration_since(began);
        let mut shown = json!(finding);
        shown["required"] = snapshot.policy.health.requires(check).into();
        shown["took_ms"] = performance::milliseconds(took).into();
        match check {
            Check::Upstream => {
                shown["addresses"] = addresses::addresses(snapshot, &self.control.monitor).into()
            }
            Check::Workers => shown["workers"] = health::signs_of_life(&self.control.shared_state).into(),
            _ => {}
        }
        let since = self.control.monitor.since(check, finding.status);
        shown["since"] = since.map(clock::unix_seconds).into();
        (finding, shown)
    }

    fn check(&self, name: &str) -> Response<Body> {
        match self.checks().find(|check| check.as_str() == name) {
            Some(check) => {
                let (finding, shown) = self.found(check, &self.control.live.load());
                let unhealthy = finding.status == State::Unhealthy;
                let code = if unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
                document(code, &shown)
            }
            None => {
                let known = self.checks().map(Check::as_str).collect::<Vec<_>>().join(", ");
                let detail = match elsewhere::ours(&format!("/health/{name}")) {
                    Some(ours) => format!("/health/{name} is {ours} here; checks are {known}"),
                    None => format!("unknown check {name:?}; expected one of {known}"),
                };
                problem(StatusCode::NOT_FOUND, &detail)
            }
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Response<Body> {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
        let exposition = Exposition::asked_for(accept);
        let content = self.control.shared_state.metrics.render(exposition);
        respond(StatusCode::OK, exposition.media_type(), content)
    }

    /// Responds with the effective settings, as TOML or, where the parameter or Accept asks for it, as JSON.
    async fn settings(&self, headers: &HeaderMap, parameters: &[(String, String)]) -> Response<Body> {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
        let as_json = match parameters.iter().find(|(name, _)| name == "format").map(|(_, format)| &**format)
        {
            None => accept.starts_with("application/json"),
            Some("toml") => false,
            Some("json") => true,
            Some(_) => {
                return problem(StatusCode::BAD_REQUEST, "the parameter format is neither toml nor json");
            }
        };
        let kind = if as_json { "application/json" } else { "application/toml" };
        match self.ask(|reply| Command::Settings { as_json, reply }).await {
            Some(Ok(text)) => respond(StatusCode::OK, kind, text),
            Some(Err(text)) => problem(StatusCode::INTERNAL_SERVER_ERROR, &text),
            None => stopping(),
        }
    }

    async fn compare(&self, marks: String) -> Response<Body> {
        match self.ask(|reply| Command::Compare { marks, reply }).await {
            Some(Ok(text)) => respond(StatusCode::OK, "application/json", text),
            Some(Err(text)) => problem(StatusCode::BAD_REQUEST, &text),
            None => stopping(),
        }
    }

    /// Sends a command to the main task, and returns its reply; `None` if the process is stopping.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (sender, reply) = oneshot::channel();
        self.control.commands.send(command(sender)).ok()?;
        reply.await.ok()
    }

    async fn order(&self, action: Action) -> Response<Body> {
        let order = match action {
            Action::Drain => Command::Drain,
            Action::Quit => Command::Quit,
            _ => {
                return match self.ask(Command::Reload).await {
                    Some(Ok(text)) => {
                        document(StatusCode::OK, &json!({ "status": "reloaded", "detail": text }))
                    }
                    Some(Err(text)) => problem(StatusCode::UNPROCESSABLE_ENTITY, &text),
                    None => stopping(),
                };
            }
        };
        if self.control.commands.send(order).is_err() {
            return stopping();
        }
        document(StatusCode::ACCEPTED, &json!({ "status": "draining" }))
    }
}

/// Returns whether the client accepts HTML, as browsers do.
fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    accept.contains("text/html")
}

fn stopping() -> Response<Body> {
    problem(StatusCode::SERVICE_UNAVAILABLE, "the process is stopping")
}

/// Reads the content of a request; refuses one of more than `max` bytes.
async fn content(body: Body, max: usize) -> Result<String, Box<Response<Body>>> {
    let wanted = BufferGoal { min: max + 1, max: max + 1, end: false };
    let content = BufferedPrefix::waited_for(body, wanted).await.content();
    match content.filter(|content| content.len() <= max) {
        Some(content) => Ok(String::from_utf8_lossy(&content).into_owned()),
        None => {
            let detail = format!("the content may have at most {max} bytes");
            Err(Box::new(problem(StatusCode::PAYLOAD_TOO_LARGE, &detail)))
        }
    }
}

fn told(report: Report) -> Response<Body> {
    match report {
        Ok(value) => document(StatusCode::OK, &value),
        Err((status, detail)) => problem(status, &detail),
    }
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
    let id = request_id(None);
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
