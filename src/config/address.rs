//! Addresses as people write them: a port alone, `localhost:8080`, `app:3000`.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The forms of a listener's address, for errors.
pub(super) const LISTENER_FORMS: &str = "expected an address and a port, like \"127.0.0.1:8080\" or \"[::]:8080\"; \"8080\" is all interfaces, \
     \"localhost:8080\" both loopbacks";

/// Parses the address of a listener. A port alone means all interfaces, and `localhost` both loopback addresses, IPv4
/// first.
pub(super) fn listeners(written: &str) -> Option<Vec<SocketAddr>> {
    if let Ok(address) = written.parse() {
        return Some(vec![address]);
    }
    let (host, port) = written.rsplit_once(':').unwrap_or(("", written));
    let port = port_number(port)?;
    let ips: &[IpAddr] = match host {
        "" => &[IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        host if host.eq_ignore_ascii_case("localhost") => {
            &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        }
        _ => return None,
    };
    Some(ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
}

/// Returns the URL that the address of an upstream means: of a port alone, it is on this machine; without a scheme, it
/// speaks HTTP/1.1. Text of any other form is returned as it is.
pub(super) fn upstream_url(written: &str) -> Cow<'_, str> {
    let whole = Cow::Borrowed(written);
    if written.contains("://") || written.starts_with("unix:") {
        return whole;
    }
    let (host, port) = written.rsplit_once(':').unwrap_or(("", written));
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return whole;
    }
    let host = if host.is_empty() { "localhost" } else { host };
    // Two colons outside brackets are an IPv6 address without brackets, in which no port can be told.
    if host.contains(['/', '@', ' ']) || (host.contains(':') && !host.starts_with('[')) {
        return whole;
    }
    Cow::Owned(format!("http://{host}:{port}"))
}

fn port_number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_with_port_alone_is_all_interfaces() {
        for (written, addresses) in [
            ("8080", &["[::]:8080"][..]),
            (":8080", &["[::]:8080"]),
            ("localhost:8080", &["127.0.0.1:8080", "[::1]:8080"]),
            ("LOCALHOST:0", &["127.0.0.1:0", "[::1]:0"]),
            ("127.0.0.1:8080", &["127.0.0.1:8080"]),
            ("[::1]:8080", &["[::1]:8080"]),
        ] {
            let addresses: Vec<SocketAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(listeners(written), Some(addresses), "{written}");
        }
        for wrong in
            ["", ":", "localhost", "localhost:", "localhost:http", "70000", "+80", "app:80", "::1:80 "]
        {
            assert_eq!(listeners(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn upstream_without_scheme_is_http() {
        for (written, url) in [
            ("3000", "http://localhost:3000"),
            (":3000", "http://localhost:3000"),
            ("localhost:3000", "http://localhost:3000"),
            ("app:3000", "http://app:3000"),
            ("127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("[::1]:3000", "http://[::1]:3000"),
            ("70000", "http://localhost:70000"),
        ] {
            assert_eq!(upstream_url(written), url, "{written}");
        }
        for other in [
            "http://app",
            "https://app:1",
            "unix:/a:1",
            "app",
            "",
            ":",
            "::1:80",
            "a/b:1",
            "me@app:1",
            "a b:1",
        ] {
            assert_eq!(upstream_url(other), other);
        }
    }
}
