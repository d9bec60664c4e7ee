//! Tests of how callers are identified for limits.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::tools::{TIERS, limited, statuses};
use crate::harness::origin::*;
use crate::harness::*;

#[test]
fn keys_that_are_made_up_give_no_fresh_allowance() {
    let (origin, pillion) = limited("");
    let made_up = |number: usize| ask(&pillion, "GET /", &[&format!("x-api-key: made-up-{number}")]).status;
    assert_eq!((0..5).map(made_up).collect::<Vec<_>>(), [200, 200, 200, 429, 429]);
    // An unverified token, a cookie, or the client's own claim about its address: all of it is the same client.
    for field in ["authorization: Bearer x", "cookie: session=1", "x-forwarded-for: 192.0.2.7"] {
        assert_eq!(ask(&pillion, "GET /", &[field]).status, 429, "{field}");
    }
    assert_eq!(origin.count(), 3);
    // A listed key has limits of its own.
    assert_eq!(statuses(&pillion, 6, &["x-api-key: key-pro"]), [200, 200, 200, 200, 200, 429]);
    assert_eq!(statuses(&pillion, 2, &["x-api-key: key-own"]), [200, 429]);
}

#[test]
fn unlisted_keys_can_be_their_own_or_be_refused() {
    let (_origin, pillion) = limited("unlisted_keys = \"own\"\n");
    for key in ["a", "b"] {
        let field = format!("x-api-key: {key}");
        assert_eq!(statuses(&pillion, 4, &[&field]), [200, 200, 200, 429], "{key}");
    }
    let (origin, pillion) = limited("unlisted_keys = \"reject\"\n");
    let refused = ask(&pillion, "GET /", &["x-api-key: a"]);
    assert_eq!(
        (refused.status, refused.json()["type"].as_str()),
        (401, Some("urn:pillion:problem:unknown-api-key"))
    );
    assert_eq!(refused.field("www-authenticate").unwrap(), "ApiKey");
    assert_eq!(pillion.metric("pillion_limit_rejected_keys_total"), 1.0);
    assert_eq!(statuses(&pillion, 1, &["x-api-key: key-pro"]), [200]);
    assert_eq!(statuses(&pillion, 1, &[]), [200], "no key at all is not a wrong one");
    assert_eq!(origin.count(), 2);
}

#[test]
fn keys_in_queries_and_in_authorization() {
    let (_origin, pillion) =
        limited("[identity]\napi_key = \"query:key\"\n[[routes]]\nmatch = \"GET /unused\"\n");
    let status = |target: &str| ask(&pillion, &format!("GET {target}"), &[]).status;
    assert_eq!([status("/?key=key-own"), status("/?a=1&key=key%2Down")], [200, 429]);
    assert_eq!(status("/"), 200);
    let (_origin, pillion) = limited("[identity]\napi_key = \"header:authorization\"\n");
    assert_eq!(statuses(&pillion, 2, &["authorization: Bearer key-own"]), [200, 429]);
    assert_eq!(statuses(&pillion, 1, &["authorization: Bearer key-pro"]), [200]);
}

#[test]
fn a_tier_from_a_field_is_believed_of_trusted_proxies_alone() {
    let config = "tier = [\"header:x-plan\", \"keys\"]\n[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let (_origin, pillion) = limited(config);
    let plan = |plan: &str, client: &str| {
        let fields = [format!("x-plan: {plan}"), format!("x-forwarded-for: {client}")];
        ask(&pillion, "GET /", &[&fields[0], &fields[1]]).field("ratelimit-policy")
    };
    assert!(plan("pro", "192.0.2.1").unwrap().contains("q=5"));
    assert!(plan("free", "192.0.2.1").unwrap().contains("q=3"));
    assert!(plan("nonsense", "192.0.2.1").unwrap().contains("q=3"));
    assert_eq!(plan("quiet", "192.0.2.1"), None, "what is not enforced is not told");
    let config = "tier = [\"header:x-plan\"]\n[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ntrusted_proxies = [\"192.0.2.9\"]\n";
    let (_origin, pillion) = limited(config);
    assert!(ask(&pillion, "GET /", &["x-plan: pro"]).field("ratelimit-policy").unwrap().contains("q=3"));
}

#[test]
fn addresses_behind_a_trusted_proxy_and_networks_of_ipv6() {
    let (_origin, pillion) = limited(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n",
    );
    let of = |client: &str| ask(&pillion, "GET /", &[&format!("x-forwarded-for: {client}")]).status;
    assert_eq!([(); 4].map(|()| of("192.0.2.1")), [200, 200, 200, 429]);
    assert_eq!(of("192.0.2.2"), 200);
    // All addresses of one network share its limits.
    let network: Vec<u16> = (1..=4).map(|host| of(&format!("2001:db8:1:2::{host}"))).collect();
    assert_eq!(network, [200, 200, 200, 429]);
    assert_eq!(of("2001:db8:1:3::1"), 200);
}

#[test]
fn verified_claims_are_keys_and_name_tiers() {
    let folder = std::sync::Arc::new(Folder::new());
    let secret = "0123456789abcdef0123456789abcdef";
    let file = folder.write("secret", secret);
    let origin = Origin::new();
    let text = format!(
        "[upstream]\nurl = \"http://{}\"\n[identity]\nprincipal = [\"jwt:sub\"]\n[identity.jwt]\nhs256 = \"{}\"\n\
         [rate_limit]\ntier = [\"jwt:plan\"]\n{TIERS}",
        origin.script.address,
        file.display()
    );
    let pillion = Pillion::in_folder(folder, &text);
    let token = |sub: &str, plan: &str, secret: &str| {
        let script = format!(
            "import hmac,hashlib,base64,json\nb=lambda x:base64.urlsafe_b64encode(x).rstrip(b'=')\n\
             h=b(json.dumps(dict(alg='HS256')).encode())+b'.'+b(json.dumps(dict(sub='{sub}',plan='{plan}',exp=4000000000)).encode())\n\
             print((h+b'.'+b(hmac.new(b'{secret}',h,hashlib.sha256).digest())).decode())"
        );
        format!("authorization: Bearer {}", run("python3", &["-c", &script]).trim())
    };
    let (ann, bob) = (token("ann", "pro", secret), token("bob", "free", secret));
    assert_eq!(statuses(&pillion, 6, &[&ann]), [200, 200, 200, 200, 200, 429]);
    assert_eq!(statuses(&pillion, 4, &[&bob]), [200, 200, 200, 429]);
    // Another plan does not make another principal.
    let both = ask(&pillion, "GET /", &[&token("ann", "free", secret)]);
    assert_eq!((both.status, both.field("ratelimit").unwrap().contains("r=2")), (200, true));
    assert_eq!(statuses(&pillion, 1, &[&ann]), [429]);
    // A token that does not verify proves nothing, so the address counts.
    let forged = token("carl", "pro", "another secret of thirty-two byte");
    assert_eq!(statuses(&pillion, 4, &[&forged]), [200, 200, 200, 429]);
    assert_eq!(statuses(&pillion, 1, &[]), [429]);
}

/// A token that never expires could never be revoked.
#[test]
fn n3_12_a_token_without_exp_proves_nothing_unless_that_is_allowed() {
    let secret = "0123456789abcdef0123456789abcdef";
    let script = format!(
        "import hmac,hashlib,base64\nb=lambda x:base64.urlsafe_b64encode(x).rstrip(b'=')\n\
         h=b(b'{{\"alg\":\"HS256\"}}')+b'.'+b(b'{{\"sub\":\"ann\",\"plan\":\"pro\"}}')\n\
         print((h+b'.'+b(hmac.new(b'{secret}',h,hashlib.sha256).digest())).decode())"
    );
    let token = format!("authorization: Bearer {}", run("python3", &["-c", &script]).trim());
    for (required, as_address) in [("", true), ("require_exp = true", true), ("require_exp = false", false)] {
        let folder = std::sync::Arc::new(Folder::new());
        let file = folder.write("secret", secret);
        let origin = Origin::new();
        let text = format!(
            "[upstream]\nurl = \"http://{}\"\n[identity]\nprincipal = [\"jwt:sub\"]\n[identity.jwt]\nhs256 = \"{}\"\n{required}\n\
             [[routes]]\nmatch = \"GET /shared\"\ncache = {{ ttl = \"1h\", scope = \"shared\" }}\n\
             [rate_limit]\ntier = [\"jwt:plan\"]\n{TIERS}",
            origin.script.address,
            file.display()
        );
        let pillion = Pillion::in_folder(folder, &text);
        let shared = || ask(&pillion, "GET /shared", &[&token]).field("cache-status").unwrap();
        shared();
        assert_eq!(shared().contains("fwd=bypass"), as_address, "{required}");
        // Two requests are used up. An address has three, and the tier that the token names has five.
        let left = if as_address { &[200, 429, 429][..] } else { &[200, 200, 200, 429] };
        assert_eq!(statuses(&pillion, left.len(), &[&token]), left, "{required}");
        assert_eq!(statuses(&pillion, 1, &[]), [if as_address { 429 } else { 200 }], "{required}");
    }
}

/// Regression: the keys took hundreds of megabytes as a tree of values.
#[test]
fn n3_12_a_hundred_thousand_keys_take_little_memory() {
    use std::fmt::Write as _;
    let origin = Origin::new();
    let written = |count: usize, more: &str| {
        let mut keys = String::new();
        for number in 0..count {
            let _ = write!(
                keys,
                "[[keys]]\nsha256 = \"{number:064x}\"\ntier = \"pro\"\nname = \"customer {number}\"{more}\n\n"
            );
        }
        keys
    };
    let plain = written(100_000, "");
    let commented = written(100_000, " # of the north");
    // Without optimization these take long.
    let limited = written(10_000, "\nlimits = { requests = { rate = \"20/min\", burst = 3 } }");
    let mut resident = Vec::new();
    for keys in ["", &plain, &commented, &limited] {
        let folder = std::sync::Arc::new(Folder::new());
        let file = folder.write("keys.toml", keys);
        let text = format!(
            "[upstream]\nurl = \"http://{}\"\n[rate_limit]\nkeys = \"{}\"\n{TIERS}",
            origin.script.address,
            file.display()
        );
        let started = now();
        let pillion = Pillion::in_folder(folder, &text);
        let took = started.elapsed();
        assert_eq!(pillion.get("/").status, 200);
        // The peak of the resident memory.
        let status = std::fs::read_to_string(format!("/proc/{}/status", pillion.process.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        resident.push(peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap());
        // With optimization this takes less than a second.
        assert!(took < std::time::Duration::from_secs(60), "{took:?}");
    }
    let kinds = [("plain", 60), ("commented", 60), ("limited", 20)];
    for ((kind, most), peak) in kinds.iter().zip(&resident[1..]) {
        let more = (peak - resident[0]) / 1024;
        assert!(more <= *most, "{kind}: {more} MiB");
    }
}

#[test]
fn keys_are_added_listed_and_hashed() {
    let folder = std::sync::Arc::new(Folder::new());
    let origin = Origin::new();
    let file = folder.path("keys.toml");
    let command = |args: &[&str]| {
        let output = Command::new(binary()).arg("keys").args(args).arg("--file").arg(&file).output().unwrap();
        let said = format!("{}{}", printed(&output.stdout), printed(&output.stderr));
        (output.status.success(), said)
    };
    let (fine, said) = command(&["add", "--tier", "pro", "--name", "acme"]);
    assert!(fine, "{said}");
    let key = said.lines().next().unwrap().to_owned();
    assert!(key.starts_with("pk_") && key.len() > 40, "{said}");
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(!written.contains(&key));
    // Manual edits of the file stay.
    std::fs::write(&file, format!("# ours\n{written}")).unwrap();
    assert!(command(&["add", "--tier", "free", "--name", "other"]).0);
    let (fine, said) = command(&["add", "--tier", "free", "--name", "other"]);
    assert!(!fine && said.contains("\"other\" is there already"), "{said}");
    let (fine, said) = command(&["list"]);
    assert!(fine && said.contains("acme") && said.contains("pro") && said.contains("other"), "{said}");
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("# ours\n"));
    let mut hash = Command::new(binary())
        .args(["keys", "hash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    hash.stdin.take().unwrap().write_all(format!("{key}\n").as_bytes()).unwrap();
    let output = hash.wait_with_output().unwrap();
    let digest = printed(&output.stdout).trim().to_owned();
    assert!(written.contains(&digest), "{digest}");
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[rate_limit]\nkeys = \"keys.toml\"\n{TIERS}",
        origin.script.address
    );
    let pillion = Pillion::in_folder(folder.clone(), &config);
    assert!(
        ask(&pillion, "GET /", &[&format!("x-api-key: {key}")])
            .field("ratelimit-policy")
            .unwrap()
            .contains("q=5")
    );
    // A key added at runtime is known without a reload command.
    let (_, said) = command(&["add", "--tier", "pro"]);
    let key = said.lines().next().unwrap().to_owned();
    eventually("the file was read again", || {
        let answer = ask(&pillion, "GET /", &[&format!("x-api-key: {key}")]);
        answer.field("ratelimit-policy").unwrap().contains("q=5").then_some(())
    });
}

#[test]
fn an_answer_to_one_key_is_not_for_the_next() {
    let (origin, pillion) = limited("");
    origin.says("/mine", &["cache-control: max-age=60"]);
    let mine = |fields: &[&str]| ask(&pillion, "GET /mine", fields).text();
    let first = mine(&["x-api-key: key-pro"]);
    assert_ne!(mine(&["x-api-key: key-own"]), first);
    assert_ne!(mine(&[]), first);
    origin.says("/all", &["cache-control: public, max-age=60"]);
    let all = |fields: &[&str]| ask(&pillion, "GET /all", fields).text();
    assert_eq!(all(&["x-api-key: key-pro"]), all(&[]), "what is said to be for all is");
}

#[test]
fn keys_in_queries_however_they_are_spelt_and_never_in_the_log() {
    let config = "unlisted_keys = \"reject\"\n[identity]\napi_key = \"query:my_key\"\n";
    let (_origin, pillion) = limited(config);
    let status = |target: &str| ask(&pillion, &format!("GET {target}"), &[]).status;
    assert_eq!(status("/?my%5Fkey=wrong"), 401);
    assert_eq!(status("/?my_key=key-pro"), 200);
    assert_eq!(status("/?my_key=key-pro&my_key=nope"), 401, "nobody knows which one the app takes");
    eventually("all is logged", || {
        (pillion.access_log().matches("\"kind\":\"access\"").count() >= 3).then_some(())
    });
    assert!(!pillion.access_log().contains("key-pro") && pillion.access_log().contains("my_key=***"));
    let (_origin, pillion) = limited("unlisted_keys = \"reject\"\n");
    let two = ["x-api-key: key-pro", "x-api-key: nope"];
    assert_eq!(ask(&pillion, "GET /", &two).status, 401);
}

#[test]
fn what_attackers_tried_gives_no_fresh_allowance() {
    let (_origin, pillion) = limited("[[routes]]\nmatch = \"GET /named\"\nlimits = [\"named\"]\n");
    // HEAD counts like GET.
    assert_eq!(get(&pillion, "/named").status, 200);
    assert_eq!(ask(&pillion, "HEAD /named", &[]).status, 429);
    // A second key beside the listed one.
    assert_eq!(statuses(&pillion, 2, &["x-api-key: key-own"]), [200, 429]);
    assert_eq!(statuses(&pillion, 1, &["x-api-key: junk", "x-api-key: key-own"]), [429]);
    assert_eq!(statuses(&pillion, 1, &["x-api-key: key-own", "x-api-key: junk"]), [429]);
    let (_origin, pillion) = limited("mode = \"shadow\"\nunlisted_keys = \"reject\"\n");
    assert_eq!(statuses(&pillion, 5, &["x-api-key: nope"]), [200; 5], "shadow refuses nobody");
}
