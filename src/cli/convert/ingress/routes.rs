//! The routes and upstreams of Ingresses.

use super::annotations::Annotations;
use super::rule::{PathType, Rule, name, namespace, rules};
use crate::cli::convert::output::{Converted, Output, Route, Upstream};
use crate::cli::convert::values::{named, string, strings};
use crate::yaml::Node;

/// Says how a route is opened again.
const NO_GUARD: &str = "Pillion has no such guard, so nobody may come; once the app or `allow` keeps others out, put the \
    route's other lines in place of deny";
/// Says why a rewrite is not made.
const NO_REWRITE: &str = "a route with rewrite is tried again with the routes below, which cannot tell these requests from \
    others here; write the routes for the new paths in place of deny";

/// Converts Ingresses; `services` tell the numbers of named ports.
pub(super) fn convert(ingresses: &[&Node], services: &[&Node]) -> Result<Converted, String> {
    let mut converter = Converter { output: Output::default(), services };
    let mut all: Vec<(Rule<'_>, Annotations)> = Vec::new();
    let mut last = None;
    for ingress in ingresses {
        let place = name(ingress);
        let of = ingress.at(&["metadata", "name"]).and_then(Node::text).unwrap_or("ingress");
        let annotations = Annotations::new(ingress, &named(of));
        let notes = annotations.notes.iter().map(|note| format!("{place}: {note}"));
        converter.output.notes.extend(notes);
        converter.tls(ingress, &place);
        if annotations.is_canary {
            let note = format!("{place}: a canary; Pillion sends no share of the requests elsewhere");
            converter.output.notes.push(note);
            continue;
        }
        for limit in &annotations.limits {
            if !converter.output.limits.contains(limit) {
                converter.output.limits.push(limit.clone());
            }
        }
        if let Some(backend) = ingress.at(&["spec", "defaultBackend"]) {
            last.get_or_insert((*ingress, backend, annotations.clone()));
        }
        let rules = rules(ingress, &annotations.aliases)?;
        if rules.is_empty() && ingress.at(&["spec", "defaultBackend"]).is_none() {
            return Err(format!("{place}: it has neither rules nor a defaultBackend"));
        }
        all.extend(rules.into_iter().map(|rule| (rule, annotations.clone())));
    }
    all.sort_by_key(|(rule, _)| rule.order());
    converter.output.limit_key = Some("ip");
    converter.output.server.push(("listen".to_owned(), strings(&["[::]:8080".to_owned()])));
    // The default of ingress-nginx.
    converter.output.server.push(("max_body_size".to_owned(), string("1MiB")));
    let mut upstreams = Vec::new();
    for (rule, annotations) in &all {
        upstreams.push(converter.upstream(rule.ingress, rule.backend, annotations)?);
    }
    let default = match &last {
        Some((ingress, backend, annotations)) => Some(converter.upstream(ingress, backend, annotations)?),
        None => None,
    };
    let is_one = upstreams.iter().chain(&default).all(|upstream| *upstream == 0);
    let mut rewrites = Vec::new();
    for ((rule, annotations), upstream) in all.iter().zip(&upstreams) {
        converter.rule(rule, annotations, *upstream, is_one, &mut rewrites);
    }
    converter.output.routes.extend(rewrites);
    if all.iter().any(|(_, annotations)| annotations.allow.is_some() || !annotations.limits.is_empty()) {
        let note = "allow and limits go by the address of the client: list what stands in front in server.trusted_proxies.";
        converter.output.notes.push(note.to_owned());
    }
    converter.rest(last.map(|(ingress, _, annotations)| (ingress, annotations)), default, is_one);
    let text = converter.output.text("ingress");
    Ok(Converted { text, closed: converter.output.closed, open: converter.output.open })
}

struct Converter<'a> {
    output: Output,
    services: &'a [&'a Node],
}

impl Converter<'_> {
    fn tls(&mut self, ingress: &Node, place: &str) {
        for tls in ingress.at(&["spec", "tls"]).map(Node::items).unwrap_or_default() {
            let secret = tls.get("secretName").and_then(Node::text).unwrap_or("");
            let note = format!(
                "{place}: tls with the Secret {secret:?}: what stands in front ends TLS, or mount it and write \
                [server.tls] certificates"
            );
            self.output.notes.push(note);
        }
    }

    /// Returns the number of the upstream of a backend.
    fn upstream(
        &mut self,
        ingress: &Node,
        backend: &Node,
        annotations: &Annotations,
    ) -> Result<usize, String> {
        let place = name(ingress);
        let Some(service) = backend.at(&["service", "name"]).and_then(Node::text) else {
            return Err(format!("{place}: a backend is no service; Pillion sends requests to services"));
        };
        let port = backend.at(&["service", "port", "number"]).and_then(Node::number::<u16>);
        let by_name = backend.at(&["service", "port", "name"]).and_then(Node::text);
        let found = by_name.and_then(|port| self.named_port(ingress, service, port));
        let Some(port) = port.or(found) else {
            let port = by_name.unwrap_or("");
            return Err(format!(
                "{place}: the port {port:?} of Service {service} has no number; put the Service into the input too"
            ));
        };
        let host = match namespace(ingress) {
            "" => service.to_owned(),
            namespace => format!("{service}.{namespace}"),
        };
        let urls = vec![format!("{}://{host}:{port}", annotations.scheme)];
        let lines: Vec<(String, String)> = annotations
            .connect_timeout
            .iter()
            .map(|time| ("connect_timeout".to_owned(), string(time)))
            .collect();
        let is_it = |upstream: &Upstream| upstream.urls == urls && upstream.lines == lines;
        if let Some(at) = self.output.upstreams.iter().position(is_it) {
            return Ok(at);
        }
        let is_taken = |name: &str| self.output.upstreams.iter().any(|upstream| upstream.name == name);
        let name = named(service);
        let mut names = (1..).map(|at| if at == 1 { name.clone() } else { format!("{name}-{at}") });
        let name = names.find(|name| !is_taken(name)).unwrap_or_default();
        self.output.upstreams.push(Upstream { name, urls, lines });
        Ok(self.output.upstreams.len() - 1)
    }

    /// Looks the number of a port up among the Services of the input.
    fn named_port(&self, ingress: &Node, service: &str, port: &str) -> Option<u16> {
        let text =
            |node: &Node, key: &str| node.at(&["metadata", key]).and_then(Node::text).map(str::to_owned);
        let is_it = |node: &&&Node| {
            text(node, "name").as_deref() == Some(service)
                && text(node, "namespace")
                    .is_none_or(|of| of == namespace(ingress) || namespace(ingress).is_empty())
        };
        let ports = self.services.iter().find(is_it)?.at(&["spec", "ports"])?;
        let fits = |entry: &&Node| entry.get("name").and_then(Node::text) == Some(port);
        ports.items().iter().find(fits)?.get("port")?.number()
    }

    fn rule(
        &mut self,
        rule: &Rule<'_>,
        annotations: &Annotations,
        upstream: usize,
        is_one: bool,
        rewrites: &mut Vec<Route>,
    ) {
        let place = name(rule.ingress);
        let Rule { host, form, path, .. } = rule;
        let is_regex =
            annotations.is_regex || annotations.rewrite.as_ref().is_some_and(|to| to.contains('$'));
        let base = if is_regex { captured(path) } else { plain(path).map(|base| (base, 0)) };
        let Some((base, capture)) = base else {
            let why = "this regular expression matches no routes; write a path with {name} and **";
            self.output.notes.push(format!("{place}: path {path}: {why}"));
            if !annotations.guards.is_empty() || annotations.allow.is_some() {
                self.output.open.push(format!("{place}: path {path}: what it keeps out is let through"));
            }
            return;
        };
        if let Some(to) = annotations.root_redirect.as_deref().filter(|_| base.is_empty()) {
            self.output.routes.push(Route {
                comments: vec![format!("{place}: app-root")],
                pattern: format!("* {host}/"),
                lines: vec![("redirect".to_owned(), format!("{{ to = {}, status = 302 }}", string(to)))],
            });
        }
        let pattern = match form {
            PathType::Exact if !is_regex => format!("* {host}{path}"),
            _ => format!("* {host}{base}/**"),
        };
        let mut route = Route { pattern, ..self.treated(&place, annotations, upstream) };
        let is_open = route.lines.iter().all(|(key, _)| key != "deny" && key != "redirect");
        if let Some(to) = annotations.rewrite.as_deref().filter(|_| is_open) {
            let target = rewritten(to, capture);
            match target.filter(|_| is_one && annotations.allow.is_none()) {
                Some(to) => {
                    route.lines = vec![("rewrite".to_owned(), string(&to))];
                    return rewrites.push(route);
                }
                None => {
                    route.comments = vec![format!("{place}: rewrite-target {to}: {NO_REWRITE}")];
                    route.lines = vec![("deny".to_owned(), "503".to_owned())];
                }
            }
        }
        self.output.routes.push(route);
    }

    /// Returns a route without its pattern.
    fn treated(&mut self, place: &str, annotations: &Annotations, upstream: usize) -> Route {
        let mut route = Route::default();
        if !annotations.guards.is_empty() {
            let comment = |guard: &String| format!("{place}: {guard}: {NO_GUARD}");
            route.comments = annotations.guards.iter().map(comment).collect();
            route.lines.push(("deny".to_owned(), "403".to_owned()));
            if !self.output.closed.iter().any(|closed| closed == place) {
                self.output.closed.push(place.to_owned());
            }
            return route;
        }
        if let Some((to, status)) = &annotations.redirect {
            let redirect = format!("{{ to = {}, status = {status} }}", string(to));
            route.lines.push(("redirect".to_owned(), redirect));
            return route;
        }
        if upstream > 0 {
            route.lines.push(("upstream".to_owned(), string(&self.output.upstreams[upstream].name)));
        }
        route.lines.extend(annotations.allow.iter().map(|who| ("allow".to_owned(), strings(who))));
        route.lines.extend(annotations.lines.iter().cloned());
        route
    }

    /// Adds the route of all other requests.
    fn rest(&mut self, last: Option<(&Node, Annotations)>, upstream: Option<usize>, is_one: bool) {
        let has_rewrite =
            self.output.routes.iter().any(|route| route.lines.iter().any(|(key, _)| key == "rewrite"));
        let mut route = match (last, upstream) {
            (Some((ingress, annotations)), Some(upstream)) => {
                self.treated(&name(ingress), &annotations, upstream)
            }
            // Requests with a new path reach [upstream] when no route below takes them.
            _ if has_rewrite && is_one => {
                let note = "Requests that no rule matches reach the app; an ingress has 404 for them.";
                self.output.notes.push(note.to_owned());
                return;
            }
            _ => Route {
                comments: vec!["No rule matches the rest.".to_owned()],
                lines: vec![("deny".to_owned(), "404".to_owned())],
                ..Route::default()
            },
        };
        route.pattern = "* /**".to_owned();
        self.output.routes.push(route);
    }
}

/// Returns a path without the slashes at its end: a prefix matches whole segments with them and without.
fn plain(path: &str) -> Option<String> {
    let is_plain = path.starts_with('/') && !path.contains(['*', '{', '}', '(', '$', '[']);
    is_plain.then(|| path.trim_end_matches('/').to_owned())
}

/// Returns the literal beginning of a path that is written as ingress-nginx's documents do, such as `/api(/|$)(.*)`, and
/// the number of the capture with the rest; 0 if there is none.
fn captured(path: &str) -> Option<(String, u8)> {
    let path = path.strip_prefix('^').unwrap_or(path);
    let ends = [("(/|$)(.*)", 2), ("/(.*)", 1), ("(/.*)?", 1), ("/?(.*)", 1), ("", 0)];
    ends.iter().find_map(|(end, capture)| {
        let base = path.strip_suffix(end)?;
        let base = if base.is_empty() { String::new() } else { plain(base)? };
        Some((base, *capture))
    })
}

/// Returns the path of a rewrite as a route has it: the capture with the rest is what `**` matched.
fn rewritten(to: &str, capture: u8) -> Option<String> {
    match to.strip_suffix(&format!("${capture}")) {
        Some(base) if capture > 0 && !base.contains('$') => {
            Some(format!("{}/**", base.trim_end_matches('/')))
        }
        None if !to.contains('$') => Some(to.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrites_as_people_write_them() {
        for (path, to, wanted) in [
            ("/api(/|$)(.*)", "/$2", Some("/**")),
            ("/api(/|$)(.*)", "/v2/$2", Some("/v2/**")),
            ("/api(/|$)(.*)", "/$1", None),
            ("/api/(.*)", "/$1", Some("/**")),
            ("/api(/.*)?", "/x$1", Some("/x/**")),
            ("/api", "/", Some("/")),
            ("/(.*)", "/base/$1", Some("/base/**")),
            ("/api/(v[0-9]+)/(.*)", "/$2", None),
        ] {
            let made = captured(path).and_then(|(_, capture)| rewritten(to, capture));
            assert_eq!(made.as_deref(), wanted, "{path} {to}");
        }
        assert_eq!(captured("/api(/|$)(.*)"), Some(("/api".to_owned(), 2)));
        assert_eq!(plain("/a/"), Some("/a".to_owned()));
    }
}
