//! Tests of `pillion check --connect`: it tries what the file names.

use std::process::Command;

use serde_json::Value;

use crate::harness::redis::RedisServer;
use crate::harness::{Folder, Script, binary, free_address, printed};

fn check(text: &str, more: &[&str]) -> (i32, String, String) {
    let folder = Folder::new();
    let file = folder.write("pillion.toml", text);
    let output =
        Command::new(binary()).args(["check", "--connect"]).args(more).arg(file).env_clear().output();
    let output = output.unwrap();
    (output.status.code().unwrap(), printed(&output.stdout), printed(&output.stderr))
}

fn configuration(app: std::net::SocketAddr, redis: &str) -> String {
    format!(
        "[upstream]\nurl = \"http://{app}\"\n[identity]\nhash_key = \"0123456789abcdef0123456789abcdef\"\n\
         [redis]\nurl = \"{redis}\"\nprefix = \"test\"\n"
    )
}

#[test]
fn check_connects_to_the_upstream_and_to_redis() {
    let (app, redis) = (
        Script::echo(),
        RedisServer::with(&["requirepass s3cret", "maxmemory 100mb", "maxmemory-policy allkeys-lru"]),
    );
    let url = format!("redis://:s3cret@{}", redis.address);
    let (code, out, err) = check(&configuration(app.address, &url), &[]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains(&format!("upstream http://{}: it accepts connections\n", app.address)), "{out}");
    assert!(out.contains("version 7") && out.contains(&redis.address.to_string()), "{out}");
    assert!(out.contains("allkeys-lru") && !out.contains("s3cret"), "{out}");
}

#[test]
fn check_tells_what_cannot_be_reached() {
    let (app, redis) = (Script::echo(), RedisServer::with(&["requirepass s3cret"]));
    let nobody = free_address();
    for (text, wanted) in [
        (
            configuration(nobody, &format!("redis://:s3cret@{}", redis.address)),
            format!("upstream http://{nobody}: "),
        ),
        (
            configuration(app.address, &format!("redis://:wr0ng@{}", redis.address)),
            "the password is wrong".to_owned(),
        ),
        (configuration(app.address, &format!("redis://{nobody}")), "Connection refused".to_owned()),
    ] {
        let (code, out, err) = check(&text, &[]);
        assert!(code == 2 && err.contains(&wanted) && out.contains(": fine"), "{code} {out} {err}");
        assert!(!err.contains("s3cret") && !err.contains("wr0ng"), "{err}");
        let (_, json, _) = check(&text, &["--format", "json"]);
        let document: Value = serde_json::from_str(&json).unwrap();
        let all = document["connections"].as_array().unwrap();
        assert_eq!(all.iter().filter(|attempt| attempt["fine"] == false).count(), 1, "{json}");
        let (_, github, _) = check(&text, &["--format", "github"]);
        assert!(github.contains("::error file="), "{github}");
    }
}
