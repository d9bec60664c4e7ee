//! `[server]` and `[server.tls]`.

use super::address::{Address, Addresses};
use super::declare::{Form, table};
use super::kind::{
    AutoNumber, AutoSize, Own, Switch, Text, Texts, Value, Word, auto_number, auto_size, duration, flag,
    number, size, size_within, texts, timeout,
};
use crate::config::table_reader::Size;
use crate::http1::head::MAX_FIELDS;
use crate::policy::underscores::Underscores;
use std::time::Duration;

/// The most that is buffered of one body.
const MAX_BUFFER: u64 = 64 << 20;

table! {
    /// `[server]`.
    server, in listeners, requires [];
    LISTEN "listen": Addresses = Addresses(&["[::]:8080"]), Restart,
        "Addresses that serve HTTP/1.1, and HTTP/2 with prior knowledge.";
    ADMIN "admin": Address = Address("127.0.0.1:9900"), Restart,
        "Address of the admin listener, or \"\" to turn it off.";
    PROBES "probes": Address = Address(""), Restart,
        "Address of the read-only listener for /live, /ready, /health and /metrics, or \"\" for none.";
    ADMIN_TOKEN "admin_token": Text = Text(""), Reload,
        "Bearer token of the admin listener, required when admin is not a loopback address.";
    ADMIN_HOSTS "admin_hosts": Texts = texts(&[]), Reload,
        "Further host names under which the admin listener responds without the token.";
    WORKERS "workers": AutoNumber = auto_number(1..=256), Restart,
        "Number of worker threads; \"auto\" takes the cores of the cgroup, at most 4.";
    MAX_CONNECTIONS "max_connections": Value<u64> = number(10_000, 1..=1 << 20), Reload,
        "Maximum number of client connections at once.";
    HEADER_TIMEOUT "header_timeout": Value<Duration> = timeout(10), Reload,
        "Maximum time from the first byte of a request head to its last, else 408.";
    BODY_TIMEOUT "body_timeout": Value<Duration> = timeout(60), Reload,
        "Maximum silence while a request body arrives, else 408.";
    SEND_TIMEOUT "send_timeout": Value<Duration> = timeout(60), Reload,
        "Maximum time for which a client may take nothing of its response.";
    IDLE_TIMEOUT "idle_timeout": Value<Duration> = timeout(75), Reload,
        "How long a client connection is kept between two requests.";
    STREAM_IDLE_TIMEOUT "stream_idle_timeout": Value<Duration> = timeout(3600), Reload,
        "Maximum silence of upgrades, streams and gRPC calls, in place of the other timeouts.";
    MAX_HEADER_SIZE "max_header_size": Value<Size> = size_within(64 << 10, 1024..=1 << 20), Reload,
        "Maximum size of a request head, else 431, and of an upstream's response head, else 502.";
    MAX_HEADERS "max_headers": Value<u64> = number(256, 8..=MAX_FIELDS as u64), Reload,
        "Maximum number of fields in a request or response head.";
    MAX_BODY_SIZE "max_body_size": AutoSize = auto_size(0), Reload,
        "Maximum size of a request body, else 413; \"auto\" sets no limit.";
    BUFFER_REQUEST "buffer_request": Value<Size> = size_within(64 << 10, 0..=MAX_BUFFER), Reload,
        "Maximum size of a request body that is received whole before the request takes a place at the upstream.";
    BUFFER_RESPONSE "buffer_response": Value<Size> = size_within(256 << 10, 0..=MAX_BUFFER), Reload,
        "Maximum number of bytes of each response that are read ahead of a slow client.";
    BUFFER_MEMORY "buffer_memory": AutoSize = auto_size(0), Reload,
        "Memory for all buffers together; \"auto\" is 64MiB, or an eighth of the cgroup's memory where that is less.";
    MIN_BODY_RATE "min_body_rate": Value<Size> = size(240), Reload,
        "Minimum number of bytes a second of a request body, else 408; \"0B\" accepts any rate.";
    H2_MAX_STREAMS "h2_max_streams": Value<u64> = number(128, 1..=65_536), Reload,
        "Maximum number of requests at once on one HTTP/2 connection.";
    TRUSTED_PROXIES "trusted_proxies": Texts = texts(&[]), Reload,
        "Networks, or \"private\", whose forwarding fields and PROXY headers are believed.";
    UNDERSCORES "underscores": Word<Underscores> =
        Word { words: &UNDERSCORE_WORDS, default: Underscores::Twins }, Reload,
        "Which request fields with an underscore in their names are dropped.";
    PROXY_PROTOCOL "proxy_protocol": Value<bool> = flag(false), Reload,
        "Whether trusted proxies begin every connection with a PROXY header (v1 or v2).";
    REDIRECT_HTTPS "redirect_https": Value<bool> = flag(false), Reload,
        "Whether http requests get a 308 to https.";
    DRAIN_DELAY "drain_delay": Value<Duration> = duration(0), Reload,
        "How long new connections are still served after SIGTERM, while /ready is 503.";
    DRAIN_TIMEOUT "drain_timeout": Value<Duration> = duration(20), Reload,
        "How long requests in flight may take after the drain delay.";
    WATCH "watch": Value<bool> = flag(true), Reload,
        "Whether Pillion reloads when the configuration file or a certificate is replaced.";
    TLS "tls": Switch = Switch(&server_tls::TABLE), Reload,
        "HTTPS listeners and their certificates.";
}

const UNDERSCORE_WORDS: [(&str, Underscores); 3] =
    [("twins", Underscores::Twins), ("drop", Underscores::Drop), ("pass", Underscores::Pass)];

table! {
    /// `[server.tls]`.
    server_tls, in listeners, requires ["certificates"];
    LISTEN "listen": Addresses = Addresses(&["[::]:8443"]), Restart,
        "Addresses that serve HTTPS, HTTP/2 by ALPN.";
    CERTIFICATES "certificates": Own = Own(Form::Tables(&certificate::TABLE)), Reload,
        "Certificates with their keys, chosen by SNI; the first one is the default.";
    CLIENT_CA "client_ca": Text = Text(""), Reload,
        "PEM file of the certificates by which clients must identify themselves, or \"\" to ask for none.";
}

table! {
    /// One of `certificates`.
    certificate, in listeners, requires ["cert", "key"];
    CERT "cert": Text = Text(""), Reload,
        "PEM file of the certificate chain.";
    KEY "key": Text = Text(""), Reload,
        "PEM file of the private key that belongs to cert.";
}
