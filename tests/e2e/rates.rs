//! Test with a real load generator over a minute, two workers and 64 connections: every tier of the example contract
//! gets its rate.

use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::harness::origin::Origin;
use crate::harness::*;

/// Duration in seconds: three more than a minute, so that no tier's last request is due at the very end.
const SECONDS: u64 = 63;
const CONNECTIONS: usize = 16;
/// Requests a second on each connection: more than any tier allows, but no flood.
const PACE: usize = 25;

struct Tier {
    name: &'static str,
    rate: u64,
    burst: u64,
}

const TIERS: [Tier; 4] = [
    Tier { name: "free", rate: 10, burst: 2 },
    Tier { name: "standard", rate: 100, burst: 20 },
    Tier { name: "pro", rate: 1000, burst: 100 },
    Tier { name: "enterprise", rate: 10_000, burst: 1000 },
];

#[test]
fn every_tier_gets_its_rate_over_a_minute() {
    let origin = Origin::new();
    let folder = Arc::new(Folder::new());
    let digest = |name: &str| {
        let output = run("sh", &["-c", &format!("printf %s key-{name} | sha256sum")]);
        output.split(' ').next().unwrap().to_owned()
    };
    let keys: String = TIERS
        .iter()
        .map(|Tier { name, .. }| {
            format!("[[keys]]\nsha256 = \"{}\"\ntier = \"{name}\"\nname = \"{name}\"\n", digest(name))
        })
        .collect();
    folder.write("keys.toml", keys);
    let tiers: String = TIERS
        .iter()
        .map(|Tier { name, rate, burst }| {
            format!(
                "[rate_limit.tiers.{name}.limits]\nrequests = {{ rate = \"{rate}/min\", burst = {burst} }}\n"
            )
        })
        .collect();
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nworkers = 2\n[log]\naccess = \"off\"\n\
         [upstream]\nurl = \"http://{}\"\n[rate_limit]\nkeys = \"keys.toml\"\n{tiers}",
        origin.script.address
    );
    let pillion = Pillion::in_folder(folder, &config);
    let load = |name: &str| {
        Command::new("h2load")
            .args(["--h1", &format!("-c{CONNECTIONS}"), &format!("-D{SECONDS}"), &format!("--rps={PACE}")])
            .args(["-H", &format!("x-api-key: key-{name}"), &pillion.url("/")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let loads: Vec<_> = TIERS.iter().map(|tier| (tier, load(tier.name))).collect();
    for (tier, child) in loads {
        let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let line = said.lines().find(|line| line.starts_with("status codes:")).unwrap();
        let count = |kind: &str| -> u64 {
            let words: Vec<&str> = line.split([' ', ',']).collect();
            let at = words.iter().position(|word| *word == kind).unwrap();
            words[at - 1].parse().unwrap()
        };
        let expected = tier.burst + tier.rate * SECONDS / 60;
        let passed = count("2xx");
        assert!(passed.abs_diff(expected) * 100 <= expected, "{}: {passed} of {expected}\n{said}", tier.name);
        assert!(count("4xx") > 0 && count("5xx") == 0, "{}: {line}", tier.name);
    }
}
