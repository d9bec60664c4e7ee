//! Finds the route of a request, by the normal and the loose reading of its path, and the target for the upstream.

use std::net::IpAddr;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode};

use super::record::RequestRecord;
use crate::fields::host;
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::policy::loose;
use crate::policy::path::{self, NormalPath};
use crate::policy::table::{Condition, Order};
use crate::policy::when::{Asked, Outcomes};
use crate::policy::{Action, RoutePolicy, Routes};

/// The route of a request.
#[derive(Default)]
pub(super) struct Found {
    pub order: Option<Order>,
    pub rewritten_by: Option<Arc<RoutePolicy>>,
    /// Whether a loose reading of the path matches another route.
    pub readings_differ: bool,
    /// The route of the loose reading that refuses the request, with the status of its `deny`; without one, it is for
    /// other clients.
    pub denied: Option<(Order, Option<StatusCode>)>,
    /// A number for the outcomes of every `when` that was evaluated; see [`Outcomes::number`].
    pub whens: u64,
}

/// A search for the route of one request.
struct Matching<'a> {
    routes: &'a Routes,
    method: &'a Method,
    host: &'a str,
    asked: Asked<'a>,
    client: IpAddr,
    outcomes: Outcomes,
}

impl Matching<'_> {
    /// Finds the first route at or after `from` by the normal reading of a path.
    fn find(&mut self, path: &str, from: Order) -> Option<Order> {
        let (method, host, mut condition) = self.parts();
        condition.routes.table.find_where((method, host, path), from, &mut condition)
    }

    fn parts(&mut self) -> (&Method, &str, Evaluate<'_>) {
        let Matching { routes, method, host, asked, outcomes, .. } = self;
        (method, host, Evaluate { routes, asked: *asked, outcomes })
    }

    /// Compares the route of the normal reading, `found.order`, with that of the loose one (see
    /// [`crate::policy::loose`]).
    fn read_loosely(&mut self, found: &mut Found, path: (&str, bool), from: Order) {
        let (normal, is_odd) = path;
        if !is_odd {
            let (method, host, mut condition) = self.parts();
            let loose = &condition.routes.loose;
            let other = loose.find_plain((method, host, normal), (from, found.order), &mut condition);
            return self.compare(found, other, normal);
        }
        let read = loose::reading(normal);
        let other = self.find_loosely(&read, from);
        self.compare(found, other, &read);
    }

    fn find_loosely(&mut self, read: &str, from: Order) -> Option<Order> {
        let (method, host, mut condition) = self.parts();
        condition.routes.loose.find((method, host, read), from, &mut condition)
    }

    fn compare(&mut self, found: &mut Found, other: Option<Order>, read: &str) {
        if other == found.order {
            return;
        }
        found.readings_differ = true;
        let Some(order) = other else { return };
        let routes = self.routes;
        let route = routes.routes.get(order as usize);
        found.denied = match (route.map(|route| &route.action), routes.loose.template(order)) {
            (Some(Action::Rewrite(to)), Some(template)) => {
                let read = loose::reading(&to.fill(template, read));
                let next = self.find_loosely(&read, order + 1);
                let through = denial(routes, order, self.client);
                through.or_else(|| next.and_then(|next| denial(routes, next, self.client)))
            }
            _ => denial(routes, order, self.client),
        };
    }
}

/// Evaluates the conditions of routes for one request.
struct Evaluate<'a> {
    routes: &'a Routes,
    asked: Asked<'a>,
    outcomes: &'a mut Outcomes,
}

impl Condition for Evaluate<'_> {
    fn holds(&mut self, order: Order) -> bool {
        let when = self.routes.routes.get(order as usize).and_then(|route| route.when.as_ref());
        when.is_none_or(|when| self.outcomes.evaluate(order, when, self.asked))
    }
}

/// Returns the refusal of a client's request by a route: the status of its `deny`, or none if it is for other clients.
fn denial(routes: &Routes, order: Order, client: IpAddr) -> Option<(Order, Option<StatusCode>)> {
    let route = routes.routes.get(order as usize)?;
    match route.action {
        Action::Deny(status) => Some((order, Some(status))),
        _ => (!route.admits(client)).then_some((order, None)),
    }
}

/// Returns the route of a request, and the target for the upstream. `trusted`: the request comes from a trusted proxy.
pub(super) fn match_route(
    routes: &Routes,
    request: &Request<Body>,
    record: &RequestRecord,
    trusted: bool,
) -> Result<(Found, PathAndQuery), BoxError> {
    // Errors before a route is found are counted as matching none.
    record.route.set_route(None);
    let given = request.uri();
    if given.path() == "*" {
        return Ok((Found::default(), PathAndQuery::from_static("*")));
    }
    let NormalPath { normal, onward, is_odd } = path::normalise(given.path())?;
    let headers = request.headers();
    let mut matching = Matching {
        routes,
        method: request.method(),
        host: host::text(headers),
        asked: Asked { query: given.query(), headers, trusted },
        client: record.info.client,
        outcomes: Outcomes::default(),
    };
    let order = matching.find(&normal, 0);
    record.route.set_route(order);
    let mut found = Found { order, ..Found::default() };
    matching.read_loosely(&mut found, (&normal, is_odd), 0);
    let route = order.and_then(|order| routes.routes.get(order as usize));
    if let (Some(order), Some(route)) = (order, route)
        && let (Action::Rewrite(to), Some(pattern)) = (&route.action, &route.pattern)
    {
        let onward = to.fill(&pattern.template, &onward);
        let normal = to.fill(&pattern.template, &normal);
        // Matching continues once, with the routes below. A second rewrite is not followed.
        let next = matching.find(&normal, order + 1);
        record.route.set_route(next.or(Some(order)));
        record.route.set_rewritten_by(order);
        (found.order, found.rewritten_by) = (next, Some(route.clone()));
        // A denial of the original path stays in force.
        if found.denied.is_none() {
            matching.read_loosely(&mut found, (&normal, path::is_odd(&normal)), order + 1);
        }
        found.whens = matching.outcomes.number(found.order);
        return Ok((found, with_query(&onward, given.query())?));
    }
    found.whens = matching.outcomes.number(found.order);
    let target = match given.path_and_query() {
        // An absolute-form target may have no path (RFC 9112 3.2.1).
        Some(target) if target.path() == onward && target.as_str().starts_with('/') => target.clone(),
        _ => with_query(&onward, given.query())?,
    };
    Ok((found, target))
}

fn with_query(path: &str, query: Option<&str>) -> Result<PathAndQuery, BoxError> {
    let target = match query {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    target.map_err(Into::into)
}
