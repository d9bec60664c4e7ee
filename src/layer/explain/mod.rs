//! Explains what Pillion would do with a request, and by which line of its configuration. The request passes the same
//! decisions as any other, but is never sent to an upstream.

mod cached;
pub(crate) mod explanation;
mod head;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Uri, header};

use super::limit::caller::Caller;
use super::record::{RequestInfo, RequestRecord, Sink, request_id};
use super::rescue;
use super::route::{self, Decision};
use super::routed::{Observed, Routed};
use crate::cache::key;
use crate::fields::{forwarded, grpc, host};
use crate::layer::represent::classify as represented;
use crate::limit::cells::Kind;
use crate::limit::tier::Tier;
use crate::message::inbound::Peer;
use crate::policy::loose;
use crate::policy::pattern::Pattern;
use crate::policy::when::{Asked, When};
use crate::policy::{RoutePolicy, path};
use crate::represent::coding::Negotiated;
use crate::runtime::clock;
use crate::state::live_policy::Snapshot;
use explanation::{AskedAs, Explanation};

/// Maximum routes that are listed as not matching.
const MAX_ROUTES: usize = 100;

/// Explains a request that comes from `client`.
pub(crate) fn explain(
    (method, uri): (&Method, &Uri),
    fields: &[(HeaderName, HeaderValue)],
    client: SocketAddr,
    snapshot: &Arc<Snapshot>,
    sink: &Rc<Sink>,
) -> Explanation {
    let mut told = Explanation { cost: 1, ..Explanation::default() };
    let now = clock::now();
    let tls = uri.scheme_str() == Some("https");
    let peer = Rc::new(Peer::new(client, tls));
    let limits = snapshot.policy.server.settings.limits;
    let inbound = match head::request((method, uri), fields, limits, (peer, now)) {
        Ok(inbound) => inbound,
        Err(refused) => {
            told.say("refused", format!("{}: {refused}", refused.status.as_u16()));
            return told;
        }
    };
    let headers = inbound.request.headers();
    let host = host::text(headers).to_owned();
    // The conditions of routes are evaluated on the fields as they were received.
    let fields_received = headers.clone();
    let grpc = grpc::is_call(method, headers);
    if uri.authority().is_none() && !fields.iter().any(|(name, _)| name == header::HOST) {
        told.say("host", format!("{host}, because neither the URL nor a field names another"));
    }
    let info = RequestInfo {
        started: now,
        id: request_id(None),
        id_is_ours: true,
        method: method.clone(),
        target: inbound.request.uri().path_and_query().cloned(),
        client: forwarded::client_ip(headers, client.ip().to_canonical(), |ip| {
            snapshot.policy.server.trusts(ip)
        }),
        tls,
        protocol: "HTTP/1.1",
        grpc,
        trace: None,
        trace_state: None,
        snapshot: snapshot.clone(),
    };
    let record = Rc::new(RequestRecord::uncounted(info, sink.clone()));
    let read = path::normalise(uri.path());
    let normal = read.clone().map(|path| path.normal.into_owned());
    match &read {
        Ok(read) => {
            if read.normal != uri.path() {
                told.say("path", format!("{} is matched as {}", uri.path(), read.normal));
            }
            let loose = loose::reading(&read.normal);
            if read.is_odd && loose != read.normal {
                told.say("path", format!("some apps read it as {loose}: deny applies to that too"));
            }
        }
        Err(error) => {
            told.say("refused", format!("400: {error}"));
            return told;
        }
    }
    let normal = normal.unwrap_or_default();
    let decided = route::decide(Observed { inbound, record: record.clone() });
    let found = record.route_policy();
    let trusted = snapshot.policy.server.trusts(client.ip());
    let conditions = Asked { query: uri.query(), headers: &fields_received, trusted };
    explain_route(&mut told, snapshot, found, (method, &host, &normal), conditions);
    match decided {
        Err(error) => told.say("refused", format!("{}: {error}", rescue::status(&error).as_u16())),
        Ok(Decision::Respond(response)) => {
            let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("");
            told.say("answered", format!("{} here, {to}", response.status()));
        }
        Ok(Decision::Below(mut routed)) => {
            for (name, _) in fields {
                let odd = name.as_str().contains('_') || name == "proxy";
                if odd && !routed.request.headers().contains_key(name) {
                    told.say(
                        "dropped",
                        format!("{name}: some apps read it as another field (server.underscores)"),
                    );
                }
            }
            if let Some(before) = &routed.rewritten_by {
                told.say("rewritten", format!("by {} to {}", before.label, routed.request.uri()));
            }
            explain_upstream(&mut told, &routed);
            explain_caller(&mut told, &routed);
            explain_coding(&mut told, &mut routed);
            cached::cache(&mut told, &routed, grpc, &sink.shared_state.cache);
            cached::invalidation(&mut told, &routed, method);
        }
    }
    told
}

fn explain_route(
    told: &mut Explanation,
    snapshot: &Snapshot,
    found: &RoutePolicy,
    asked: (&Method, &str, &str),
    conditions: Asked<'_>,
) {
    let routes = &snapshot.policy.routes.routes;
    let is_found = |route: &Arc<RoutePolicy>| std::ptr::eq(&**route, found);
    let order = routes.iter().position(is_found).unwrap_or(routes.len());
    match &found.pattern {
        Some(pattern) => {
            told.say("route", format!("{} of {}: {}", order + 1, routes.len() - 1, written(pattern, found)))
        }
        None => told.say("route", "none matches: the defaults apply".to_owned()),
    }
    if let Some(when) = &found.when {
        let held: Vec<String> = when.conditions().map(|condition| condition.to_string()).collect();
        told.say("route", format!("its when holds: {}", held.join(", ")));
    }
    for (at, route) in routes.iter().take(order).take(MAX_ROUTES).enumerate() {
        if let Some(pattern) = &route.pattern
            && let Some(why) = mismatch(pattern, asked)
                .map(str::to_owned)
                .or_else(|| unmet(route.when.as_deref()?, conditions))
        {
            told.say("route", format!("not {}, {}: {why}", at + 1, written(pattern, route)));
        }
    }
}

fn written(pattern: &Pattern, route: &RoutePolicy) -> String {
    use crate::policy::pattern::Methods;
    let methods = match &pattern.methods {
        Methods::Any => "*".to_owned(),
        Methods::Only(methods) => methods.iter().map(Method::as_str).collect::<Vec<_>>().join(","),
    };
    format!("{methods} {}", route.label)
}

fn mismatch(pattern: &Pattern, (method, host, path): (&Method, &str, &str)) -> Option<&'static str> {
    if !pattern.template.takes(path) {
        return Some("another path");
    }
    if !pattern.host.takes(host) {
        return Some("another host");
    }
    (!pattern.methods.contains(method)).then_some("another method")
}

/// Returns the condition of `when` that a request does not meet.
fn unmet(when: &When, asked: Asked<'_>) -> Option<String> {
    when.unmet(asked).map(|condition| format!("its when does not hold: {condition}"))
}

fn explain_upstream(told: &mut Explanation, routed: &Routed) {
    let policy = &routed.record.info.snapshot.policy;
    let Some(upstream) = policy.upstreams.get(routed.route.upstream.unwrap_or(0)) else { return };
    let urls: Vec<&str> = upstream.endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect();
    let mut line = format!("{} ({})", upstream.name, urls.join(", "));
    if routed.route.stream {
        line.push_str(", a stream from its start: it counts toward max_streams and has no response_timeout");
    } else {
        let timeout = routed.route.timeout.unwrap_or(upstream.response_timeout);
        let _ = write!(line, ", responds within {timeout:?}");
    }
    told.say("app", line);
}

fn explain_caller(told: &mut Explanation, routed: &Routed) {
    let policy = &routed.record.info.snapshot.policy;
    let limits = &routed.route.limits;
    let headers = routed.request.headers();
    match routed.record.verified_claims(headers) {
        Err(_) => told.say("token", "it does not verify: it proves nothing, and the cache is bypassed"),
        Ok(Some(_)) => told.say("token", "it verifies"),
        Ok(None) if policy.identity.proves() => told.say("token", "the request has none"),
        Ok(None) => {}
    }
    let claims = routed.record.verified_claims(headers).as_ref().ok().and_then(Option::as_ref);
    let present = policy.identity.present(headers, claims);
    match present.is_empty() {
        true => told.say("principal", "none: the request carries none of identity.principal"),
        false => {
            let hash = policy.identity.principal(headers, claims).filter(|_| policy.hashes_are_shared);
            let hash =
                hash.map_or(String::new(), |found| format!(": {}", key::principal_hash(&found.partition)));
            told.say("principal", format!("the keyed hash of {}{hash}", present.join(" and ")));
        }
    }
    if !policy.limits.enabled && limits.concurrency.is_none() {
        told.say("limits", "none: no tier is configured");
        return;
    }
    let Caller { key, tier, rejected } = Caller::identify(routed, &policy.limits);
    let listed = policy.limits.listed.values().find(|listed| listed.partition == key.hash);
    let named = listed.and_then(|listed| listed.name.clone());
    told.caller = Some(match (named, key.kind) {
        (Some(name), _) => AskedAs::Key(name),
        (None, Kind::Ip) => AskedAs::Key(routed.record.info.client.to_string()),
        (None, _) if policy.hashes_are_shared => AskedAs::Key(format!("{:032x}", key.hash)),
        (None, _) => AskedAs::Unknown,
    });
    let name =
        listed.and_then(|listed| listed.name.as_deref()).map_or(String::new(), |name| format!(" ({name})"));
    told.say("limits", format!("as {}{name}, tier {:?}", key.kind.as_str(), tier.name));
    let exempt = limits.exempt && !routed.readings_differ;
    if rejected && !exempt && !tier.shadow {
        told.say("limits", "401: its API key is not listed");
        told.rejected = true;
    }
    if exempt {
        told.say("limits", "limits = \"none\": no quota applies here");
    } else if limits.exempt {
        told.say("limits", "limits = \"none\" does not exempt a path that can be read in two ways");
    }
    explain_limits(told, tier, routed);
}

fn explain_limits(told: &mut Explanation, tier: &Tier, routed: &Routed) {
    let limits = &routed.route.limits;
    told.cost = limits.cost.get();
    let exempt = limits.exempt && !routed.readings_differ;
    for (_, limit) in tier.limits_on(&limits.named).filter(|_| !exempt) {
        let quota = &limit.quota;
        told.limits.push((tier.name.to_string(), limit.name.to_string()));
        let shadow = if tier.shadow { ", in shadow mode" } else { "" };
        told.say(
            "limits",
            format!("{}: {} in {:?}, {} at once{shadow}", limit.name, quota.count, quota.period, quota.burst),
        );
    }
    if limits.cost.get() > 1 {
        told.say("limits", format!("it counts as {}", limits.cost));
    }
    if let Some(concurrency) = limits.concurrency {
        told.say("limits", format!("at most {} in flight on this route", concurrency.max));
        told.concurrency = true;
    }
}

fn explain_coding(told: &mut Explanation, routed: &mut Routed) {
    let policy = routed.record.info.snapshot.policy.compression.clone();
    match represented::RepresentationRequest::read(routed) {
        Err(error) => {
            let error = error.into();
            told.say("coding", format!("{}: {error}", rescue::status(&error).as_u16()));
        }
        Ok(asked) => match asked.coding {
            None => told.say("coding", "none: compress is off here, or the request says no-transform"),
            Some((_, Negotiated::Identity)) => {
                told.say("coding", "none: the client accepts none of compression.codings")
            }
            Some((_, Negotiated::Nothing)) => {
                told.say("coding", "406: the client rejects every coding and the content without one")
            }
            Some((_, Negotiated::Coded(coding, _))) => told.say(
                "coding",
                format!(
                    "{}, for content of {} bytes or more of the listed types",
                    coding.as_str(),
                    policy.min_size
                ),
            ),
        },
    }
}
