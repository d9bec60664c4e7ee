//! The ways in which Redis is reached: TLS, users and passwords, sockets, sentinels, clusters, Valkey.

use std::process::{Command, Stdio};
use std::sync::Arc;

use super::{changes, in_fleet, sees, two};
use crate::cache::tools::RULES;
use crate::harness::origin::*;
use crate::harness::redis::RedisServer;
use crate::harness::*;

/// Writes through one process, and waits until the other has noticed.
fn works(one: &Pillion, other: &Pillion) {
    let before = get(other, "/orders/1").text();
    assert_eq!(ask(one, "POST /orders/1", &["content-length: 0"]).status, 200);
    changes(other, "/orders/1", &before);
}

/// A route under a limit of three requests.
const LIMITED: &str = "\n[[routes]]\nmatch = \"GET /limited\"\nlimits = [\"few\"]\n\
    [rate_limit.tiers.free.limits]\nfew = { rate = \"3/h\", on = \"named\" }\n";

/// Lets both processes count one limit together.
fn counts(one: &Pillion, other: &Pillion) {
    let statuses = [one, other, one, other, one].map(|pillion| get(pillion, "/limited").status);
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}

#[test]
fn tls_with_a_private_ca_a_user_and_a_password_in_a_file() {
    let folder = Arc::new(Folder::new());
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "30", "-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(folder.path("key.pem"))
        .arg("-out")
        .arg(folder.path("cert.pem"))
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    folder.write("password", "s3cret: @/\n");
    let plain = free_address();
    // The user that the guide names, with no more than it names.
    let guide = include_str!("../../../docs/fleet.md");
    let user = guide.lines().find(|line| line.starts_with("user pillion on ")).unwrap();
    let allowed = user.replace(">PASSWORD", "\">s3cret: @/\"").replace("{clinic}", "{test}");
    let options = [
        &format!("tls-port {}", plain.port()),
        "tls-cert-file FOLDER/cert.pem",
        "tls-key-file FOLDER/key.pem",
        "tls-auth-clients no",
        "user default off",
        &allowed,
    ];
    let _redis = RedisServer::of("redis-server", folder.clone(), &options);
    let origin = Origin::new();
    let url = format!("rediss://pillion@127.0.0.1:{}", plain.port());
    let text = in_fleet(origin.script.address, &url).text() + LIMITED + RULES;
    let text = text.replace(
        "prefix = \"test\"",
        &format!(
            "prefix = \"test\"\nca = \"{0}/cert.pem\"\npassword_file = \"{0}/password\"",
            folder.0.display()
        ),
    );
    let [one, other] = [(); 2].map(|()| Pillion::with(&text));
    sees(&one, 2);
    sees(&other, 2);
    works(&one, &other);
    counts(&one, &other);
    // The file is read at each connect.
    folder.write("password", "wrong\n");
    let third = Pillion::with(&text);
    let detail = eventually("the password is refused", || {
        let detail = third.admin_get("/health/redis").json()["detail"].as_str().unwrap().to_owned();
        detail.contains("the password is wrong").then_some(detail)
    });
    assert!(!detail.contains("s3cret"));
}

#[test]
fn a_socket() {
    let folder = Arc::new(Folder::new());
    let _redis = RedisServer::of("redis-server", folder.clone(), &["unixsocket FOLDER/redis.sock"]);
    let origin = Origin::new();
    let url = format!("redis+unix://{}", folder.path("redis.sock").display());
    let [one, other] = two(origin.script.address, &url, &(LIMITED.to_owned() + RULES));
    works(&one, &other);
    counts(&one, &other);
}

#[test]
fn sentinels_name_the_primary_and_another_after_a_failover() {
    // The servers have a password, the sentinel has none.
    let password = ["requirepass s3cret", "masterauth s3cret"];
    let mut primary = RedisServer::with(&password);
    let of_primary = format!("replicaof 127.0.0.1 {}", primary.address.port());
    let replica = RedisServer::with(&[&of_primary, password[0], password[1]]);
    eventually("the replica follows", || {
        replica.run(&["-a", "s3cret", "INFO", "replication"]).contains("master_link_status:up").then_some(())
    });
    let options = [
        &format!("sentinel monitor main 127.0.0.1 {} 1", primary.address.port()),
        "sentinel auth-pass main s3cret",
        "sentinel down-after-milliseconds main 500",
        "sentinel failover-timeout main 3000",
    ];
    let sentinel = RedisServer::of("redis-sentinel", Arc::new(Folder::new()), &options);
    eventually("the sentinel knows the replica", || {
        sentinel.run(&["SENTINEL", "replicas", "main"]).contains("slave").then_some(())
    });
    let origin = Origin::new();
    let [one, other] =
        two(origin.script.address, &format!("redis+sentinel://:s3cret@{}/main", sentinel.address), RULES);
    works(&one, &other);
    let before = get(&other, "/orders/1").text();
    primary.kill();
    for _ in 0..3 {
        assert_eq!(ask(&one, "POST /orders/1", &["content-length: 0"]).status, 200);
    }
    changes(&other, "/orders/1", &before);
    sees(&one, 2);
    works(&one, &other);
}

#[test]
fn a_cluster_of_valkey() {
    let options = ["cluster-enabled yes", "cluster-node-timeout 2000"];
    let nodes = [(); 3].map(|()| RedisServer::valkey(&options));
    for (node, slots) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
        assert!(node.run(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]).contains("OK"));
        let (ip, port) = (node.address.ip().to_string(), node.address.port().to_string());
        assert!(nodes[0].run(&["CLUSTER", "MEET", &ip, &port]).contains("OK"));
    }
    for node in &nodes {
        eventually("the cluster is complete", || {
            node.run(&["CLUSTER", "INFO"]).contains("cluster_state:ok").then_some(())
        });
    }
    let hosts: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
    let origin = Origin::new();
    let [one, other] = two(
        origin.script.address,
        &format!("redis+cluster://{}", hosts.join(",")),
        &(LIMITED.to_owned() + RULES),
    );
    works(&one, &other);
    counts(&one, &other);
}
