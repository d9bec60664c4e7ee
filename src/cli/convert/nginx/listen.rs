//! The addresses and names of a server.

use super::read::Directive;

/// Returns a listening address: a port alone is that of all addresses.
pub(super) fn address(listen: &str) -> Option<String> {
    if listen.starts_with("unix:") {
        return None;
    }
    if listen.parse::<u16>().is_ok() {
        return Some(format!("[::]:{listen}"));
    }
    match listen.rsplit_once(':') {
        Some(("*", port)) => Some(format!("[::]:{port}")),
        Some((host, port)) if port.parse::<u16>().is_ok() && !host.is_empty() => Some(listen.to_owned()),
        _ => Some(format!("{listen}:80")),
    }
}

pub(super) fn is_tls(server: &Directive) -> bool {
    let is_ssl =
        |directive: &Directive| directive.name == "listen" && directive.args.iter().any(|arg| arg == "ssl");
    server.inner().iter().any(is_ssl)
}

/// Returns whether a server does nothing but to send its clients to https.
pub(super) fn redirects_to_https(server: &Directive) -> bool {
    let target = |directive: &Directive| {
        directive.name == "return"
            && directive.arg(0).starts_with('3')
            && matches!(
                directive.arg(1),
                "https://$host$request_uri"
                    | "https://$server_name$request_uri"
                    | "https://$http_host$request_uri"
            )
    };
    let direct = server.inner().iter().any(target);
    let in_root = |directive: &Directive| {
        directive.name == "location" && directive.args == ["/"] && directive.inner().iter().any(target)
    };
    !is_tls(server) && (direct || server.inner().iter().any(in_root))
}

/// Returns the hosts of a server; none if it takes any.
pub(super) fn hosts(server: &Directive) -> Vec<&str> {
    let is_default = server.inner().iter().any(|directive| {
        directive.name == "listen" && directive.args.iter().any(|arg| arg == "default_server")
    });
    let names = server.inner().iter().filter(|directive| directive.name == "server_name");
    let names: Vec<&str> = names
        .flat_map(|directive| directive.args.iter().map(String::as_str))
        .filter(|name| !matches!(*name, "_" | "" | "localhost") && !name.starts_with('~'))
        .collect();
    if is_default { Vec::new() } else { names }
}
