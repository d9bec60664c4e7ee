//! The routes and the upstream that a location becomes.

use super::guards::{Guards, Verdict};
use super::location::Settings;
use super::matching::redirect;
use super::read::Directive;
use super::server::{Converter, Server};
use crate::cli::convert::output::{Route, Upstream, note};
use crate::cli::convert::values::{named, string, strings};

/// Says how a place is opened again whose guard has no equivalent.
const NO_GUARD: &str = "Pillion has no such guard, so nobody may come; once the app or `allow` keeps others out, put the \
    route's other lines in place of deny";
/// Says that a place is only open to some of those who could come.
const ONLY_BY_ADDRESS: &str = "Pillion has no such guard, so only the addresses in allow may come";

/// The methods of `limit_except`, as a route has them; GET has HEAD with it.
fn methods(excepts: &Directive) -> String {
    excepts.args.iter().map(|method| method.to_ascii_uppercase()).collect::<Vec<_>>().join(",")
}

impl Converter {
    /// Makes the routes of a location, one for each host.
    pub(super) fn route(
        &mut self,
        server: &Server<'_>,
        (place, path): (&str, &str),
        settings: Settings,
        directives: &[&Directive],
        mut comments: Vec<String>,
    ) {
        let mut route = Route::default();
        let (mut sent, mut excepts) = (None, None);
        for directive in directives {
            let mut line = |key: &str, value: String| route.lines.push((key.to_owned(), value));
            match (directive.name.as_str(), directive.arg(0)) {
                ("proxy_pass", _) => sent = Some(*directive),
                ("return", "301" | "302" | "303" | "307" | "308")
                    if redirect(directive.arg(1), path).is_some() =>
                {
                    let to = redirect(directive.arg(1), path).unwrap_or_default();
                    line("redirect", format!("{{ to = {}, status = {} }}", string(&to), directive.arg(0)));
                }
                ("return", status)
                    if status.parse().is_ok_and(|status: u16| (400..600).contains(&status)) =>
                {
                    line("deny", status.to_owned());
                }
                ("limit_except", _) => excepts = Some(*directive),
                ("root" | "alias" | "try_files" | "index" | "autoindex", _) => {
                    comments.push(note(
                        &directive.place,
                        &directive.shown(),
                        "Pillion serves no files; the app does",
                    ));
                }
                ("fastcgi_pass" | "uwsgi_pass" | "scgi_pass" | "grpc_pass", _) => {
                    comments.push(note(
                        &directive.place,
                        &directive.shown(),
                        "apps are spoken to in HTTP: http://, https://, h2c://",
                    ));
                }
                _ => comments.push(note(&directive.place, &directive.shown(), "")),
            }
        }
        // nginx returns and redirects before it looks who comes.
        let mut has_action = !route.lines.is_empty();
        let verdict = if has_action { Verdict::Open } else { settings.verdict() };
        let is_guarded = verdict != Verdict::Open || excepts.is_some();
        if !has_action {
            comments
                .extend(settings.guards.lost().into_iter().map(|lost| format!("{lost}: {ONLY_BY_ADDRESS}")));
        }
        if let Some(pass) = sent.filter(|_| !has_action) {
            match self.upstream(pass, &settings) {
                Some((upstream, uri)) => {
                    if upstream > 0 {
                        let name = string(&self.output.upstreams[upstream].name);
                        route.lines.push(("upstream".to_owned(), name));
                    }
                    let base = path.strip_suffix("**").unwrap_or(path);
                    if let Some(uri) = uri.filter(|uri| uri != base) {
                        let why = "the path is not changed here; a route with rewrite does that, and the routes below it then match the new path";
                        comments.push(note(&pass.place, &format!("proxy_pass ...{uri}"), why));
                    }
                }
                None => {
                    let why = "it has a variable; name an upstream in place of deny";
                    comments.push(note(&pass.place, &pass.shown(), why));
                    route.lines.push(("deny".to_owned(), "503".to_owned()));
                    has_action = true;
                }
            }
            if !has_action {
                settings.lines(&mut route, self.body_size.as_deref());
            }
        } else if !has_action && !is_guarded {
            // Nothing sends it anywhere: the remarks are all there is.
            self.output
                .notes
                .push(format!("{place}: its requests go to [upstream], as nothing is written for them"));
            self.output.notes.extend(comments);
            return;
        }
        let routes = match excepts.filter(|_| !has_action) {
            Some(excepts) => {
                let mut others = Guards::default();
                others.take(excepts.inner());
                let why = note(&excepts.place, &excepts.shown(), "");
                let named = self.guarded(&route, &verdict, place, comments);
                // Other methods are under both.
                let others = match (&verdict, others.verdict()) {
                    (Verdict::Closed(..), _) => verdict.clone(),
                    (_, others) => others,
                };
                let others = self.guarded(&route, &others, place, vec![why]);
                vec![(methods(excepts), named), ("*".to_owned(), others)]
            }
            None => vec![("*".to_owned(), self.guarded(&route, &verdict, place, comments))],
        };
        for (methods, route) in routes {
            for host in &server.hosts {
                let pattern = format!("{methods} {host}{path}");
                // A route that repeats the defaults is left out.
                let is_default = path == "/**" && host.is_empty() && methods == "*";
                if route.lines.is_empty() && route.comments.is_empty() && is_default {
                    continue;
                }
                self.output.routes.push(Route { pattern, ..route.clone() });
            }
        }
    }

    /// Returns a route with what its guards say.
    fn guarded(&mut self, route: &Route, verdict: &Verdict, place: &str, mut comments: Vec<String>) -> Route {
        let mut route = route.clone();
        match verdict {
            Verdict::Open => {}
            Verdict::Allow(who) => {
                let is_denied = route.lines.iter().any(|(key, _)| key == "deny");
                if !is_denied {
                    route.lines.push(("allow".to_owned(), strings(who)));
                }
            }
            Verdict::Closed(status, guards) => {
                route.lines = vec![("deny".to_owned(), (*status).to_owned())];
                route.comments.clear();
                for guard in guards {
                    comments.push(format!("{guard}: {NO_GUARD}"));
                    if !self.output.closed.iter().any(|closed| closed == place) {
                        self.output.closed.push(place.to_owned());
                    }
                }
            }
        }
        comments.append(&mut route.comments);
        Route { comments, ..route }
    }

    /// Returns the number of the upstream of a `proxy_pass`, and the path that it has. `None` if it has a variable.
    pub(super) fn upstream(
        &mut self,
        pass: &Directive,
        settings: &Settings,
    ) -> Option<(usize, Option<String>)> {
        let url = pass.arg(0);
        let (scheme, rest) = url.split_once("://")?;
        if url.contains('$') {
            return None;
        }
        let (authority, uri) = match rest.find('/').filter(|_| !rest.starts_with("unix:")) {
            Some(at) => (&rest[..at], Some(rest[at..].to_owned())),
            None => (rest, None),
        };
        let address = |address: &str| match address.strip_prefix("unix:") {
            Some(path) => format!("unix:{path}"),
            None => format!("{scheme}://{address}"),
        };
        let urls: Vec<String> = match self.groups.get(authority) {
            Some(addresses) => addresses.iter().map(|one| address(one)).collect(),
            None => vec![address(authority)],
        };
        if let Some(at) = self.output.upstreams.iter().position(|upstream| upstream.urls == urls) {
            return Some((at, uri));
        }
        let mut lines = Vec::new();
        if let Some(timeout) = &settings.connect_timeout {
            lines.push(("connect_timeout".to_owned(), string(timeout)));
        }
        if !settings.preserve_host {
            lines.push(("preserve_host".to_owned(), "false".to_owned()));
        }
        let name = named(authority);
        let is_taken = |name: &str| self.output.upstreams.iter().any(|upstream| upstream.name == name);
        let name = (1..)
            .map(|at| if at == 1 { name.clone() } else { format!("{name}-{at}") })
            .find(|name| !is_taken(name))?;
        self.output.upstreams.push(Upstream { name, urls, lines });
        Some((self.output.upstreams.len() - 1, uri))
    }
}
