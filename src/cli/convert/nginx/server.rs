//! Servers and their locations, as upstreams and routes.

use std::collections::HashMap;

use super::listen::{address, hosts, is_tls, redirects_to_https};
use super::location::Settings;
use super::matching::{Location, Match, matching, pattern, redirect};
use super::output::{Output, Route, Upstream, Zone, note};
use super::read::Directive;
use super::values::{named, size, string, time};

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
    body_size: Option<String>,
}

/// The parts that a server's locations have in common.
struct Server<'a> {
    /// The host of each route, or one empty one.
    hosts: Vec<&'a str>,
    settings: Settings,
}

impl Converter {
    /// Converts the directives of a file.
    pub(super) fn convert(mut self, directives: &[Directive]) -> String {
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
        self.output.text()
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
                Some((&mut self.output.compression, "types", super::values::strings(&types)))
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
        self.output.server.insert(0, ("listen".to_owned(), super::values::strings(&plain)));
        self.output.tls_listen = tls;
        // A server that takes any host stands behind those that take one. Without one that says so it is the first.
        let default = serving.iter().position(|server| hosts(server).is_empty()).unwrap_or(0);
        let (last, first): (Vec<_>, Vec<_>) =
            serving.iter().enumerate().partition(|(at, server)| *at == default || hosts(server).is_empty());
        for (at, server) in first.into_iter().chain(last) {
            let hosts = if at == default { Vec::new() } else { hosts(server) };
            self.server(server, hosts, settings);
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
        let hosts = if hosts.is_empty() { vec![""] } else { hosts };
        let server = Server { hosts, settings };
        let (mut locations, mut responds) = (Vec::new(), false);
        for directive in left {
            match directive.name.as_str() {
                "listen"
                | "server_name"
                | "ssl_certificate"
                | "ssl_certificate_key"
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
        // Regular expressions stay in the order of the file; a stable sort keeps it.
        locations.sort_by_key(|location| {
            let length = if location.form == Match::Regex { 0 } else { location.path.len() };
            (location.form, std::cmp::Reverse(length))
        });
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
            self.location(location, &server);
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

    fn location(&mut self, location: &Location<'_>, server: &Server<'_>) {
        let directive = location.directive;
        let Some((path, comment)) = pattern(location) else {
            let denies = |inner: &Directive| inner.name == "deny" && inner.arg(0) == "all";
            let why = match directive.inner().iter().any(denies) {
                true => "what it denies is let through until a route with deny is written for it",
                false => "regular expressions match no routes; write a path with {name} and **",
            };
            return self.output.note(&directive.place, &directive.shown(), why);
        };
        let mut settings = server.settings.clone();
        let (mut comments, left) = settings.take(directive.inner());
        self.limits(directive.inner(), &mut settings);
        let left: Vec<&Directive> = left.into_iter().filter(|inner| inner.name != "limit_req").collect();
        comments.extend(comment.map(|comment| note(&directive.place, &directive.shown(), comment)));
        let place = note(&directive.place, &directive.shown(), "");
        self.route(server, (&place, &path), settings, &left, comments);
    }

    /// Makes the routes of a location, one for each host.
    fn route(
        &mut self,
        server: &Server<'_>,
        (place, path): (&str, &str),
        settings: Settings,
        directives: &[&Directive],
        mut comments: Vec<String>,
    ) {
        let mut route = Route::default();
        let mut sent = None;
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
                ("deny", "all") => line("deny", "403".to_owned()),
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
        let mut has_action = !route.lines.is_empty();
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
        } else if !has_action {
            // Nothing sends it anywhere: the remarks are all there is.
            self.output
                .notes
                .push(format!("{place}: its requests go to [upstream], as nothing is written for them"));
            self.output.notes.extend(comments);
            return;
        }
        for host in &server.hosts {
            let pattern = format!("* {host}{path}");
            // A route that repeats the defaults is left out.
            if route.lines.is_empty() && comments.is_empty() && path == "/**" && host.is_empty() {
                continue;
            }
            let mut comments = comments.clone();
            comments.extend(route.comments.iter().cloned());
            self.output.routes.push(Route { comments, pattern, lines: route.lines.clone() });
        }
    }

    /// Returns the number of the upstream of a `proxy_pass`, and the path that it has. `None` if it has a variable.
    fn upstream(&mut self, pass: &Directive, settings: &Settings) -> Option<(usize, Option<String>)> {
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
