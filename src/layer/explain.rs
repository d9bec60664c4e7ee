//! "Why?": what Pillion would do with a request, and by which line of its configuration. The request goes through the
//! same decisions as any other, and to no app.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Version, header};

use super::cache::asked::{self, Asked};
use super::limit::caller::Caller;
use super::live::Snapshot;
use super::record::{Beginning, Record, Sink, request_id};
use super::represent::asked as represented;
use super::route::{self, Decision};
use super::{Observed, Routed};
use crate::body::Body;
use crate::cache::key;
use crate::cache::terms::{Override, Scope};
use crate::clock;
use crate::fields::host;
use crate::inbound::{Inbound, Peer};
use crate::limit::cells::Kind;
use crate::limit::tier::Tier;
use crate::policy::cache::is_safe;
use crate::policy::template::Pattern;
use crate::policy::{RoutePolicy, path};
use crate::represent::coding::Negotiated;

/// Routes that were not taken are listed as far as this.
const MOST_ROUTES: usize = 100;

/// What is asked of a running Pillion beside, under the same names.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    /// Each with a name, and one line or several.
    pub parts: Vec<(&'static str, Vec<String>)>,
    /// Who its caller is to the limits, if they have any.
    pub caller: Option<AskedAs>,
}

/// As what a running Pillion can be asked about a caller.
#[derive(Clone, Debug)]
pub enum AskedAs {
    /// A name of the file of keys, an address, or the partition key where all processes make the same.
    Key(String),
    /// Not at all: its partition key is another in each process.
    Unknown,
}

impl Explanation {
    fn say(&mut self, part: &'static str, line: impl Into<String>) {
        match self.parts.last_mut() {
            Some((known, lines)) if *known == part => lines.push(line.into()),
            _ => self.parts.push((part, vec![line.into()])),
        }
    }
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (part, lines) in &self.parts {
            for (at, line) in lines.iter().enumerate() {
                writeln!(f, "{:<12} {line}", if at == 0 { part } else { "" })?;
            }
        }
        Ok(())
    }
}

/// Explains a request that comes from `client`.
pub fn explain(
    request: Request<Body>,
    client: SocketAddr,
    snapshot: &Arc<Snapshot>,
    sink: &Rc<Sink>,
) -> Explanation {
    let mut told = Explanation::default();
    let now = clock::now();
    let beginning = Beginning {
        started: now,
        id: request_id(None),
        id_is_ours: true,
        method: request.method().clone(),
        target: request.uri().path_and_query().cloned(),
        client: client.ip().to_canonical(),
        tls: false,
        protocol: "HTTP/1.1",
        grpc: false,
        trace: None,
    };
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let host = host::text(request.headers()).to_owned();
    // One that is neither counted nor logged.
    let record = Rc::new(Record::begin(beginning, snapshot.clone(), sink.clone()).behind(now));
    let inbound = Inbound {
        request: Box::new(request),
        peer: Rc::new(Peer::new(client, false)),
        received: now,
        upgrade: None,
        takes_trailers: false,
        refused: None,
    };
    let normal = path::normalise(uri.path()).map(|path| path.normal.into_owned());
    match &normal {
        Ok(normal) if normal != uri.path() => {
            told.say("path", format!("{} is matched as {normal}", uri.path()))
        }
        Ok(_) => {}
        Err(error) => {
            told.say("refused", format!("400: {error}"));
            return told;
        }
    }
    let normal = normal.unwrap_or_default();
    let decided = route::decide(Observed { inbound, record: record.clone() });
    let found = record.route();
    explain_route(&mut told, snapshot, found, (&method, &host, &normal));
    match decided {
        Err(error) => told.say("refused", error.to_string()),
        Ok(Decision::Answer(response, _)) => {
            let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("");
            told.say("answered", format!("{} here, {to}", response.status()));
        }
        Ok(Decision::Below(mut routed)) => {
            if let Some(before) = &routed.rewritten_by {
                told.say("rewritten", format!("by {} to {}", before.label, routed.request.uri()));
            }
            explain_upstream(&mut told, &routed);
            explain_caller(&mut told, &routed);
            explain_coding(&mut told, &mut routed);
            explain_cache(&mut told, &routed, &sink.lasting.cache);
            explain_invalidation(&mut told, &routed, &method);
        }
    }
    told
}

fn explain_route(
    told: &mut Explanation,
    snapshot: &Snapshot,
    found: &RoutePolicy,
    asked: (&Method, &str, &str),
) {
    let routes = &snapshot.policy.routes.routes;
    let is_found = |route: &Arc<RoutePolicy>| std::ptr::eq(&**route, found);
    let order = routes.iter().position(is_found).unwrap_or(routes.len());
    match &found.pattern {
        Some(pattern) => {
            told.say("route", format!("{} of {}: {}", order + 1, routes.len() - 1, written(pattern, found)))
        }
        None => told.say("route", "none matches: the defaults hold".to_owned()),
    }
    for (at, route) in routes.iter().take(order).take(MOST_ROUTES).enumerate() {
        if let Some(pattern) = &route.pattern
            && let Some(why) = mismatch(pattern, asked)
        {
            told.say("route", format!("not {}, {}: {why}", at + 1, written(pattern, route)));
        }
    }
}

fn written(pattern: &Pattern, route: &RoutePolicy) -> String {
    use crate::policy::template::Methods;
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

fn explain_upstream(told: &mut Explanation, routed: &Routed) {
    let policy = &routed.record.snapshot.policy;
    let Some(upstream) = policy.upstreams.get(routed.route.upstream.unwrap_or(0)) else { return };
    let urls: Vec<&str> = upstream.endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect();
    let mut line = format!("{} ({})", upstream.name, urls.join(", "));
    let timeout = routed.route.timeout.unwrap_or(upstream.response_timeout);
    let _ = write!(line, ", answers within {timeout:?}");
    told.say("app", line);
}

fn explain_caller(told: &mut Explanation, routed: &Routed) {
    let policy = &routed.record.snapshot.policy;
    let limits = &routed.route.limits;
    let headers = routed.request.headers();
    match routed.record.proven(headers) {
        Err(_) => told.say(
            "token",
            "there is one, and it does not verify: it proves nothing, and the cache is passed by",
        ),
        Ok(Some(_)) => told.say("token", "it verifies"),
        Ok(None) if policy.identity.proves() => told.say("token", "there is none"),
        Ok(None) => {}
    }
    let claims = routed.record.proven(headers).as_ref().ok().and_then(Option::as_ref);
    let present = policy.identity.present(headers, claims);
    match present.is_empty() {
        true => told.say("principal", "none: the request carries none of identity.principal"),
        false => told.say("principal", format!("the keyed hash of {}", present.join(" and "))),
    }
    if !policy.limits.enabled && limits.concurrency.is_none() {
        told.say("limits", "none: no tier is written");
        return;
    }
    let Caller { key, tier, rejected } = Caller::of(routed, &policy.limits);
    let listed = policy.limits.listed.values().find(|listed| listed.partition == key.hash);
    let named = listed.and_then(|listed| listed.name.clone());
    told.caller = Some(match (named, key.kind) {
        (Some(name), _) => AskedAs::Key(name),
        (None, Kind::Ip) => AskedAs::Key(routed.record.client.to_string()),
        (None, _) if policy.hashes_are_shared => AskedAs::Key(format!("{:032x}", key.hash)),
        (None, _) => AskedAs::Unknown,
    });
    let name =
        listed.and_then(|listed| listed.name.as_deref()).map_or(String::new(), |name| format!(" ({name})"));
    told.say("limits", format!("as {}{name}, tier {:?}", key.kind.as_str(), tier.name));
    if rejected && !limits.exempt && !tier.shadow {
        told.say("limits", "401: its API key is not listed");
    }
    if limits.exempt {
        told.say("limits", "limits = \"none\": no quota holds here");
    }
    explain_limits(told, tier, routed);
}

fn explain_limits(told: &mut Explanation, tier: &Tier, routed: &Routed) {
    let limits = &routed.route.limits;
    for (_, limit) in tier.limits_on(&limits.named).filter(|_| !limits.exempt) {
        let quota = &limit.quota;
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
        told.say("limits", format!("at most {} in flight on this route", concurrency.most));
    }
}

fn explain_coding(told: &mut Explanation, routed: &mut Routed) {
    let policy = routed.record.snapshot.policy.compression.clone();
    match represented::Asked::read(routed) {
        Err(error) => told.say("coding", error.to_string()),
        Ok(asked) => match asked.coding {
            None => told.say("coding", "none: compress is off here, or the request says no-transform"),
            Some((_, Negotiated::Identity)) => {
                told.say("coding", "none: the client asks for none of compression.codings")
            }
            Some((_, Negotiated::Nothing)) => {
                told.say("coding", "406: it refuses every coding and the content as it is")
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

fn explain_cache(told: &mut Explanation, routed: &Routed, cache: &Arc<crate::cache::Cache>) {
    let settings = &routed.record.snapshot.policy.cache;
    if !settings.enabled {
        told.say("cache", "off: cache.enabled is false");
        return;
    }
    let terms = &routed.route.cache.terms;
    let scope = match terms.scope {
        Scope::Auto => {
            "auto: one copy for all where nothing says who asks; else only what says that it is for all"
        }
        Scope::Shared => "shared: one copy for all",
        Scope::User => "user: one copy for each principal",
        Scope::Off => "off",
    };
    match Asked::of(routed, cache) {
        Asked::Write => told.say("cache", "a write: it is never answered from the cache"),
        Asked::Content => told.say("cache", format!("scope {scope}; the content is part of the key")),
        Asked::Pass(why) => {
            told.say("cache", format!("passed by: {} (scope {scope})", why.sentence()));
            return;
        }
        Asked::Read(read) => {
            told.say("cache", format!("scope {scope}"));
            if read.asker.credentials && terms.scope == Scope::Auto {
                told.say(
                    "cache",
                    "it says who asks: it gets and leaves only public, s-maxage or must-revalidate",
                );
            }
            if read.directives.no_store {
                told.say("cache", "the request says no-store: nothing of it is stored");
            }
            if let Some(shown) = key::read(&read.key) {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let query =
                    if shown.query.is_empty() { String::new() } else { format!("?{}", text(shown.query)) };
                let whose = if shown.personal { ", of this principal" } else { "" };
                told.say("key", format!("{}{}{query}{whose}", text(shown.host), text(shown.path)));
            }
            let principal = read.principal.as_ref();
            let (_, tags) = asked::marks(routed, cache, principal);
            let names: Vec<&str> = tags.iter().map(AsRef::as_ref).collect();
            match names.is_empty() {
                true => told.say("tags", "none but those the app sends"),
                false => told.say("tags", names.join(", ")),
            }
        }
    }
    explain_lifetime(told, routed);
}

fn explain_lifetime(told: &mut Explanation, routed: &Routed) {
    let terms = &routed.route.cache.terms;
    let heuristic = routed.record.snapshot.policy.cache.heuristic_max;
    match terms.ttl {
        Some(ttl) => {
            let over = match terms.overrides {
                Override::None => "where the app says nothing of it",
                Override::Lifetime => "whatever max-age, no-cache and Expires say (override = \"lifetime\")",
                Override::NoStore => "whatever max-age, no-cache, Expires and no-store say (override = \"no-store\")",
            };
            told.say("lifetime", format!("{ttl:?}, by the route, {over}"));
        }
        None => told.say("lifetime", format!("by the app's Cache-Control or Expires; else a tenth of the time since Last-Modified, {heuristic:?} at most")),
    }
    for (status, ttl) in &terms.ttl_by_status {
        told.say("lifetime", format!("{ttl:?} for {}", status.as_u16()));
    }
    let stale =
        [("while it is asked again", terms.stale_while_revalidate), ("when it fails", terms.stale_if_error)];
    for (when, window) in stale.iter().filter(|(_, window)| *window > Duration::ZERO) {
        told.say("lifetime", format!("then stale for {window:?} {when}, where the app says nothing of it"));
    }
}

fn explain_invalidation(told: &mut Explanation, routed: &Routed, method: &Method) {
    let policy = &routed.record.snapshot.policy;
    let Ok(normal) = path::normalise(routed.request.uri().path()) else { return };
    let host = host::text(routed.request.headers());
    let writes = !is_safe(method);
    let would = if writes { "" } else { "a write here would take away " };
    told.say("invalidates", format!("{would}its own path: {}", normal.normal));
    for rule in &policy.invalidate {
        if !rule.on.template.takes(&normal.normal) || !rule.on.host.takes(host) {
            continue;
        }
        // Of a read, it is told what any write would do.
        if writes && !rule.on.methods.contains(method) {
            continue;
        }
        let tags = rule.tags.iter().map(|tag| tag.fill(&normal.normal));
        let paths = rule.paths.iter().map(|path| {
            format!("{}{}", path.path.fill(&normal.normal), if path.prefix { "/**" } else { "" })
        });
        let all: Vec<String> = tags.chain(paths).collect();
        told.say("invalidates", format!("{} by {:?} ({})", all.join(", "), rule.label, rule.mode.as_str()));
    }
}

/// A request as a client would send it.
pub fn request(
    method: &Method,
    uri: &http::Uri,
    fields: &[(http::HeaderName, http::HeaderValue)],
) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method.clone();
    *request.version_mut() = Version::HTTP_11;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    *request.uri_mut() = target.parse().unwrap_or_default();
    if let Some(authority) = uri.authority()
        && let Ok(host) = http::HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    for (name, value) in fields {
        request.headers_mut().append(name, value.clone());
    }
    request
}
