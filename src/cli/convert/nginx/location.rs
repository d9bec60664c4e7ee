//! The settings that a location has of its own or inherits, and the route that they make.

use super::guards::{Guards, Verdict};
use super::read::Directive;
use crate::cli::convert::output::{Line, Route, note};
use crate::cli::convert::values::{size, string, time};

/// Directives that need no equivalent: Pillion does by itself what they say, or has nothing that they set.
const NEEDLESS: &[&str] = &[
    "proxy_buffer_size",
    "proxy_buffering",
    "proxy_buffers",
    "proxy_busy_buffers_size",
    "proxy_cache_lock",
    "proxy_cache_lock_age",
    "proxy_cache_lock_timeout",
    "proxy_cache_min_uses",
    "proxy_cache_revalidate",
    "proxy_http_version",
    "proxy_next_upstream",
    "proxy_redirect",
    "proxy_request_buffering",
    "proxy_ssl_server_name",
    "sendfile",
    "server_tokens",
    "tcp_nodelay",
    "tcp_nopush",
];

/// Fields that Pillion writes itself in each request to the app.
const OWN_FIELDS: &[&str] = &[
    "x-real-ip",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-request-id",
    "upgrade",
    "connection",
];

/// The settings of a location; blocks inside inherit them.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    /// Whether responses are cached (`proxy_cache`).
    cache: bool,
    /// Lifetimes by status; `None` stands for the statuses that nginx takes without one.
    lifetimes: Vec<(Option<u16>, String)>,
    /// Whether the cache key or the bypass names something of the user.
    scope: Option<&'static str>,
    ignores_lifetime: bool,
    stale: bool,
    background: bool,
    timeout: Option<String>,
    pub connect_timeout: Option<String>,
    max_body_size: Option<String>,
    browser_ttl: Option<String>,
    response_fields: Vec<Line>,
    request_fields: Vec<Line>,
    removed_fields: Vec<String>,
    /// Whether the app gets the client's Host; nginx sends the host of proxy_pass unless it is told otherwise.
    pub preserve_host: bool,
    compress: Option<bool>,
    /// Names of limits.
    pub limits: Vec<String>,
    pub guards: Guards,
    /// The decision of the location from which requests come to this named one.
    pub guards_before: Option<Verdict>,
}

impl Settings {
    /// Takes the directives of a block. Lists are replaced by a block that has some of its own, as in nginx. Returns the
    /// comments on what has no equivalent, and the directives that are left.
    pub(super) fn take<'a>(&mut self, directives: &'a [Directive]) -> (Vec<String>, Vec<&'a Directive>) {
        let has = |name: &str| directives.iter().any(|directive| directive.name == name);
        if has("add_header") {
            self.response_fields.clear();
        }
        if has("proxy_set_header") {
            self.request_fields.clear();
            self.removed_fields.clear();
            self.preserve_host = false;
        }
        if has("proxy_cache_valid") {
            self.lifetimes.clear();
        }
        if has("limit_req") {
            self.limits.clear();
        }
        self.guards.take(directives);
        let (mut comments, mut left) = (Vec::new(), Vec::new());
        for directive in directives.iter().filter(|directive| !Guards::has(directive)) {
            match self.take_one(directive) {
                Some(None) => {}
                Some(Some(why)) => comments.push(note(&directive.place, &directive.shown(), why)),
                None => left.push(directive),
            }
        }
        (comments, left)
    }

    /// Returns who may come.
    pub(super) fn verdict(&self) -> Verdict {
        let own = self.guards.verdict();
        match &self.guards_before {
            Some(before) => before.clone().and(own),
            None => own,
        }
    }

    /// Takes one directive. `None` if it is none of a location's settings, else the reason why it has no equivalent.
    fn take_one(&mut self, directive: &Directive) -> Option<Option<&'static str>> {
        let (first, second) = (directive.arg(0), directive.arg(1));
        if NEEDLESS.contains(&directive.name.as_str()) {
            return Some(None);
        }
        let known = |value: Option<String>, to: &mut Option<String>| match value {
            Some(value) => {
                *to = Some(value);
                None
            }
            None => Some("its value is not understood"),
        };
        Some(match directive.name.as_str() {
            "proxy_cache" => {
                self.cache = first != "off";
                None
            }
            "proxy_cache_valid" => self.lifetime(directive),
            "proxy_cache_key" => {
                self.key(&directive.args.join(""));
                None
            }
            "proxy_cache_bypass" | "proxy_no_cache" => self.bypass(&directive.args),
            "proxy_cache_use_stale" => {
                self.stale = directive.args.iter().any(|word| word.starts_with("http_5"));
                None
            }
            "proxy_cache_background_update" => {
                self.background = first == "on";
                None
            }
            "proxy_ignore_headers" => self.ignore(&directive.args),
            "proxy_read_timeout" => known(time(first), &mut self.timeout),
            "proxy_connect_timeout" => known(time(first), &mut self.connect_timeout),
            "client_max_body_size" => {
                let size = size(first).map(|size| if size == "0B" { "unlimited".to_owned() } else { size });
                known(size, &mut self.max_body_size)
            }
            "expires" => known(time(first), &mut self.browser_ttl),
            "gzip" => {
                self.compress = Some(first == "on");
                None
            }
            "add_header" if directive.args.iter().any(|arg| arg.contains('$')) => Some("it has a variable"),
            "add_header" if second.is_empty() => None,
            "add_header" => {
                self.response_fields.push((first.to_ascii_lowercase(), second.to_owned()));
                None
            }
            "proxy_set_header" => self.set_header(&first.to_ascii_lowercase(), second),
            "proxy_hide_header" => Some("write remove_response"),
            _ => return None,
        })
    }

    fn lifetime(&mut self, directive: &Directive) -> Option<&'static str> {
        let (codes, last) = match directive.args.split_last() {
            Some((last, codes)) => (codes, last),
            None => return Some("its value is not understood"),
        };
        let Some(lifetime) = time(last) else { return Some("its value is not understood") };
        let mut unknown = None;
        if codes.is_empty() {
            self.lifetimes.push((None, lifetime.clone()));
        }
        for code in codes {
            match code.parse() {
                Ok(code) => self.lifetimes.push((Some(code), lifetime.clone())),
                Err(_) => unknown = Some("write the statuses in ttl_by_status"),
            }
        }
        unknown
    }

    fn key(&mut self, key: &str) {
        let of_user = ["$cookie_", "$http_cookie", "$http_authorization", "$remote_user"];
        if of_user.iter().any(|part| key.contains(part)) {
            self.scope = Some("user");
        }
    }

    fn bypass(&mut self, conditions: &[String]) -> Option<&'static str> {
        // Requests with credentials pass the cache by under scope "auto".
        let of_user = |word: &String| {
            ["$cookie_", "$http_authorization", "$http_cookie"].iter().any(|of| word.starts_with(of))
        };
        // A client asks for it by Cache-Control: no-cache.
        let by_client = |word: &String| matches!(word.as_str(), "$http_pragma" | "$http_cache_control");
        match conditions.iter().all(|word| of_user(word) || by_client(word)) {
            true => None,
            false => Some("write a route with cache = { scope = \"off\" } before this one"),
        }
    }

    fn ignore(&mut self, names: &[String]) -> Option<&'static str> {
        let has = |name: &str| names.iter().any(|given| given.eq_ignore_ascii_case(name));
        self.ignores_lifetime = has("cache-control") || has("expires");
        has("set-cookie")
            .then_some("a response that sets a cookie is not stored for others; let the app not send it")
    }

    fn set_header(&mut self, name: &str, value: &str) -> Option<&'static str> {
        match (name, value) {
            ("host", "$host" | "$http_host") => self.preserve_host = true,
            ("host", "$proxy_host") => self.preserve_host = false,
            (name, _) if OWN_FIELDS.contains(&name) => {}
            (name, "") => self.removed_fields.push(name.to_owned()),
            (_, value) if value.contains('$') => return Some("it has a variable"),
            (name, value) => self.request_fields.push((name.to_owned(), value.to_owned())),
        }
        None
    }

    /// Adds the lines of the settings to a route that is sent on.
    pub(super) fn lines(&self, route: &mut Route, server_body_size: Option<&str>) {
        let mut line = |key: &str, value: String| route.lines.push((key.to_owned(), value));
        if let Some(timeout) = &self.timeout {
            line("timeout", string(timeout));
        }
        if let Some(size) = self.max_body_size.as_deref().filter(|size| Some(*size) != server_body_size) {
            line("max_body_size", string(size));
        }
        if let Some(ttl) = &self.browser_ttl {
            line("browser_ttl", string(ttl));
        }
        for (key, fields) in [("set_request", &self.request_fields), ("set_response", &self.response_fields)]
        {
            if !fields.is_empty() {
                line(key, table(fields));
            }
        }
        if !self.removed_fields.is_empty() {
            line("remove_request", crate::cli::convert::values::strings(&self.removed_fields));
        }
        if self.compress == Some(false) {
            line("compress", "false".to_owned());
        }
        if !self.limits.is_empty() {
            line("limits", crate::cli::convert::values::strings(&self.limits));
        }
        if let Some(cache) = self.cache() {
            line("cache", cache);
            if self.scope.is_none() {
                let comment = "Requests with credentials pass the cache by (scope \"auto\"). scope = \"shared\" serves one \
                    copy to all, as nginx does; scope = \"user\" one to each user.";
                route.comments.push(comment.to_owned());
            }
        }
    }

    /// Returns the body size, for the default of all routes.
    pub(super) fn body_size(&self) -> Option<&str> {
        self.max_body_size.as_deref()
    }

    /// Returns whether compression is turned off by name.
    pub(super) fn is_plain(&self) -> bool {
        self.compress == Some(false)
    }

    fn cache(&self) -> Option<String> {
        if !self.cache {
            return None;
        }
        let mut parts = Vec::new();
        let mut by_status: Vec<(u16, &str)> = Vec::new();
        for (status, lifetime) in &self.lifetimes {
            match status {
                None => {
                    parts.push(format!("ttl = {}", string(lifetime)));
                    // nginx stores 302 with them.
                    by_status.push((302, lifetime));
                }
                Some(200) => parts.push(format!("ttl = {}", string(lifetime))),
                Some(status) => by_status.push((*status, lifetime)),
            }
        }
        let mut seen = Vec::new();
        by_status.retain(|(status, _)| {
            !seen.contains(status) && {
                seen.push(*status);
                true
            }
        });
        if !by_status.is_empty() {
            let parts_of: Vec<String> = by_status
                .iter()
                .map(|(status, lifetime)| format!("{status} = {}", string(lifetime)))
                .collect();
            parts.push(format!("ttl_by_status = {{ {} }}", parts_of.join(", ")));
        }
        parts.extend(self.scope.map(|scope| format!("scope = \"{scope}\"")));
        if self.ignores_lifetime {
            parts.push("override = \"lifetime\"".to_owned());
        }
        if self.background {
            parts.push("stale_while_revalidate = \"1m\"".to_owned());
        }
        if self.stale {
            parts.push("stale_if_error = \"5m\"".to_owned());
        }
        (!parts.is_empty()).then(|| format!("{{ {} }}", parts.join(", ")))
    }
}

fn table(fields: &[Line]) -> String {
    let mut seen = Vec::new();
    let last_of_each = fields.iter().rev().filter(|(name, _)| {
        let new = !seen.contains(name);
        seen.push(name.clone());
        new
    });
    let mut parts: Vec<String> =
        last_of_each.map(|(name, value)| format!("{} = {}", string(name), string(value))).collect();
    parts.reverse();
    format!("{{ {} }}", parts.join(", "))
}
