//! Servers and their locations, as upstreams and routes.

use std::collections::HashMap;

use super::guards::{Guards, Verdict};
use super::listen::{address, hosts, is_tls, redirects_to_https};
use super::location::Settings;
use super::matching::{Location, Match, matching, patterns};
use super::read::Directive;
use crate::cli::convert::output::{Converted, Output, Route, Zone, note};
use crate::cli::convert::values::{size, string, time};

/// Directives of nginx's process that have no meaning here.
const OF_PROCESS: &[&str] = &[
    "user",
    "worker_processes",
    "worker_rlimit_nofile",
    "pid",
    "events",
    "include",
    "types",
    "default_type",
    "types_hash_max_size",
    "server_names_hash_bucket_size",
    "load_module",
];

/// Converts directives.
#[derive(Default)]
pub(super) struct Converter {
    pub(super) output: Output,
    /// Addresses of `upstream` blocks by their names.
    pub(super) groups: HashMap<String, Vec<String>>,
    pub(super) zones: HashMap<String, Zone>,
    /// The maximum body size that most requests have.
    pub(super) body_size: Option<String>,
}

/// The parts that a server's locations have in common.
pub(super) struct Server<'a> {
    /// The host of each route, or one empty one.
    pub hosts: Vec<&'a str>,
    pub settings: Settings,
}

/// Returns the directive by which a server asks each client for a certificate.
fn verifies_clients(server: &Directive) -> Option<&Directive> {
    server.inner().iter().find(|directive| directive.name == "ssl_verify_client" && directive.arg(0) == "on")
}

/// Returns the file of the CA by which all servers with TLS check their clients, if all do.
fn client_ca(servers: &[&Directive]) -> Option<String> {
    let mut files = servers.iter().filter(|server| is_tls(server)).map(|server| {
        verifies_clients(server)?;
        let file = server.inner().iter().find(|directive| directive.name == "ssl_client_certificate")?;
        Some(file.arg(0))
    });
    let first = files.next()??;
    files.all(|file| file == Some(first)).then(|| first.to_owned())
}

/// Returns whether something keeps clients out in these directives or in their blocks.
fn guards_anything(directives: &[Directive]) -> bool {
    directives.iter().any(|directive| {
        Guards::has(directive)
            || refuses(directive)
            || directive.name == "ssl_verify_client"
            || guards_anything(directive.inner())
    })
}

/// Returns the location to which all requests of another one go that no file answers (`try_files $uri @app`).
fn named_location<'a>(directives: &[&Directive], all: &[Location<'a>]) -> Option<&'a Directive> {
    let last = directives.iter().find(|directive| directive.name == "try_files")?.args.last()?;
    let is_it = |location: &&Location<'a>| last.starts_with('@') && location.directive.arg(0) == last;
    all.iter().find(is_it).map(|location| location.directive)
}

/// Returns whether a directive refuses some requests of its location.
fn refuses(directive: &Directive) -> bool {
    match directive.name.as_str() {
        "limit_except" => true,
        "return" => directive.arg(0).parse().is_ok_and(|status: u16| status >= 400),
        _ => false,
    }
}

impl Converter {
    /// Converts the directives of a file.
    pub(super) fn convert(mut self, directives: &[Directive]) -> Converted {
        let mut all: Vec<&Directive> = Vec::new();
        for directive in directives {
            match directive.name.as_str() {
                "http" => all.extend(directive.inner()),
                name if OF_PROCESS.contains(&name) => {}
                _ => all.push(directive),
            }
        }
        let all: Vec<Directive> = all.into_iter().cloned().collect();
        all.iter().for_each(|directive| self.definition(directive));
        let mut settings = Settings::default();
        let (comments, left) = settings.take(&all);
        self.output.notes.extend(comments);
        self.limits(&all, &mut settings);
        let left: Vec<&Directive> =
            left.into_iter().filter(|directive| !OF_PROCESS.contains(&directive.name.as_str())).collect();
        self.body_size = Some(settings.body_size().unwrap_or("1MiB").to_owned());
        let servers: Vec<&Directive> =
            left.iter().copied().filter(|directive| directive.name == "server").collect();
        let that_serve = servers.iter().filter(|server| !redirects_to_https(server));
        if let [only] = that_serve.collect::<Vec<_>>()[..] {
            let mut inner = settings.clone();
            let _ = inner.take(only.inner());
            self.body_size = Some(inner.body_size().unwrap_or("1MiB").to_owned());
        }
        if settings.is_plain() {
            self.output.compression.push(("enabled".to_owned(), "false".to_owned()));
        }
        self.servers(&servers, &settings);
        for directive in left {
            if !matches!(directive.name.as_str(), "server" | "upstream" | "limit_req_zone" | "limit_req") {
                self.common(directive);
            }
        }
        if let Some(size) = self.body_size.clone() {
            self.output.server.push(("max_body_size".to_owned(), string(&size)));
        }
        let text = self.output.text("nginx");
        Converted { text, closed: self.output.closed, open: self.output.open }
    }

    /// Takes a directive that holds for the whole process.
    fn common(&mut self, directive: &Directive) {
        let (first, name) = (directive.arg(0), directive.name.as_str());
        let line = match name {
            "gzip_types" => {
                let mut types = vec!["text/html".to_owned()];
                types.extend(
                    directive
                        .args
                        .iter()
                        .map(|kind| if kind == "*" { "*/*".to_owned() } else { kind.clone() }),
                );
                types.dedup();
                Some((&mut self.output.compression, "types", crate::cli::convert::values::strings(&types)))
            }
            "gzip_min_length" => {
                size(first).map(|size| (&mut self.output.compression, "min_size", string(&size)))
            }
            "keepalive_timeout" => {
                time(first).map(|time| (&mut self.output.server, "idle_timeout", string(&time)))
            }
            "client_body_timeout" => {
                time(first).map(|time| (&mut self.output.server, "body_timeout", string(&time)))
            }
            "client_header_timeout" => {
                time(first).map(|time| (&mut self.output.server, "header_timeout", string(&time)))
            }
            "send_timeout" => {
                time(first).map(|time| (&mut self.output.server, "send_timeout", string(&time)))
            }
            "set_real_ip_from" => {
                let known = self.output.server.iter_mut().find(|(key, _)| key == "trusted_proxies");
                match known {
                    Some((_, list)) => {
                        list.insert_str(list.len() - 1, &format!(", {}", string(first)));
                        return;
                    }
                    None => {
                        Some((&mut self.output.server, "trusted_proxies", format!("[{}]", string(first))))
                    }
                }
            }
            "real_ip_header" | "real_ip_recursive" | "gzip_vary" | "gzip_proxied" | "gzip_comp_level"
            | "gzip_http_version" | "gzip_disable" => return,
            "proxy_cache_path" => {
                let why = "the cache is in memory; [cache] max_size bounds it";
                return self.output.note(&directive.place, &directive.shown(), why);
            }
            _ => None,
        };
        match line {
            Some((section, key, value)) => {
                section.retain(|(known, _)| known != key);
                section.push((key.to_owned(), value));
            }
            None => self.output.note(&directive.place, &directive.shown(), ""),
        }
    }

    fn servers(&mut self, servers: &[&Directive], settings: &Settings) {
        let has_tls = servers.iter().any(|server| is_tls(server));
        self.output.client_ca = client_ca(servers);
        let (mut plain, mut tls) = (Vec::new(), Vec::new());
        let mut serving = Vec::new();
        for server in servers {
            for listen in server.inner().iter().filter(|directive| directive.name == "listen") {
                let Some(address) = address(listen.arg(0)) else {
                    self.output.note(&listen.place, &listen.shown(), "Pillion listens on addresses");
                    continue;
                };
                let list = if listen.args.iter().any(|arg| arg == "ssl") { &mut tls } else { &mut plain };
                if !list.contains(&address) {
                    list.push(address);
                }
            }
            self.certificates(server);
            if has_tls && redirects_to_https(server) {
                self.output.server.push(("redirect_https".to_owned(), "true".to_owned()));
                continue;
            }
            serving.push(*server);
        }
        self.output.server.retain({
            let mut seen = false;
            move |(key, _)| key != "redirect_https" || !std::mem::replace(&mut seen, true)
        });
        if plain.is_empty() && tls.is_empty() && !servers.is_empty() {
            plain.push("[::]:80".to_owned());
        }
        self.output.server.insert(0, ("listen".to_owned(), crate::cli::convert::values::strings(&plain)));
        self.output.tls_listen = tls;
        // A server that takes any host stands behind those that take one. Without one that says so it is the first.
        let default = serving.iter().position(|server| hosts(server).is_empty()).unwrap_or(0);
        let (last, first): (Vec<_>, Vec<_>) =
            serving.iter().enumerate().partition(|(at, server)| *at == default || hosts(server).is_empty());
        self.tell_of_listeners(&serving);
        for (at, server) in first.into_iter().chain(last) {
            let hosts = if at == default { Vec::new() } else { hosts(server) };
            self.server(server, hosts, settings);
        }
    }

    /// Tells of guards of servers that nginx tells apart by their listeners alone: routes hold for all listeners.
    fn tell_of_listeners(&mut self, servers: &[&Directive]) {
        let names = |server: &Directive| hosts(server).into_iter().map(str::to_owned).collect::<Vec<_>>();
        for (at, server) in servers.iter().enumerate() {
            let own = names(server);
            let is_same = |other: &Vec<String>| {
                (own.is_empty() && other.is_empty()) || own.iter().any(|host| other.contains(host))
            };
            let has_twin = servers[..at].iter().map(|other| names(other)).any(|other| is_same(&other));
            if has_twin && guards_anything(server.inner()) {
                let why =
                    "it has listeners of its own, and routes hold for all; what it denies may be let through";
                self.output.open.push(note(&server.place, "server", why));
                self.output.note(&server.place, "server", why);
            }
        }
    }

    fn certificates(&mut self, server: &Directive) {
        let file = |name: &str| server.inner().iter().find(|directive| directive.name == name);
        if let (Some(cert), Some(key)) = (file("ssl_certificate"), file("ssl_certificate_key")) {
            let pair = (cert.arg(0).to_owned(), key.arg(0).to_owned());
            if !self.output.certificates.contains(&pair) {
                self.output.certificates.push(pair);
            }
        }
    }

    fn server(&mut self, directive: &Directive, hosts: Vec<&str>, settings: &Settings) {
        let mut settings = settings.clone();
        let (comments, left) = settings.take(directive.inner());
        self.output.notes.extend(comments);
        self.limits(directive.inner(), &mut settings);
        if self.output.client_ca.is_none()
            && let Some(verifies) = verifies_clients(directive)
        {
            settings.guards.add(note(&verifies.place, &verifies.shown(), ""));
        }
        let hosts = if hosts.is_empty() { vec![""] } else { hosts };
        let server = Server { hosts, settings };
        let (mut locations, mut responds) = (Vec::new(), false);
        for directive in left {
            match directive.name.as_str() {
                "listen"
                | "server_name"
                | "ssl_certificate"
                | "ssl_certificate_key"
                | "ssl_client_certificate"
                | "ssl_verify_client"
                | "limit_req"
                | "http2" => {}
                "location" => locations.push(directive),
                "return" => {
                    responds = true;
                    let place = note(&directive.place, &directive.shown(), "");
                    let settings = server.settings.clone();
                    self.route(&server, (&place, "/**"), settings, &[directive], Vec::new());
                }
                name if name.starts_with("gzip_")
                    || name.ends_with("_timeout")
                    || name == "set_real_ip_from" =>
                {
                    self.common(directive);
                }
                "real_ip_header" | "real_ip_recursive" => {}
                name if name.starts_with("ssl_") => {
                    let why = "TLS 1.2 and 1.3 with safe ciphers are fixed";
                    self.output.note(&directive.place, &directive.shown(), why);
                }
                _ => self.output.note(&directive.place, &directive.shown(), ""),
            }
        }
        let mut locations: Vec<Location<'_>> = locations.into_iter().map(matching).collect();
        let firm: Vec<&str> = locations
            .iter()
            .filter(|location| location.form == Match::FirmPrefix)
            .map(|location| location.path)
            .collect();
        locations.sort_by_key(|location| location.order(&firm));
        // [upstream] serves everything that no route names, so the root comes first.
        let is_root = |location: &&Location<'_>| location.form != Match::Regex && location.path == "/";
        let root = locations.iter().find(is_root);
        if let Some(root) = root {
            let mut settings = server.settings.clone();
            let (_, left) = settings.take(root.directive.inner());
            let pass = left.iter().find(|directive| directive.name == "proxy_pass");
            pass.and_then(|pass| self.upstream(pass, &settings));
        }
        let has_root = responds || root.is_some();
        for location in &locations {
            // Regular expressions stand before a prefix, but after the firm prefix that it is in: narrowed to it they stand
            // before it all the same.
            if location.form == Match::Prefix && location.is_inside(&firm) {
                for regex in locations.iter().filter(|other| other.form == Match::Regex) {
                    let narrowed = Location { within: location.begin(), ..*regex };
                    if patterns(&narrowed).is_some() {
                        self.location(&narrowed, &server, &locations, false);
                    }
                }
            }
            self.location(location, &server, &locations, false);
        }
        for host in server.hosts.iter().filter(|_| !has_root) {
            self.output.routes.push(Route {
                comments: vec![
                    "nginx has no location for the rest here, and Pillion serves no files.".to_owned(),
                ],
                pattern: format!("* {host}/**"),
                lines: vec![("deny".to_owned(), "404".to_owned())],
            });
        }
    }

    /// Converts a location of a server, or one that is `nested` in another.
    fn location(&mut self, location: &Location<'_>, server: &Server<'_>, all: &[Location<'_>], nested: bool) {
        let directive = location.directive;
        // Others lead there, and take what it says.
        if directive.arg(0).starts_with('@') {
            return;
        }
        let mut settings = server.settings.clone();
        let (mut comments, mut left) = settings.take(directive.inner());
        self.limits(directive.inner(), &mut settings);
        if let Some(named) = named_location(&left, all) {
            // Guards are asked before files are looked for, and those of the named location after that.
            let mut there = server.settings.clone();
            let (more, further) = there.take(named.inner());
            self.limits(named.inner(), &mut there);
            there.guards_before = Some(settings.verdict());
            settings = there;
            comments.extend(more);
            left.retain(|inner| inner.name != "try_files");
            left.extend(further);
        }
        let left: Vec<&Directive> = left.into_iter().filter(|inner| inner.name != "limit_req").collect();
        let (inside, left): (Vec<_>, Vec<_>) = left.into_iter().partition(|inner| inner.name == "location");
        let inner = Server { hosts: server.hosts.clone(), settings: settings.clone() };
        // They match more than the location does, so they stand before it.
        let mut inside: Vec<Location<'_>> = inside
            .into_iter()
            .map(|inner| Location { within: location.begin(), ..matching(inner) })
            .collect();
        inside.sort_by_key(|inner| inner.order(&[]));
        for location in &inside {
            self.location(location, &inner, all, true);
        }
        let place = note(&directive.place, &directive.shown(), "");
        let is_guarded = settings.verdict() != Verdict::Open || left.iter().any(|inner| refuses(inner));
        let Some(patterns) = patterns(location) else {
            let why = match is_guarded {
                false => "it matches no routes; write a path with {name} and **",
                true => {
                    let why = "what it denies is let through until a route with deny is written for it";
                    self.output.open.push(format!("{place}: {why}"));
                    why
                }
            };
            return self.output.note(&directive.place, &directive.shown(), why);
        };
        let is_regex = |location: &Location<'_>| location.form == Match::Regex;
        let comes_first = is_regex(location) || location.form == Match::FirmPrefix;
        let lost = [
            (patterns.any_case, "routes tell cases of letters apart; other cases are let through"),
            (
                nested && comes_first && all.iter().any(is_regex),
                "the regular expressions of the server stand before it here; what they match is let through",
            ),
        ];
        for (_, why) in lost.iter().filter(|(is_lost, _)| *is_lost && is_guarded) {
            self.output.open.push(format!("{place}: {why}"));
            comments.push(note(&directive.place, &directive.shown(), why));
        }
        if let Some(comment) = patterns.comment.filter(|_| !is_guarded) {
            comments.push(note(&directive.place, &directive.shown(), comment));
        }
        let wider = patterns.wider.iter().filter(|_| is_guarded);
        for pattern in patterns.paths.iter().chain(wider) {
            self.route(server, (&place, pattern), settings.clone(), &left, std::mem::take(&mut comments));
        }
    }
}
