//! Collects the decisions of Pillion about a request, and the lines of its configuration that cause them. The request
//! passes the same decisions as any other, but is never sent to an upstream.

mod cached;
pub(crate) mod facts;
pub(crate) mod head;
pub(crate) mod render;

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderName, Method, StatusCode, Version, header};

use super::limit::caller::Caller;
use super::record::{HTTP_2, RequestInfo, RequestRecord, Sink, request_id};
use super::rescue;
use super::route::{self, Decision};
use super::routed::{Observed, Routed};
use crate::cache::key;
use crate::fields::{forwarded, grpc, host};
use crate::identity::principal::Principal;
use crate::layer::cache::webdav;
use crate::layer::represent::classify as represented;
use crate::limit::cells::Kind;
use crate::limit::tier::Tier;
use crate::message::inbound::{Peer, Refused};
use crate::policy::loose;
use crate::policy::pattern::{Methods, Pattern};
use crate::policy::when::{Asked, When};
use crate::policy::{RoutePolicy, path};
use crate::represent::coding::Negotiated;
use crate::runtime::clock::{self, Instant};
use crate::state::live_policy::Snapshot;
use facts::{
    AskedAs, CodingFacts, Exemption, Facts, Fate, Forwarded, LimitFacts, Mismatch, PathFacts, QuotaFacts,
    RouteFacts, SkippedRoute, Token, UpstreamFacts,
};
use head::SampleRequest;

/// Maximum routes that are listed as not matching.
const MAX_ROUTES: usize = 100;

/// Lets a request arrive, or returns why it is refused. It is neither counted nor logged.
pub(super) fn arrive(
    sample: &SampleRequest,
    (protocol, now): (&'static str, Instant),
    snapshot: &Arc<Snapshot>,
    sink: &Rc<Sink>,
) -> Result<Observed, Refused> {
    let tls = sample.uri.scheme_str() == Some("https");
    let peer = Rc::new(Peer::new(sample.client, tls));
    let server = &snapshot.policy.server;
    let mut inbound = head::request(sample, server.settings.limits, (peer, now))?;
    if protocol == HTTP_2 {
        *inbound.request.version_mut() = Version::HTTP_2;
    }
    let headers = inbound.request.headers();
    let info = RequestInfo {
        started: now,
        id: request_id(None),
        id_is_ours: true,
        method: sample.method.clone(),
        target: inbound.request.uri().path_and_query().cloned(),
        client: forwarded::client_ip(headers, sample.client.ip().to_canonical(), |ip| server.trusts(ip)),
        tls,
        protocol,
        grpc: grpc::is_call(&sample.method, headers),
        trace: None,
        trace_state: None,
        snapshot: snapshot.clone(),
    };
    let record = Rc::new(RequestRecord::uncounted(info, sink.clone()));
    if let Some(claims) = &sample.claims {
        record.assume_claims(claims.clone());
    }
    Ok(Observed { inbound, record })
}

/// Collects the facts about a request.
pub(crate) fn explain(sample: &SampleRequest, snapshot: &Arc<Snapshot>, sink: &Rc<Sink>) -> Facts {
    let SampleRequest { method, uri, client, .. } = sample;
    let observed = match arrive(sample, ("HTTP/1.1", clock::now()), snapshot, sink) {
        Ok(observed) => observed,
        Err(refused) => return Facts::refused(refused.status, refused.to_string()),
    };
    let headers = observed.inbound.request.headers();
    let host = host::text(headers).to_owned();
    // The conditions of routes are evaluated on the fields as they were received.
    let fields_received = headers.clone();
    let (record, grpc) = (observed.record.clone(), observed.record.info.grpc);
    let assumed_host = sample.names_no_host().then(|| host.clone());
    let normal = match path::normalise(uri.path()) {
        Ok(read) => read,
        Err(error) => {
            let refused = Facts::refused(StatusCode::BAD_REQUEST, error.to_string());
            return Facts { assumed_host, ..refused };
        }
    };
    let loose = Some(loose::reading(&normal.normal)).filter(|loose| normal.is_odd && *loose != normal.normal);
    let path = PathFacts { given: uri.path().to_owned(), normal: normal.normal.to_string(), loose };
    let decided = route::decide(observed);
    let trusted = snapshot.policy.server.trusts(client.ip());
    let conditions = Asked { query: uri.query(), headers: &fields_received, trusted };
    let route = route_facts(snapshot, record.route_policy(), (method, &host, &path.normal), conditions);
    let fate = match decided {
        Err(error) => Fate::Refused { status: rescue::status(&error), detail: error.to_string() },
        Ok(Decision::Respond(response)) => {
            let location = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            Fate::Responded { status: response.status(), location: location.unwrap_or("").to_owned() }
        }
        Ok(Decision::Below(mut routed)) => {
            Fate::Forwarded(Box::new(forwarded_facts(sample, &mut routed, grpc, sink)))
        }
    };
    Facts { assumed_host, path: Some(path), route: Some(route), fate }
}

fn forwarded_facts(sample: &SampleRequest, routed: &mut Routed, grpc: bool, sink: &Rc<Sink>) -> Forwarded {
    let is_dropped = |name: &HeaderName| {
        let odd = name.as_str().contains('_') || name == "proxy";
        odd && !routed.request.headers().contains_key(name)
    };
    let dropped = sample.fields.iter().map(|(name, _)| name).filter(|name| is_dropped(name)).cloned();
    let dropped = dropped.collect();
    let rewritten = routed
        .rewritten_by
        .as_ref()
        .map(|before| (before.label.as_str().to_owned(), routed.request.uri().to_string()));
    let upstream = upstream_facts(routed);
    let (token, credentials, principal) = principal_facts(routed);
    let is_shared = routed.record.info.snapshot.policy.hashes_are_shared;
    let principal_hash = principal.as_ref().filter(|_| is_shared);
    let principal_hash = principal_hash.map(|found| key::principal_hash(&found.partition));
    let host = host::text(routed.request.headers()).to_owned();
    let limits = limit_facts(routed);
    // Reading the wanted representation edits the fields for the upstream, as it does before the cache is asked.
    let coding = coding_facts(routed);
    Forwarded {
        dropped,
        rewritten,
        upstream,
        token,
        credentials,
        principal,
        principal_hash,
        destination: webdav::destination_path(routed),
        host,
        limits,
        coding,
        cache: cached::cache(routed, grpc, &sink.shared_state.cache),
        invalidation: cached::invalidation(routed, &sample.method),
    }
}

fn route_facts(
    snapshot: &Snapshot,
    found: &RoutePolicy,
    asked: (&Method, &str, &str),
    conditions: Asked<'_>,
) -> RouteFacts {
    let routes = &snapshot.policy.routes.routes;
    let is_found = |route: &Arc<RoutePolicy>| std::ptr::eq(&**route, found);
    let order = routes.iter().position(is_found).unwrap_or(routes.len());
    let held = found
        .when
        .as_ref()
        .map_or_else(Vec::new, |when| when.conditions().map(|condition| condition.to_string()).collect());
    let skipped = routes.iter().enumerate().take(order.min(MAX_ROUTES)).filter_map(|(at, route)| {
        let pattern = route.pattern.as_ref()?;
        let why = mismatch(pattern, asked).or_else(|| unmet(route.when.as_deref()?, conditions))?;
        Some(SkippedRoute { position: at + 1, pattern: written(pattern, route), why })
    });
    RouteFacts {
        position: order + 1,
        total: routes.len() - 1,
        pattern: found.pattern.as_ref().map(|pattern| written(pattern, found)),
        conditions: held,
        skipped: skipped.collect(),
    }
}

/// Returns the patterns of all routes in configured order, as [`RouteFacts`] has them.
pub(crate) fn patterns(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let routes = snapshot.policy.routes.routes.iter();
    routes.filter_map(|route| route.pattern.as_ref().map(|pattern| written(pattern, route)))
}

fn written(pattern: &Pattern, route: &RoutePolicy) -> String {
    let methods = match &pattern.methods {
        Methods::Any => "*".to_owned(),
        Methods::Only(methods) => methods.iter().map(Method::as_str).collect::<Vec<_>>().join(","),
    };
    format!("{methods} {}", route.label)
}

fn mismatch(pattern: &Pattern, (method, host, path): (&Method, &str, &str)) -> Option<Mismatch> {
    if !pattern.template.takes(path) {
        return Some(Mismatch::Path);
    }
    if !pattern.host.takes(host) {
        return Some(Mismatch::Host);
    }
    (!pattern.methods.contains(method)).then_some(Mismatch::Method)
}

/// Returns the condition of `when` that a request does not meet.
fn unmet(when: &When, asked: Asked<'_>) -> Option<Mismatch> {
    when.unmet(asked).map(|condition| Mismatch::Condition(condition.to_string()))
}

fn upstream_facts(routed: &Routed) -> Option<UpstreamFacts> {
    let policy = &routed.record.info.snapshot.policy;
    let upstream = policy.upstreams.get(routed.route.upstream.unwrap_or(0))?;
    let timeout = routed.route.timeout.unwrap_or(upstream.response_timeout);
    Some(UpstreamFacts {
        name: upstream.name.to_string(),
        urls: upstream.endpoints.iter().map(|endpoint| endpoint.url.clone()).collect(),
        timeout: (!routed.route.stream).then_some(timeout),
    })
}

/// Returns the state of the token, the credentials that identify the sender, and its principal.
fn principal_facts(routed: &Routed) -> (Token, Vec<String>, Option<Principal>) {
    let policy = &routed.record.info.snapshot.policy;
    let headers = routed.request.headers();
    let verified = routed.record.verified_claims(headers);
    let token = match verified {
        Err(_) => Token::Invalid,
        Ok(Some(_)) => Token::Verified,
        Ok(None) if policy.identity.proves() => Token::Absent,
        Ok(None) => Token::NotConfigured,
    };
    let claims = verified.as_ref().ok().and_then(Option::as_ref);
    (token, policy.identity.present(headers, claims), policy.identity.principal(headers, claims))
}

fn limit_facts(routed: &Routed) -> Option<LimitFacts> {
    let policy = &routed.record.info.snapshot.policy;
    let limits = &routed.route.limits;
    if !policy.limits.enabled && limits.concurrency.is_none() {
        return None;
    }
    let Caller { key, tier, rejected } = Caller::identify(routed, &policy.limits);
    let listed = policy.limits.listed.values().find(|listed| listed.partition == key.hash);
    let key_name = listed.and_then(|listed| listed.name.clone());
    let caller = match (&key_name, key.kind) {
        (Some(name), _) => AskedAs::Key(name.clone()),
        (None, Kind::Ip) => AskedAs::Address(routed.record.info.client),
        (None, _) if policy.hashes_are_shared => AskedAs::Key(format!("{:032x}", key.hash)),
        (None, _) => AskedAs::Unknown,
    };
    let exemption = match (limits.exempt, routed.readings_differ) {
        (false, _) => Exemption::NotGiven,
        (true, false) => Exemption::Given,
        (true, true) => Exemption::Withheld,
    };
    let exempt = exemption == Exemption::Given;
    Some(LimitFacts {
        caller,
        kind: key.kind,
        key_name,
        tier: tier.name.to_string(),
        shadow: tier.shadow,
        rejected: rejected && !exempt && !tier.shadow,
        exemption,
        quotas: if exempt { Vec::new() } else { quota_facts(tier, routed) },
        cost: limits.cost.get(),
        max_in_flight: limits.concurrency.map(|concurrency| concurrency.max),
    })
}

fn quota_facts(tier: &Tier, routed: &Routed) -> Vec<QuotaFacts> {
    let quotas = tier.limits_on(&routed.route.limits.named).map(|(_, limit)| QuotaFacts {
        name: limit.name.clone(),
        count: limit.quota.count,
        period: limit.quota.period,
        burst: limit.quota.burst.get(),
    });
    quotas.collect()
}

fn coding_facts(routed: &mut Routed) -> CodingFacts {
    let min_size = routed.record.info.snapshot.policy.compression.min_size;
    match represented::RepresentationRequest::read(routed) {
        Err(error) => {
            let error = error.into();
            CodingFacts::Refused(rescue::status(&error), error.to_string())
        }
        Ok(asked) => match asked.coding {
            None => CodingFacts::Off,
            Some((_, Negotiated::Identity)) => CodingFacts::NotAccepted,
            Some((_, Negotiated::Nothing)) => CodingFacts::NothingAccepted,
            Some((_, Negotiated::Coded(coding, _))) => CodingFacts::Chosen { coding, min_size },
        },
    }
}
