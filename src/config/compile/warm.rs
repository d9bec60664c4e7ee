//! `[[warm]]`.

use std::collections::HashSet;
use std::time::Duration;

use http::Method;
use http::uri::{Authority, PathAndQuery};

use super::Compiler;
use crate::cache::settings::Scope;
use crate::config::file::File;
use crate::config::table_reader::Spanned;
use crate::policy::{Routes, Warmed, path};

/// Maximum number of responses that are kept, over all tables.
const MAX_TARGETS: usize = 1000;
/// Maximum number of hosts of one table.
const MAX_HOSTS: usize = 16;
/// Shortest interval.
const MIN_EVERY: Duration = Duration::from_secs(1);

impl Compiler<'_> {
    pub(super) fn warm(&mut self, file: &File, routes: Option<&Routes>) -> Vec<Warmed> {
        let mut all: Vec<Warmed> = Vec::new();
        let mut known = HashSet::new();
        for raw in &file.warm {
            if raw.paths.is_empty() {
                self.fail(Some(&raw.span), "[[warm]] without paths", "paths = [\"/\", \"/products?page=1\"]");
            }
            if let Some(every) = raw.every.as_ref().filter(|every| every.value < MIN_EVERY) {
                let message = format!("warm.every is {:?}", every.value);
                self.fail(every.span.as_ref(), message, "expected at least \"1s\"");
            }
            if let Some(further) = raw.hosts.get(MAX_HOSTS) {
                let message = format!("more than {MAX_HOSTS} hosts in one of [[warm]]");
                self.fail(
                    further.span.as_ref(),
                    message,
                    "divide them, or leave hosts out: then those count that \
                    clients ask for",
                );
            }
            let hosts: Vec<_> = raw.hosts.iter().filter_map(|at| self.warm_host(at)).collect();
            for at in &raw.paths {
                let Some(target) = self.warm_target(at) else { continue };
                if !known.insert((target.to_string(), hosts.clone())) {
                    let message = format!("{:?} is in [[warm]] twice", at.value);
                    self.fail(at.span.as_ref(), message, "remove one of them");
                }
                if let Some(routes) = routes {
                    self.warn_of_unstored(at, &target, &hosts, routes);
                }
                let every = raw.every.as_ref().map(|every| every.value);
                all.push(Warmed { target, hosts: hosts.clone(), every });
                if all.len() == MAX_TARGETS + 1 {
                    let message = format!("more than {MAX_TARGETS} paths in [[warm]]");
                    self.fail(at.span.as_ref(), message, "keep those that clients ask for most");
                }
            }
        }
        all
    }

    fn warm_target(&mut self, at: &Spanned<String>) -> Option<PathAndQuery> {
        let target =
            at.value.starts_with('/').then(|| PathAndQuery::try_from(at.value.as_str()).ok()).flatten();
        let target =
            target.filter(|target| !at.value.contains('#') && path::normalise(target.path()).is_ok());
        if target.is_none() {
            let message = format!("{:?} in [[warm]] is no path", at.value);
            self.fail(at.span.as_ref(), message, "expected a path with its query, like \"/products?page=1\"");
        }
        target
    }

    fn warm_host(&mut self, at: &Spanned<String>) -> Option<(bool, String)> {
        let (https, host) = match at.value.strip_prefix("https://") {
            Some(host) => (true, host),
            None => (false, at.value.strip_prefix("http://").unwrap_or(&at.value)),
        };
        let is_host = host.parse::<Authority>().is_ok_and(|host| !host.as_str().contains('@'));
        if !is_host {
            let message = format!("{:?} in warm.hosts is no host", at.value);
            self.fail(
                at.span.as_ref(),
                message,
                "expected a host like \"shop.example\" or \"https://shop.example\"",
            );
        }
        is_host.then(|| (https, host.to_owned()))
    }

    /// Warns of a path of which nothing is stored that a client without credentials would get.
    fn warn_of_unstored(
        &mut self,
        at: &Spanned<String>,
        target: &PathAndQuery,
        hosts: &[(bool, String)],
        routes: &Routes,
    ) {
        let host = hosts.first().map_or("", |(_, host)| host.as_str());
        let Ok(read) = path::normalise(target.path()) else { return };
        let Some(route) = routes.candidates(&Method::GET, host, &read.normal).next() else { return };
        let scope = match route.cache.route_settings.scope {
            Scope::Off => "off",
            Scope::User => "user",
            Scope::Auto | Scope::Shared => return,
        };
        let label = route.label.as_str();
        let message =
            format!("{:?} in [[warm]] has no effect: route {label:?} has scope {scope:?}", at.value);
        self.warn(at.span.as_ref(), message, "name paths whose responses are the same for all users");
    }
}
