//! Tests of the PROXY protocol, and of which peers may use it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::tools::{Authority, TLS, curl_fails, curl_json, local};
use crate::harness::{self, Pillion, Script, connect, exchange, read_answer};

fn proxied(trusted: &str, app: SocketAddr) -> Pillion {
    Pillion::with(&local(&format!(
        "proxy_protocol = true\ntrusted_proxies = [\"{trusted}\"]\n[upstream]\nurl = \"http://{app}\"\n"
    )))
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn binary_header(version_command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([version_command, family]);
    header.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
    header.extend(addresses);
    header
}

#[test]
fn the_proxy_header_names_the_client() {
    let app = Script::echo();
    let pillion = proxied("127.0.0.0/8", app.address);
    let seen = curl_json(&["--haproxy-protocol", &pillion.url("/")]);
    assert_eq!(seen["fields"]["x-forwarded-for"], "127.0.0.1");
    let with_extension = [&[203, 0, 113, 7, 127, 0, 0, 1, 1, 2, 0, 80][..], &[4, 0, 3, 1, 2, 3]].concat();
    let six =
        [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &[0; 15], &[1, 1, 2, 0, 80]].concat();
    for (header, client) in [
        (b"PROXY TCP4 203.0.113.7 127.0.0.1 1111 80\r\n".to_vec(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::9 ::1 1111 80\r\n".to_vec(), "2001:db8::9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), "127.0.0.1"),
        (binary_header(0x21, 0x11, &[203, 0, 113, 7, 127, 0, 0, 1, 1, 2, 0, 80]), "203.0.113.7"),
        (binary_header(0x21, 0x11, &with_extension), "203.0.113.7"),
        (binary_header(0x21, 0x21, &six), "2001:db8::9"),
        (binary_header(0x20, 0, &[]), "127.0.0.1"),
    ] {
        let answer = harness::Answer::parse(&harness::raw(pillion.http, [&header, GET].concat()));
        let seen = answer.json();
        assert_eq!(seen["fields"]["x-forwarded-for"], client, "{:?}", String::from_utf8_lossy(&header));
    }
    // Byte by byte, as a slow network may deliver it.
    let mut tcp = connect(pillion.http);
    for byte in [b"PROXY TCP4 203.0.113.8 127.0.0.1 1 2\r\n", GET].concat() {
        tcp.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_answer(&mut tcp).json()["fields"]["x-forwarded-for"], "203.0.113.8");
}

#[test]
fn a_trusted_peer_without_a_good_proxy_header_is_not_served() {
    let app = Script::echo();
    let pillion = proxied("127.0.0.0/8", app.address);
    for header in [
        &b""[..],
        b"PROXY TCP4 203.0.113.7 127.0.0.1 1111\r\n",
        b"PROXY TCP4 2001:db8::9 ::1 1111 80\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 1111 80\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 99999 80\r\n",
        &[b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n"].concat(),
        &binary_header(0x31, 0x11, &[203, 0, 113, 7, 127, 0, 0, 1, 1, 2, 0, 80]),
        &binary_header(0x2f, 0x11, &[203, 0, 113, 7, 127, 0, 0, 1, 1, 2, 0, 80]),
        &binary_header(0x21, 0x11, &[203, 0, 113, 7]),
    ] {
        let mut tcp = connect(pillion.http);
        let _ = tcp.write_all(&[header, GET].concat());
        let mut answer = Vec::new();
        // The connection is closed or reset, without a response.
        let _ = tcp.read_to_end(&mut answer);
        assert!(
            answer.is_empty(),
            "{:?}: {:?}",
            String::from_utf8_lossy(header),
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 0);
}

#[test]
fn an_untrusted_peer_cannot_name_its_address() {
    let pillion = proxied("10.0.0.0/8", Script::echo().address);
    let seen = curl_json(&[&pillion.url("/")]);
    assert_eq!(seen["fields"]["x-forwarded-for"], "127.0.0.1", "it speaks plain HTTP");
    let answer =
        exchange(pillion.http, "PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(matches!(answer.status, 400 | 505), "its PROXY header is no HTTP: {}", answer.head);
}

#[test]
fn the_proxy_header_stands_before_tls() {
    let folder = Authority::new().folder();
    let ca = folder.path("ca.pem").display().to_string();
    let pillion = Pillion::in_folder(
        folder,
        &local(&format!(
            "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]\n{TLS}[upstream]\nurl = \"http://{}\"\n",
            Script::echo().address
        )),
    );
    let url = format!("https://{}/", pillion.https.unwrap());
    let seen = curl_json(&["--haproxy-protocol", "--cacert", &ca, &url]);
    assert_eq!(seen["fields"]["x-forwarded-proto"], "https");
    let via = seen["fields"]["via"].as_str().unwrap();
    assert!(via.starts_with("2 pillion-"), "{via}");
    assert!(curl_fails(&["--cacert", &ca, &url]));
}
