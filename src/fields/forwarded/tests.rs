//! Tables for X-Forwarded-* and Forwarded.

use super::*;

fn trusted(ip: IpAddr) -> bool {
    ip.to_string().starts_with("10.")
}

#[test]
fn the_client_is_the_nearest_hop_that_is_not_ours() {
    for (peer, chain, client) in [
        ("1.2.3.4", "9.9.9.9", "1.2.3.4"),
        ("10.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("10.0.0.1", "6.6.6.6, 9.9.9.9, 10.0.0.2", "9.9.9.9"),
        ("10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "9.9.9.9:1234", "9.9.9.9"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "6.6.6.6, unknown", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_str(chain).expect(chain));
        let found = client_ip(&headers, peer.parse().expect(peer), trusted);
        assert_eq!(found.to_string(), client, "{peer} {chain}");
    }
    let mut headers = HeaderMap::new();
    let forwarded = HeaderValue::from_static("for=6.6.6.6;proto=http, For=\"[2001:db8::1]:47\";by=_x");
    headers.insert(http::header::FORWARDED, forwarded);
    let found = client_ip(&headers, IpAddr::from([10, 0, 0, 1]), trusted);
    assert_eq!(found.to_string(), "2001:db8::1");
}

#[test]
fn n4_6_the_scheme_is_counted_from_the_right() {
    let peer = IpAddr::from([10, 0, 0, 1]);
    let told = |lines: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        told_https(&headers, peer, trusted)
    };
    let (xff, proto, forwarded) = ("x-forwarded-for", "x-forwarded-proto", "forwarded");
    for (lines, https) in [
        (&[][..], None),
        (&[(xff, "9.9.9.9")], None),
        (&[(proto, "https")], Some(true)),
        (&[(proto, "HTTPS")], Some(true)),
        (&[(proto, "wss")], Some(true)),
        (&[(proto, "ws")], Some(false)),
        (&[(proto, "http")], Some(false)),
        (&[(proto, "gopher")], Some(false)),
        // One proxy appended to the value that the client wrote.
        (&[(xff, "9.9.9.9"), (proto, "https, http")], Some(false)),
        (&[(xff, "6.6.6.6, 9.9.9.9"), (proto, "http, https")], Some(true)),
        // Two proxies: the client used https to the first, which used http to the second.
        (&[(xff, "9.9.9.9, 10.0.0.2"), (proto, "https, http")], Some(true)),
        (&[(xff, "9.9.9.9, 10.0.0.2"), (proto, "http, https")], Some(false)),
        (&[(xff, "6.6.6.6, 9.9.9.9, 10.0.0.2"), (proto, "https, http, https")], Some(false)),
        // The second proxy sets one value, or only the first wrote one: the leftmost element of a shorter list
        // counts.
        (&[(xff, "9.9.9.9, 10.0.0.3, 10.0.0.2"), (proto, "https, http")], Some(true)),
        (&[(xff, "9.9.9.9, 10.0.0.2"), (proto, "https")], Some(true)),
        // All lines form one list, and empty elements are skipped.
        (&[(xff, "9.9.9.9"), (xff, "10.0.0.2"), (proto, "https"), (proto, "http")], Some(true)),
        (&[(xff, "9.9.9.9, 10.0.0.2"), (proto, "https,, http,")], Some(true)),
        // No readable address: the last element is about the client of the peer.
        (&[(proto, "http, https")], Some(true)),
        (&[(xff, "9.9.9.9, unknown"), (proto, "http, https")], Some(true)),
        // A chain of trusted proxies only: the farthest counts as the client.
        (&[(xff, "10.0.0.3, 10.0.0.2"), (proto, "https, http")], Some(true)),
        // `Forwarded` counts if `X-Forwarded-Proto` is missing.
        (&[(forwarded, "for=9.9.9.9;proto=https, for=10.0.0.2;proto=http")], Some(true)),
        (&[(forwarded, "for=9.9.9.9;proto=http, for=10.0.0.2;proto=https")], Some(false)),
        (&[(forwarded, "for=6.6.6.6;proto=http, For=9.9.9.9;Proto=\"WSS\";by=_x")], Some(true)),
        (&[(forwarded, "for=9.9.9.9")], None),
        (&[(xff, "9.9.9.9, 10.0.0.2"), (forwarded, "proto=https, proto=http")], Some(true)),
        (&[(forwarded, "for=9.9.9.9;proto=https"), (proto, "http")], Some(false)),
        (&[(forwarded, "for=9.9.9.9;proto=https"), (proto, " , ")], Some(true)),
    ] {
        assert_eq!(told(lines), https, "{lines:?}");
    }
}

#[test]
fn n4_6_of_a_list_the_app_is_told_what_is_believed() {
    let peer = IpAddr::from([10, 0, 0, 1]);
    let (xff, proto, host, forwarded) =
        ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded");
    for (lines, name, wanted) in [
        (&[(xff, "9.9.9.9"), (proto, "https")][..], proto, Some("https")),
        // One proxy appended to the value that the client wrote.
        (&[(xff, "6.6.6.6, 9.9.9.9"), (proto, "https, http")], proto, Some("http")),
        (&[(xff, "6.6.6.6, 9.9.9.9"), (proto, "https"), (proto, "http")], proto, Some("http")),
        (&[(xff, "6.6.6.6, 9.9.9.9"), (host, "evil, a.test")], host, Some("a.test")),
        (&[(xff, "9.9.9.9"), ("x-forwarded-port", "443,80")], "x-forwarded-port", Some("80")),
        (&[(xff, "9.9.9.9"), ("x-forwarded-ssl", "on, off")], "x-forwarded-ssl", Some("off")),
        // Two proxies appended to the value that the client wrote.
        (&[(xff, "9.9.9.9, 10.0.0.2"), (proto, "https, wss, http")], proto, Some("https")),
        (&[(xff, "9.9.9.9"), (proto, "WSS")], proto, Some("https")),
        (&[(xff, "9.9.9.9"), (proto, "ws")], proto, Some("http")),
        (&[(xff, "9.9.9.9, 10.0.0.2, 10.0.0.3"), (proto, "https, http")], proto, Some("https")),
        (&[(proto, " , ,")], proto, None),
        // The chain of addresses stays as it is.
        (&[(xff, "6.6.6.6, 9.9.9.9"), (proto, "a, b")], xff, Some("6.6.6.6, 9.9.9.9")),
        (&[("x-forwarded-prefix", "/a, /b")], "x-forwarded-prefix", Some("/a, /b")),
        (
            &[(forwarded, "for=9.9.9.9;proto=https, for=10.0.0.2;proto=http")],
            forwarded,
            Some("for=9.9.9.9;proto=https, for=10.0.0.2;proto=http"),
        ),
        (
            &[
                (forwarded, "proto=https;host=evil, For=6.6.6.6;host=evil"),
                (forwarded, "for=9.9.9.9;proto=http"),
            ],
            forwarded,
            Some("for=6.6.6.6, for=9.9.9.9;proto=http"),
        ),
        // An unclosed quote does not hide the next element.
        (
            &[(forwarded, "for=\"[::1]:8\";x=\"y, for=9.9.9.9;proto=http")],
            forwarded,
            Some("for=\"[::1]\", for=9.9.9.9;proto=http"),
        ),
        (
            &[(forwarded, "for=_x;proto=https, for=\"6.6.6.6, for=9.9.9.9")],
            forwarded,
            Some("for=unknown, for=6.6.6.6, for=9.9.9.9"),
        ),
    ] {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let before = told_https(&headers, peer, trusted);
        keep_believed(&mut headers, peer, trusted);
        let found: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(found, wanted.map(str::as_bytes).into_iter().collect::<Vec<_>>(), "{lines:?}");
        assert_eq!(told_https(&headers, peer, trusted), before, "{lines:?}");
    }
}

#[test]
fn n2_4_what_is_said_beside_addresses() {
    for (lines, wanted) in [
        (&[][..], ""),
        (&["for=1.2.3.4"], ""),
        (&["for=1.2.3.4;proto=https;by=_x, For=\"[::1]:8\"; Host=\"a;b,c\""], ",proto=https,host=\"a;b,c\""),
        (&["for=1.1.1.1;Proto=http", "host=b"], ",proto=http,host=b"),
        (&["for=1.1.1.1;x=1;y=2"], ",x=1;y=2"),
    ] {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(http::header::FORWARDED, HeaderValue::from_static(line));
        }
        assert_eq!(String::from_utf8(without_addresses(&headers)).unwrap(), wanted, "{lines:?}");
    }
}

#[test]
fn our_element() {
    let host = HeaderValue::from_static("a.example:8080");
    let element = |ip: &str, host: &HeaderValue| element(ip.parse().expect(ip), host, true);
    assert_eq!(element("1.2.3.4", &host), "for=1.2.3.4;host=\"a.example:8080\";proto=https");
    let host = HeaderValue::from_static("a");
    assert_eq!(element("::1", &host), "for=\"[::1]\";host=a;proto=https");
}
