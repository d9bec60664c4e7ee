//! `[upstream]`, and each of `[upstreams]`.

use super::address::{Addresses, OptionalAddress};
use super::declare::table;
use super::kind::{Sub, Text, Value, Word, duration, flag, number, timeout};
use std::time::Duration;

table! {
    /// `[upstream]` and each of `[upstreams]`.
    upstream, in upstreams, requires [];
    URL "url": OptionalAddress = OptionalAddress, Reload,
        "URL of the upstream: http://, https://, h2c:// (HTTP/2 with prior knowledge) or unix:.";
    REPLICAS "replicas": Addresses = Addresses(&[]), Reload,
        "URLs of further instances, which share GET, HEAD, OPTIONS and QUERY requests.";
    WRITES_TO "writes_to": Word<bool> = Word { words: &[("primary", false), ("any", true)], default: false }, Reload,
        "Whether all other methods go to url alone (\"primary\") or to replicas too (\"any\").";
    CONNECT_TIMEOUT "connect_timeout": Value<Duration> = timeout(1), Reload,
        "Maximum time for name resolution, TCP and TLS.";
    RESPONSE_TIMEOUT "response_timeout": Value<Duration> = timeout(60), Reload,
        "Maximum time from the last byte of the request to the head of the response, else 504.";
    BODY_TIMEOUT "body_timeout": Value<Duration> = timeout(60), Reload,
        "Maximum silence while a response body arrives.";
    MAX_CONNECTIONS "max_connections": Value<u64> = number(256, 1..=1 << 20), Reload,
        "Maximum number of connections in use at once to each address.";
    MAX_STREAMS "max_streams": Value<u64> = number(10_000, 1..=1 << 20), Reload,
        "Maximum number of streams at once to each address, which do not count in max_connections.";
    MAX_WAITING "max_waiting": Value<u64> = number(1024, 0..=1 << 20), Reload,
        "Maximum number of requests that wait for a connection, else 503.";
    QUEUE_TIMEOUT "queue_timeout": Value<Duration> = timeout(1), Reload,
        "Maximum time a request waits for a connection, else 503.";
    KEEP_ALIVE "keep_alive": Value<Duration> = duration(4), Reload,
        "How long an idle connection to the upstream is kept.";
    RETRIES "retries": Value<u64> = number(2, 0..=10), Reload,
        "Maximum number of further attempts for a request that may be sent again.";
    PRESERVE_HOST "preserve_host": Value<bool> = flag(true), Reload,
        "Whether the upstream gets the client's Host instead of the host of url.";
    ADAPTIVE_CONCURRENCY "adaptive_concurrency": Value<bool> = flag(false), Reload,
        "Whether the limit of requests in flight follows the upstream's latency.";
    TLS "tls": Sub = Sub(&upstream_tls::TABLE), Reload,
        "How an https upstream is verified.";
    HEALTH "health": Sub = Sub(&upstream_health::TABLE), Reload,
        "How failed addresses are found and tried again.";
}

table! {
    /// `tls` of an upstream.
    upstream_tls, in upstreams, requires [];
    CA "ca": Text = Text(""), Reload,
        "PEM file of CAs, or of the upstream's own certificate; \"\" takes the system's roots.";
    CERT "cert": Text = Text(""), Reload,
        "PEM file of the client certificate that the upstream gets.";
    KEY "key": Text = Text(""), Reload,
        "PEM file of the private key of the client certificate.";
    SERVER_NAME "server_name": Text = Text(""), Reload,
        "Name that the upstream's certificate must have; \"\" takes the host of url.";
}

table! {
    /// `health` of an upstream.
    upstream_health, in upstreams, requires [];
    PATH "path": Text = Text(""), Reload,
        "Path of the health check; with \"\" only failed addresses are checked, by TCP.";
    INTERVAL "interval": Value<Duration> = timeout(5), Reload,
        "Time between two health checks of an address.";
    TIMEOUT "timeout": Value<Duration> = timeout(1), Reload,
        "Maximum time of one health check.";
    UNHEALTHY_AFTER "unhealthy_after": Value<u64> = number(3, 1..=1000), Reload,
        "Number of failures in a row after which an address is unhealthy.";
    HEALTHY_AFTER "healthy_after": Value<u64> = number(2, 1..=1000), Reload,
        "Number of successes in a row after which an address is healthy again.";
}
