//! Helpers that several of these tests use.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Folder, PATIENCE, Pillion, Script, ok, run};

/// Returns the output of curl, with its messages on standard error.
#[track_caller]
pub(crate) fn curl(args: &[&str]) -> String {
    let all: Vec<&str> = ["-sS", "--max-time", "20", "--stderr", "-"].iter().chain(args).copied().collect();
    run("curl", &all)
}

/// Returns whether curl exited with an error.
pub(crate) fn curl_fails(args: &[&str]) -> bool {
    let status =
        Command::new("curl").args(["-s", "--max-time", "20"]).args(args).stdout(Stdio::null()).status();
    !status.unwrap().success()
}

/// Returns the JSON of the echo app that curl received.
#[track_caller]
pub(crate) fn curl_json(args: &[&str]) -> serde_json::Value {
    let text = curl(args);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub(crate) fn local(tail: &str) -> String {
    format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{tail}")
}

/// A certificate authority for one test.
pub(crate) struct Authority {
    pub issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a test's own CA");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Writes FILE.crt and FILE.key for these hosts. The first is the subject's common name too.
    pub(crate) fn issue(&self, folder: &Folder, file: &str, hosts: &[&str]) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts.clone()).unwrap();
        params.distinguished_name.push(DnType::CommonName, hosts.first().unwrap());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        folder.write(&format!("{file}.crt"), certificate.pem());
        folder.write(&format!("{file}.key"), key.serialize_pem());
    }

    /// Creates a folder with `ca.pem` and a certificate `tls` for 127.0.0.1 and pillion.test.
    pub(crate) fn folder(&self) -> Arc<Folder> {
        let folder = Arc::new(Folder::new());
        folder.write("ca.pem", &self.pem);
        self.issue(&folder, "tls", &["pillion.test", "127.0.0.1"]);
        folder
    }
}

pub(crate) const TLS: &str = "[server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
                   certificates = [{ cert = \"tls.crt\", key = \"tls.key\" }]\n";

/// Starts Pillion with TLS in front of `app`. Returns it with the path of `ca.pem`.
pub(crate) fn with_tls(app: SocketAddr) -> (Pillion, String) {
    let folder = Authority::new().folder();
    let ca = folder.path("ca.pem").display().to_string();
    let pillion = Pillion::in_folder(folder, &local(&format!("{TLS}[upstream]\nurl = \"http://{app}\"\n")));
    (pillion, ca)
}

pub(crate) async fn h2_client(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client.ready().await.unwrap()
}

pub(crate) async fn h2_text(body: &mut h2::RecvStream) -> String {
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        content.extend_from_slice(&data);
    }
    String::from_utf8(content).unwrap()
}

pub(crate) fn tls_connector(authority: &Authority, protocol: &[u8]) -> tokio_rustls::TlsConnector {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config).into()
}

pub(crate) async fn h2_bytes(body: &mut h2::RecvStream, count: usize) -> Vec<u8> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let data = tokio::time::timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        seen.extend_from_slice(&data);
    }
    seen
}

/// Starts an h2c app that reports how each request ended: complete, or with an error.
pub(crate) async fn h2c_listener() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<&'static str>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, ends) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = crate::harness::accept(&listener).await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(tcp).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let sender = sender.clone();
                    sender.send("began").unwrap();
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        let end = loop {
                            match body.data().await {
                                Some(Ok(data)) => body.flow_control().release_capacity(data.len()).unwrap(),
                                Some(Err(_)) => break "broken off",
                                None => break "whole",
                            }
                        };
                        sender.send(end).unwrap();
                        let mut respond = respond;
                        if end == "whole" && std::future::poll_fn(|cx| respond.poll_reset(cx)).await.is_ok() {
                            sender.send("cancelled").unwrap();
                        }
                    });
                }
            });
        }
    });
    (address, ends)
}

/// Starts an app that reads chunks and the trailer `x-sum: 42`, if there is one, and reports all of it.
pub(crate) fn until_trailers(told: impl Fn(String) + Send + Sync + 'static) -> Script {
    Script::new(move |mut tcp| {
        let mut seen = Vec::new();
        let mut some = [0u8; 1024];
        while !seen.ends_with(b"x-sum: 42\r\n\r\n") && !seen.ends_with(b"0\r\n\r\n") {
            match tcp.read(&mut some) {
                Ok(count) if count > 0 => seen.extend_from_slice(&some[..count]),
                _ => break,
            }
        }
        tcp.write_all(&ok("thanks")).unwrap();
        told(String::from_utf8_lossy(&seen).into_owned());
    })
}
