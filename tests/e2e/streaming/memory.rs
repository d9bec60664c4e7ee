//! Tests of large bodies in little memory.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::tools::{Bulk, GIB, MIB, assert_flat, discard, generate, growth, head};
use crate::harness::{self, HTTP1, HTTP2, Pillion, cases, connect, read_answer};

#[test]
fn a_download_of_a_gibibyte_takes_little_memory() {
    let origin = Bulk::new(GIB);
    let pillion = Pillion::in_front_of(origin.app.address);
    let ((), grown) = growth(&pillion, || {
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let head = head(&mut tcp).unwrap();
        assert!(head.contains("content-length: 1073741824"), "{head}");
        assert_eq!(discard(&mut tcp, GIB), GIB);
    });
    assert_flat(grown, "the download");
}

#[test]
fn an_upload_of_a_gibibyte_takes_little_memory() {
    let origin = Bulk::new(0);
    let pillion = Pillion::in_front_of(origin.app.address);
    let (answer, grown) = growth(&pillion, || {
        let mut tcp = connect(pillion.http);
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n");
        tcp.write_all(head.as_bytes()).unwrap();
        assert!(generate(&mut tcp, GIB, &AtomicU64::new(0)));
        read_answer(&mut tcp)
    });
    assert_eq!((answer.status, answer.text()), (200, GIB.to_string()));
    assert_flat(grown, "the upload");
}

const LOG: [&str; 3] = ["-sS", "--max-time", "120"];

#[test]
fn so_do_downloads_of_http_2() {
    let size = 256 * MIB;
    let origin = Bulk::new(size);
    let pillion = Pillion::in_front_of(origin.app.address);
    let (said, grown) = growth(&pillion, || {
        let args = [HTTP2, "-o", "/dev/null", "-w", "%{http_version} %{size_download}", &pillion.url("/")];
        harness::run("curl", &[&LOG[..], &args].concat())
    });
    assert_eq!(said, format!("2 {size}"));
    assert_flat(grown, "the download over HTTP/2");
}

/// The length of data from a pipe is unknown.
fn so_do_uploads_of_unknown_length(version: &str) {
    let size = 256 * MIB;
    let origin = Bulk::new(size);
    let pillion = Pillion::in_front_of(origin.app.address);
    let (said, grown) = growth(&pillion, || {
        let mut curl = Command::new("curl")
            .args(LOG)
            .args([version, "-T", "-", &pillion.url("/")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = curl.stdin.take().unwrap();
        std::io::copy(&mut std::io::repeat(b'u').take(size), &mut pipe).unwrap();
        drop(pipe);
        String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap()
    });
    assert_eq!(said, size.to_string(), "{version}");
    assert_flat(grown, &format!("the upload, {version}"));
}

cases! { so_do_uploads_of_unknown_length:
    so_do_uploads_of_unknown_length_over_http1 => HTTP1;
    so_do_uploads_of_unknown_length_over_http2 => HTTP2;
}

/// Downloads and uploads over TLS, or to an app over HTTP/2.
fn so_do_those(scheme: &str, version: &str) {
    let size = 256 * MIB;
    let origin = Bulk::new(size);
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = Arc::new(harness::Folder::new());
    folder.write("tls.crt", key.cert.pem());
    folder.write("tls.key", key.signing_key.serialize_pem());
    let back = harness::Nginx::serving(&format!(
        "client_max_body_size 0; server {{ listen LISTEN http2; location / {{ proxy_pass http://{}; proxy_buffering off;\n\
         proxy_request_buffering off; proxy_http_version 1.1; }} }}",
        origin.app.address
    ));
    let pillion = Pillion::in_folder(
        folder,
        &format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
             certificates = [{{ cert = \"tls.crt\", key = \"tls.key\" }}]\n[upstream]\nurl = \"http://{}\"\n\
             [upstreams.h2c]\nurl = \"h2c://{}\"\n[[routes]]\nmatch = \"* /h2c\"\nupstream = \"h2c\"\n",
            origin.app.address, back.address
        ),
    );
    let url = match scheme {
        "https" => format!("https://{}/", pillion.https.unwrap()),
        _ => pillion.url("/h2c"),
    };
    let file = pillion.folder.path("upload");
    std::fs::File::create(&file).unwrap().set_len(size).unwrap();
    let file = file.to_str().unwrap();
    let args = ["-sSk", "--max-time", "120", version, &url];
    let (said, grown) = growth(&pillion, || {
        harness::run("curl", &[&args[..], &["-o", "/dev/null", "-w", "%{size_download}"]].concat())
    });
    assert_eq!(said, size.to_string(), "{version} {url}");
    assert_flat(grown, &format!("the download, {version} {url}"));
    let (said, grown) = growth(&pillion, || harness::run("curl", &[&args[..], &["-T", file]].concat()));
    assert_eq!(said, size.to_string(), "{version} {url}");
    assert_flat(grown, &format!("the upload, {version} {url}"));
}

cases! { so_do_those:
    so_do_those_over_tls_over_http1 => "https", HTTP1;
    so_do_those_over_tls_over_http2 => "https", "--http2";
    so_do_those_to_an_app_of_http_2_over_http1 => "h2c", HTTP1;
    so_do_those_to_an_app_of_http_2_over_http2 => "h2c", HTTP2;
}
