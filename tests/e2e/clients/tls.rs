//! Tests of TLS with clients.

use std::io::Write;
use std::process::{Command, Stdio};

use super::tools::{Authority, TLS, curl, curl_fails, curl_json, local, with_tls};
use crate::harness::{Pillion, Script, exchange, free_address};

#[test]
fn tls_1_2_and_1_3_offer_both_http_versions_by_alpn() {
    let app = Script::echo();
    let (pillion, ca) = with_tls(app.address);
    let url = format!("https://{}/", pillion.https.unwrap());
    let version =
        ["-o", "/dev/null", "-w", "%{http_version} %{http_code} %{ssl_verify_result}", "--cacert", &ca];
    for tls in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"][..]] {
        assert_eq!(curl(&[&version[..], tls, &[&url]].concat()), "2 200 0", "{tls:?}: HTTP/2 by default");
        assert_eq!(curl(&[&version[..], tls, &["--http1.1", &url]].concat()), "1.1 200 0", "{tls:?}");
        assert_eq!(
            curl(&[&version[..], tls, &["--no-alpn", &url]].concat()),
            "1.1 200 0",
            "{tls:?}: without ALPN"
        );
    }
    assert!(
        curl_fails(&["--cacert", &ca, "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", &url]),
        "no TLS 1.1"
    );
    let seen = curl_json(&["--cacert", &ca, &url])["fields"].clone();
    assert_eq!(seen["x-forwarded-proto"], "https");
    assert!(seen["forwarded"].as_str().unwrap().ends_with(";proto=https"), "{seen}");
    let seen = curl_json(&[&pillion.url("/")])["fields"].clone();
    assert_eq!(seen["x-forwarded-proto"], "http", "the cleartext listener beside it");
}

/// Returns the output of `openssl s_client` during one request.
fn s_client(args: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-ign_eof"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let _ = child.stdin.take().unwrap().write_all(request);
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

#[test]
fn tls_sessions_are_resumed() {
    let app = Script::echo();
    let (pillion, ca) = with_tls(app.address);
    let address = pillion.https.unwrap().to_string();
    for tls in ["-tls1_2", "-tls1_3"] {
        let file = pillion.folder.path(&format!("session{tls}"));
        let session = file.to_str().unwrap();
        let first = s_client(&["-connect", &address, "-CAfile", &ca, tls, "-sess_out", session]);
        assert!(first.contains("New, TLSv1.") && first.contains("HTTP/1.1 200"), "{tls}: {first}");
        let again = s_client(&["-connect", &address, "-CAfile", &ca, tls, "-sess_in", session]);
        assert!(again.contains("Reused, TLSv1.") && again.contains("HTTP/1.1 200"), "{tls}: {again}");
    }
}

#[test]
fn certificates_are_chosen_by_name_and_the_first_is_the_default() {
    let authority = Authority::new();
    let folder = authority.folder();
    authority.issue(&folder, "shop", &["shop.test", "www.shop.test"]);
    authority.issue(&folder, "wild", &["*.wild.test"]);
    let pillion = Pillion::in_folder(
        folder,
        &local(&format!(
            "[server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [\n{{ cert = \"tls.crt\", key = \"tls.key\" }},\n\
             {{ cert = \"shop.crt\", key = \"shop.key\" }},\n{{ cert = \"wild.crt\", key = \"wild.key\" }}]\n\
             [upstream]\nurl = \"http://{}\"\n",
            Script::echo().address
        )),
    );
    let address = pillion.https.unwrap().to_string();
    for (name, subject) in [
        ("shop.test", "shop.test"),
        ("www.shop.test", "shop.test"),
        ("WWW.Shop.Test", "shop.test"),
        ("a.wild.test", "*.wild.test"),
        ("a.b.wild.test", "pillion.test"),
        ("wild.test", "pillion.test"),
        ("unknown.test", "pillion.test"),
        ("", "pillion.test"),
    ] {
        let asked = if name.is_empty() { vec!["-noservername"] } else { vec!["-servername", name] };
        let said = s_client(&[&["-connect", &address][..], &asked].concat());
        assert!(said.contains(&format!("subject=CN = {subject}")), "{name:?}: {said}");
    }
}

#[test]
fn client_certificates_are_required_where_an_authority_is_named() {
    let authority = Authority::new();
    let folder = authority.folder();
    authority.issue(&folder, "client", &["client.test"]);
    Authority::new().issue(&folder, "stranger", &["client.test"]);
    let at = |name: &str| folder.path(name).display().to_string();
    let files: [String; 5] = ["ca.pem", "client.crt", "client.key", "stranger.crt", "stranger.key"].map(at);
    let [ca, cert, key, strange_cert, strange_key] = files.each_ref().map(String::as_str);
    let config =
        format!("{TLS}client_ca = \"ca.pem\"\n[upstream]\nurl = \"http://{}\"\n", Script::echo().address);
    let pillion = Pillion::in_folder(folder.clone(), &local(&config));
    let url = format!("https://{}/", pillion.https.unwrap());
    for tls in [&["--tls-max", "1.2"][..], &["--tlsv1.3"][..]] {
        let said = curl(
            &[
                tls,
                &[
                    "--cacert",
                    ca,
                    "--cert",
                    cert,
                    "--key",
                    key,
                    "-w",
                    "%{http_code}",
                    "-o",
                    "/dev/null",
                    &url,
                ],
            ]
            .concat(),
        );
        assert_eq!(said, "200", "{tls:?}");
        assert!(curl_fails(&[tls, &["--cacert", ca, &url]].concat()), "{tls:?}: without a certificate");
        let stranger = ["--cacert", ca, "--cert", strange_cert, "--key", strange_key, &url];
        assert!(curl_fails(&[tls, &stranger].concat()), "{tls:?}: of another authority");
    }
}

#[test]
fn certificates_are_read_again_at_reload_without_losing_connections() {
    let (pillion, _) = with_tls(Script::echo().address);
    let address = pillion.https.unwrap().to_string();
    assert!(s_client(&["-connect", &address]).contains("subject=CN = pillion.test"));
    Authority::new().issue(&pillion.folder, "tls", &["renewed.test", "127.0.0.1"]);
    let config = std::fs::read_to_string(pillion.folder.path("pillion.toml")).unwrap();
    pillion.reload(&config);
    assert!(s_client(&["-connect", &address]).contains("subject=CN = renewed.test"), "{}", pillion.log());
    let named = |line: &str| line.contains("configuration reloaded") && line.contains("tls.crt");
    assert!(pillion.log().lines().any(named), "the log names what changed: {}", pillion.log());
}

#[test]
fn cleartext_is_redirected_to_https() {
    let folder = Authority::new().folder();
    let ca = folder.path("ca.pem").display().to_string();
    let tls = TLS.replace("127.0.0.1:0", &free_address().to_string());
    let app = Script::echo();
    let pillion = Pillion::in_folder(
        folder,
        &local(&format!(
            "redirect_https = true\ntrusted_proxies = [\"127.0.0.0/8\"]\n{tls}[upstream]\nurl = \"http://{}\"\n",
            app.address
        )),
    );
    let https = pillion.https.unwrap();
    let url = pillion.url("/a?b=1");
    let said = curl(&["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", &url]);
    assert_eq!(said, format!("308 https://{https}/a?b=1"));
    let followed = curl_json(&["-L", "--cacert", &ca, "-d", "kept", &url]);
    assert_eq!((&followed["method"], &followed["body"]), (&"POST".into(), &"kept".into()));
    let options = exchange(pillion.http, "OPTIONS * HTTP/1.1\r\nhost: x.test\r\nconnection: close\r\n\r\n");
    let there = options.field("location").unwrap();
    assert!(options.status == 308 && there.starts_with("https://x.test") && there.ends_with('/'), "{there}");
    assert_eq!(exchange(pillion.http, "GET /a HTTP/1.0\r\n\r\n").status, 400, "nowhere to be sent to");
    let behind = curl(&["-o", "/dev/null", "-w", "%{http_code}", "-H", "X-Forwarded-Proto: https", &url]);
    assert_eq!(behind, "200", "an edge that has ended TLS already is believed");
}

#[test]
fn answers_ended_by_closing_are_closed_properly_under_tls() {
    let app = Script::answering(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec()
    });
    let (pillion, ca) = with_tls(app.address);
    let url = format!("https://{}/", pillion.https.unwrap());
    // Without close_notify OpenSSL reports a truncation.
    assert_eq!(curl(&["--http1.0", "--no-alpn", "--cacert", &ca, &url]), "hello");
}

#[test]
fn http_1_0_is_negotiated_over_tls_too() {
    let (pillion, ca) = with_tls(Script::echo().address);
    let url = format!("https://{}/", pillion.https.unwrap());
    // With this option curl offers only "http/1.0".
    assert_eq!(curl(&["--http1.0", "--cacert", &ca, "-o", "/dev/null", "-w", "%{http_code}", &url]), "200");
}

#[test]
fn a_reload_that_asks_for_client_certificates_is_not_walked_around_by_old_sessions() {
    let (pillion, ca) = with_tls(Script::echo().address);
    let address = pillion.https.unwrap().to_string();
    let file = pillion.folder.path("session");
    let session = file.to_str().unwrap();
    let first = s_client(&["-connect", &address, "-CAfile", &ca, "-sess_out", session]);
    assert!(first.contains("HTTP/1.1 200"), "{first}");
    let config = std::fs::read_to_string(pillion.folder.path("pillion.toml")).unwrap();
    pillion.reload(&config.replace("certificates =", "client_ca = \"ca.pem\"\ncertificates ="));
    let again = s_client(&["-connect", &address, "-CAfile", &ca, "-sess_in", session]);
    assert!(!again.contains("HTTP/1.1 200"), "{again}");
}
