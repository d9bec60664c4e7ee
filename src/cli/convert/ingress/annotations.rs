//! The annotations of an Ingress: those of ingress-nginx that have an equivalent, and comments on all others. One that keeps
//! clients out and has no equivalent closes the routes.

use crate::cli::convert::values::{size, string, strings, time};
use crate::yaml::Node;

/// The prefix of ingress-nginx.
const NGINX: &str = "nginx.ingress.kubernetes.io/";
/// Prefixes of annotations that are not about requests.
const OTHERS: &[&str] = &[
    "kubectl.kubernetes.io/",
    "meta.helm.sh/",
    "cert-manager.io/",
    "external-dns.alpha.kubernetes.io/",
    "kubernetes.io/",
    "argocd.argoproj.io/",
    "acme.cert-manager.io/",
];
/// Annotations that need no equivalent: Pillion does by itself what they say, or has nothing that they set.
const NEEDLESS: &[&str] = &[
    "proxy-buffering",
    "proxy-buffer-size",
    "proxy-buffers-number",
    "proxy-http-version",
    "proxy-next-upstream",
    "proxy-next-upstream-timeout",
    "proxy-next-upstream-tries",
    "proxy-request-buffering",
    "proxy-send-timeout",
    "service-upstream",
    "use-regex",
    "enable-access-log",
    "auth-realm",
    "auth-secret",
    "auth-secret-type",
    "auth-signin",
    "auth-response-headers",
    "auth-cache-key",
    "auth-cache-duration",
    "auth-method",
    "auth-always-set-cookie",
    "auth-proxy-set-headers",
    "auth-tls-verify-depth",
    "auth-tls-pass-certificate-to-upstream",
    "auth-tls-error-page",
    "limit-burst-multiplier",
    "permanent-redirect-code",
    "temporal-redirect-code",
    "satisfy",
];
/// Words in the names of annotations by which clients are kept out.
const GUARDS: &[&str] =
    &["auth", "allow", "deny", "denylist", "whitelist", "blacklist", "middleware", "cidr", "oidc", "jwt"];
/// Words in a snippet of nginx's configuration that keep clients out.
const GUARDS_OF_SNIPPETS: &[&str] = &[
    "deny",
    "allow",
    "auth_",
    "return 4",
    "return 5",
    "internal",
    "limit_except",
    "access_by_lua",
    "satisfy",
];
/// How many seconds of a rate ingress-nginx allows at once.
const USUAL_BURST: u32 = 5;

/// The annotations of an Ingress, as far as they mean something for Pillion.
#[derive(Clone, Debug, Default)]
pub(super) struct Annotations {
    /// Keys of each of its routes.
    pub lines: Vec<(String, String)>,
    /// Limits: name and value.
    pub limits: Vec<(String, String)>,
    pub scheme: String,
    pub connect_timeout: Option<String>,
    pub aliases: Vec<String>,
    pub rewrite: Option<String>,
    pub root_redirect: Option<String>,
    /// Where all requests are redirected to, with the status.
    pub redirect: Option<(String, u16)>,
    pub is_canary: bool,
    /// Whether paths are regular expressions.
    pub is_regex: bool,
    /// Whom the routes allow; `None`: all.
    pub allow: Option<Vec<String>>,
    /// Annotations that keep clients out and have no equivalent.
    pub guards: Vec<String>,
    /// Annotations without an equivalent.
    pub notes: Vec<String>,
}

impl Annotations {
    /// Reads the annotations of an Ingress whose limits begin with `name`.
    pub(super) fn new(ingress: &Node, name: &str) -> Annotations {
        let all = ingress.at(&["metadata", "annotations"]).map(Node::entries).unwrap_or_default();
        let pairs: Vec<(&str, &str)> =
            all.iter().filter_map(|(key, value)| Some((key.text()?, value.text()?))).collect();
        let of_nginx = |wanted: &str| {
            let of = |(key, value): &(&str, &str)| {
                (key.strip_prefix(NGINX)? == wanted).then(|| (*value).to_owned())
            };
            pairs.iter().find_map(of)
        };
        let mut read = Annotations { scheme: "http".to_owned(), ..Annotations::default() };
        read.is_regex = of_nginx("use-regex").as_deref() == Some("true");
        let multiplier = of_nginx("limit-burst-multiplier").and_then(|text| text.parse().ok());
        let status = |key: &str| of_nginx(key).and_then(|text| text.parse().ok());
        for (key, value) in &pairs {
            match key.strip_prefix(NGINX) {
                Some(own) => read.take(own, value, name, multiplier.unwrap_or(USUAL_BURST)),
                None if OTHERS.iter().any(|prefix| key.starts_with(prefix)) => {}
                None => read.foreign(key, value),
            }
        }
        if let Some((_, code)) = &mut read.redirect {
            let key = if *code == 301 { "permanent-redirect-code" } else { "temporal-redirect-code" };
            *code = status(key).unwrap_or(*code);
        }
        // Those with an address that is allowed need nothing else.
        if of_nginx("satisfy").as_deref() == Some("any") && read.allow.is_some() {
            read.notes.append(&mut read.guards);
        }
        if !read.limits.is_empty() {
            let names: Vec<String> = read.limits.iter().map(|(name, _)| name.clone()).collect();
            read.lines.push(("limits".to_owned(), strings(&names)));
        }
        read
    }

    fn take(&mut self, key: &str, value: &str, name: &str, multiplier: u32) {
        let shown = || format!("{NGINX}{key}: {}", value.lines().next().unwrap_or(""));
        let seconds = || value.parse::<u64>().ok().and_then(|seconds| time(&seconds.to_string()));
        let list =
            || value.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect();
        let mut unknown = false;
        match key {
            "limit-rps" | "limit-rpm" => match value.parse::<u32>() {
                Ok(count) => {
                    let unit = if key == "limit-rps" { "s" } else { "min" };
                    let burst = count.saturating_mul(multiplier).max(1);
                    let limit = format!("{{ rate = \"{count}/{unit}\", burst = {burst}, on = \"named\" }}");
                    self.limits.push((format!("{name}-{}", &key[6..]), limit));
                }
                Err(_) => unknown = true,
            },
            "limit-connections" => match value.parse::<u32>() {
                Ok(count) => self.lines.push(("concurrency".to_owned(), count.to_string())),
                Err(_) => unknown = true,
            },
            "proxy-read-timeout" => match seconds() {
                Some(time) => self.lines.push(("timeout".to_owned(), string(&time))),
                None => unknown = true,
            },
            "proxy-connect-timeout" => self.connect_timeout = seconds(),
            "proxy-body-size" => match size(value) {
                Some(size) if size == "0B" => {
                    self.lines.push(("max_body_size".to_owned(), string("unlimited")));
                }
                Some(size) => self.lines.push(("max_body_size".to_owned(), string(&size))),
                None => unknown = true,
            },
            "whitelist-source-range" | "allowlist-source-range" => self.allow = Some(list()),
            "denylist-source-range"
            | "auth-type"
            | "auth-url"
            | "auth-tls-secret"
            | "auth-tls-verify-client"
            | "auth-snippet"
            | "enable-global-auth" => {
                let is_off = matches!(
                    (key, value),
                    ("auth-tls-verify-client", "off") | ("enable-global-auth", "false")
                );
                if !is_off {
                    self.guards.push(shown());
                }
            }
            "configuration-snippet" | "server-snippet" => {
                let is_guard = GUARDS_OF_SNIPPETS.iter().any(|word| value.contains(word));
                if is_guard { &mut self.guards } else { &mut self.notes }.push(shown());
            }
            "permanent-redirect" => self.redirect = Some((value.to_owned(), 301)),
            "temporal-redirect" => self.redirect = Some((value.to_owned(), 302)),
            "app-root" => self.root_redirect = Some(value.to_owned()),
            "rewrite-target" => self.rewrite = Some(value.to_owned()),
            "server-alias" => self.aliases = list(),
            "canary" => self.is_canary = value == "true",
            "backend-protocol" => match value.to_ascii_uppercase().as_str() {
                "HTTP" | "AUTO_HTTP" => {}
                "HTTPS" | "GRPCS" => self.scheme = "https".to_owned(),
                "GRPC" => self.scheme = "h2c".to_owned(),
                _ => unknown = true,
            },
            "ssl-redirect" | "force-ssl-redirect" => {
                if value == "true" {
                    self.notes
                        .push(format!("{}: with [server.tls] write server.redirect_https = true", shown()));
                }
            }
            key if NEEDLESS.contains(&key) => {}
            key if GUARDS.iter().any(|word| key.contains(word)) => self.guards.push(shown()),
            _ => self.notes.push(shown()),
        }
        if unknown {
            self.notes.push(format!("{}: its value is not understood", shown()));
        }
    }

    /// Takes an annotation of another controller.
    fn foreign(&mut self, key: &str, value: &str) {
        let shown = format!("{key}: {}", value.lines().next().unwrap_or(""));
        let is_guard = key.contains('/') && GUARDS.iter().any(|word| key.to_ascii_lowercase().contains(word));
        if is_guard { &mut self.guards } else { &mut self.notes }.push(shown);
    }
}
