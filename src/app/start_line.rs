//! The one line that says what has started: version, listeners, upstreams, routes and their file, the admin page.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::config::Source;
use crate::policy::Policy;

/// The parts of the start line, as people read them.
pub(super) struct StartLine {
    version: &'static str,
    listeners: String,
    upstreams: String,
    routes: usize,
    file: String,
    page: Option<String>,
}

impl StartLine {
    /// Describes a policy in force. `data` are the bound listeners, each with whether it speaks TLS.
    pub(super) fn new(
        version: &'static str,
        policy: &Policy,
        source: &Source,
        data: &[(SocketAddr, bool)],
        admin: Option<SocketAddr>,
    ) -> StartLine {
        let listener =
            |(address, tls): &(SocketAddr, bool)| url(if *tls { "https" } else { "http" }, *address);
        let mut listeners: Vec<String> = data.iter().map(listener).collect();
        // `localhost` is two addresses and one URL.
        listeners.dedup();
        let endpoints = policy.upstreams.iter().flat_map(|upstream| &upstream.endpoints);
        let upstreams: Vec<&str> = endpoints.map(|endpoint| endpoint.url.as_str()).collect();
        let file = source.file.as_deref().map(Path::display).map(|file| file.to_string());
        let embedded = || source.embedded.map_or("no file", |(name, _)| name).to_owned();
        StartLine {
            version,
            listeners: listeners.join(", "),
            upstreams: upstreams.join(", "),
            routes: policy.routes.routes.len() - 1,
            file: file.unwrap_or_else(embedded),
            page: admin.map(|address| format!("{}/", url("http", address))),
        }
    }

    /// Logs it with a field for each part, and the digest of the effective settings.
    pub(super) fn log(&self, digest: &str) {
        let StartLine { version, listeners, upstreams, routes, file, page } = self;
        let page = page.as_deref().unwrap_or("off");
        tracing::info!(version, listeners, upstreams, routes, file, page, digest, "started");
    }

    /// Returns it as a line for people.
    pub(super) fn text(&self, color: bool) -> String {
        let (bold, blue, end) = if color { ("\u{1b}[1m", "\u{1b}[36m", "\u{1b}[0m") } else { ("", "", "") };
        let plural = if self.routes == 1 { "" } else { "s" };
        let page = match &self.page {
            Some(page) => format!("page {blue}{page}{end}"),
            None => "no admin listener".to_owned(),
        };
        format!(
            "{bold}Pillion {}{end} on {blue}{}{end} -> {}, {} route{plural} ({}), {page}\n",
            self.version, self.listeners, self.upstreams, self.routes, self.file
        )
    }
}

/// The URL under which this machine reaches a listener.
fn url(scheme: &str, address: SocketAddr) -> String {
    let ip = address.ip();
    match ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST {
        true => format!("{scheme}://localhost:{}", address.port()),
        false => format!("{scheme}://{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};

    #[test]
    fn line_names_all_parts_once() {
        let source = Source { upstream: Some("3000".to_owned()), ..Source::default() };
        let policy = config::load(&source, &Environment::default()).unwrap();
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let data = [
            (address("127.0.0.1:8080"), false),
            (address("[::1]:8080"), false),
            (address("10.0.0.1:8443"), true),
        ];
        let line = StartLine::new("1.2.3", &policy, &source, &data, Some(address("127.0.0.1:9900")));
        assert_eq!(
            line.text(false),
            "Pillion 1.2.3 on http://localhost:8080, https://10.0.0.1:8443 -> http://localhost:3000, 0 routes (no file), \
             page http://localhost:9900/\n"
        );
        assert!(line.text(true).starts_with("\u{1b}[1mPillion 1.2.3\u{1b}[0m on "));
        let line = StartLine::new("1.2.3", &policy, &source, &[(address("[::]:80"), false)], None);
        assert!(
            line.text(false).contains(" on http://localhost:80 -> ") && line.text(false).contains("no admin")
        );
    }
}
