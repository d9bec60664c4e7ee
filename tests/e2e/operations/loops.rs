//! Tests of requests that loop back to Pillion.

use std::process::Command;

use crate::harness::*;

/// Regression: a GET waited for its own collapsed fetch until a timeout.
#[test]
fn n3_11_a_request_that_comes_back_is_508_at_once() {
    let (one, other) = (free_address(), free_address());
    let config = |listen, upstream| {
        format!(
            "[server]\nlisten = [\"{listen}\"]\nadmin = \"127.0.0.1:0\"\n[upstream]\nurl = \"http://{upstream}\"\n"
        )
    };
    let (pillion, _other) = (Pillion::with(&config(one, other)), Pillion::with(&config(other, one)));
    for (line, body) in [("GET /a", ""), ("HEAD /a", ""), ("POST /a", "content-length: 0\r\n")] {
        let began = now();
        let found =
            exchange(pillion.http, &format!("{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{body}\r\n"));
        assert_eq!(found.status, 508, "{line}: {}", found.head);
        assert!(now() - began < std::time::Duration::from_secs(5), "{line}");
    }
    assert!(pillion.get("/a").text().contains("urn:pillion:problem:loop"));
    let over_2 = run("curl", &["-s", "-i", "--http2-prior-knowledge", &pillion.url("/b")]);
    assert!(over_2.starts_with("HTTP/2 508"), "{over_2}");
}

#[test]
fn n3_11_a_way_through_two_pillions_is_no_loop() {
    let app = Script::echo();
    let inner = Pillion::in_front_of(app.address);
    let outer = Pillion::in_front_of(inner.http);
    let seen = outer.get("/a").json();
    let via = seen["fields"]["via"].as_str().unwrap().to_owned();
    let mut elements = via.split(", ");
    let (first, second) = (elements.next().unwrap(), elements.next().unwrap());
    assert!(first.starts_with("1.1 pillion-") && second.starts_with("1.1 pillion-"), "{via}");
    assert_ne!(first, second, "each process has its own");
    // Only the apps of a Pillion know its pseudonym. A client that sends it is refused, and no other client is
    // affected.
    let said = format!("GET /a HTTP/1.1\r\nhost: a\r\nvia: 1.0 fred, {second}\r\nconnection: close\r\n\r\n");
    assert_eq!(exchange(inner.http, &said).status, 508);
    assert_eq!(exchange(outer.http, &said.replace(second, "1.1 pillion")).status, 200);
    let many = ["1.1 pillion-0000000000000000"; 11].join(", ");
    let said = format!("GET /a HTTP/1.1\r\nhost: a\r\nvia: {many}\r\nconnection: close\r\n\r\n");
    assert_eq!(exchange(outer.http, &said).status, 508, "more hops than lead anywhere");
}

#[test]
fn n3_11_an_upstream_that_is_an_own_listener_is_a_mistake() {
    let folder = Folder::new();
    let check = |listen: &str, url: &str, more: &str| {
        let text = format!(
            "[server]\nlisten = [\"{listen}\"]\nadmin = \"127.0.0.1:9900\"\nprobes = \"127.0.0.1:9901\"\n\
             [upstream]\nurl = \"{url}\"\n{more}"
        );
        let path = folder.write("pillion.toml", text);
        let output = Command::new(binary()).arg("check").arg(path).output().unwrap();
        let text = printed(&output.stdout);
        (output.status.success(), text + &printed(&output.stderr))
    };
    for (listen, url, more) in [
        ("[::]:8080", "http://127.0.0.1:8080", ""),
        ("[::]:8080", "http://localhost:8080", ""),
        ("[::]:8080", "http://[::1]:8080", ""),
        ("0.0.0.0:8080", "h2c://127.0.0.1:8080", ""),
        ("127.0.0.1:8080", "http://127.0.0.1:9900", ""),
        ("127.0.0.1:8080", "http://127.0.0.1:9901", ""),
        ("[::]:80", "http://127.0.0.1", ""),
        ("[::]:8080", "http://127.0.0.1:3000", "replicas = [\"http://127.0.0.1:8080\"]\n"),
        ("[::]:8080", "http://127.0.0.1:3000", "[upstreams.a]\nurl = \"http://127.0.0.1:8080\"\n"),
    ] {
        let (fine, said) = check(listen, url, more);
        assert!(
            !fine && said.contains("of Pillion itself") && said.contains("pillion.toml:"),
            "{url}: {said}"
        );
    }
    for (listen, url) in [
        ("[::]:8080", "http://127.0.0.1:3000"),
        ("[::]:8080", "http://10.1.2.3:8080"),
        ("[::]:8080", "http://app:8080"),
        ("127.0.0.1:8080", "http://127.0.0.2:8080"),
    ] {
        let (fine, said) = check(listen, url, "");
        assert!(fine, "{listen} {url}: {said}");
    }
}
