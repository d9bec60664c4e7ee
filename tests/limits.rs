//! Limits on the real binary: who is limited as whom, what answers say, what reloads keep, what operators see.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::Write as _;
use std::process::{Command, Stdio};

use harness::origin::*;
use harness::*;

/// The digests are of `key-pro` and `key-own`.
fn keys() -> String {
    let digest = |key: &str| {
        let output = run("sh", &["-c", &format!("printf %s {key} | sha256sum")]);
        output.split(' ').next().unwrap().to_owned()
    };
    format!(
        "[[keys]]\nsha256 = \"{}\"\ntier = \"pro\"\nname = \"acme\"\n\
         [[keys]]\nsha256 = \"{}\"\ntier = \"pro\"\nname = \"own\"\n[keys.limits]\nrequests = {{ rate = \"1/h\", burst = 1 }}\n",
        digest("key-pro"),
        digest("key-own"),
    )
}

const TIERS: &str = "
[rate_limit.tiers.free]
upgrade = \"https://example.com/pricing\"
[rate_limit.tiers.free.limits]
requests = { rate = \"3/h\" }
named = { rate = \"1/h\", on = \"named\" }
[rate_limit.tiers.pro.limits]
requests = { rate = \"5/h\", burst = 5 }
daily = { rate = \"8/d\", burst = 8 }
[rate_limit.tiers.quiet]
mode = \"shadow\"
[rate_limit.tiers.quiet.limits]
requests = { rate = \"3/h\" }
";

fn limited(config: &str) -> (Origin, Pillion) {
    limited_with(&keys(), config)
}

fn limited_with(keys: &str, config: &str) -> (Origin, Pillion) {
    let origin = Origin::new();
    let folder = std::sync::Arc::new(Folder::new());
    let file = folder.write("keys.toml", keys);
    let text = format!(
        "[upstream]\nurl = \"http://{}\"\n[rate_limit]\nkeys = \"{}\"\n{config}{TIERS}",
        origin.script.address,
        file.display()
    );
    (origin, Pillion::in_folder(folder, &text))
}

fn statuses(pillion: &Pillion, count: usize, fields: &[&str]) -> Vec<u16> {
    (0..count).map(|_| ask(pillion, "GET /", fields).status).collect()
}

#[test]
fn an_answer_says_where_its_caller_stands() {
    let (_origin, pillion) = limited("");
    for left in [2, 1, 0] {
        let answer = get(&pillion, "/");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.field("ratelimit-policy").unwrap(), "\"requests\";q=3;w=3600");
        let told = answer.field("ratelimit").unwrap();
        assert!(told.starts_with(&format!("\"requests\";r={left};t=")), "{told}");
    }
    let refused = get(&pillion, "/");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.field("content-type").unwrap(), "application/problem+json");
    let document = refused.json();
    assert_eq!(document["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(document["violated-policies"], serde_json::json!(["requests"]));
    assert_eq!(
        (&document["tier"], &document["upgrade"]),
        (&"free".into(), &"https://example.com/pricing".into())
    );
    assert_eq!(document["status"], 429);
    // A third of an hour, less what the requests took.
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1190..=1200).contains(&wait), "{wait}");
    assert_eq!(refused.field("ratelimit").unwrap(), format!("\"requests\";r=0;t={wait}"));
    assert_eq!(refused.field("cache-control").unwrap(), "no-store");
    assert_eq!(refused.field("x-ratelimit-limit"), None);
}

#[test]
fn keys_that_are_made_up_give_no_fresh_allowance() {
    let (origin, pillion) = limited("");
    let made_up = |number: usize| ask(&pillion, "GET /", &[&format!("x-api-key: made-up-{number}")]).status;
    assert_eq!((0..5).map(made_up).collect::<Vec<_>>(), [200, 200, 200, 429, 429]);
    // A token that nobody verifies, a cookie, a client's own word about its address: all of it is the same client.
    for field in ["authorization: Bearer x", "cookie: session=1", "x-forwarded-for: 192.0.2.7"] {
        assert_eq!(ask(&pillion, "GET /", &[field]).status, 429, "{field}");
    }
    assert_eq!(origin.count(), 3);
    // One that is listed is one of its own.
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
    // Whoever has one address of a network has all of it.
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
    // Another plan is no other person.
    let both = ask(&pillion, "GET /", &[&token("ann", "free", secret)]);
    assert_eq!((both.status, both.field("ratelimit").unwrap().contains("r=2")), (200, true));
    assert_eq!(statuses(&pillion, 1, &[&ann]), [429]);
    // One that does not verify proves nothing: it is an address.
    let forged = token("carl", "pro", "another secret of thirty-two byte");
    assert_eq!(statuses(&pillion, 4, &[&forged]), [200, 200, 200, 429]);
    assert_eq!(statuses(&pillion, 1, &[]), [429]);
}

#[test]
fn routes_name_limits_cost_more_and_are_exempt() {
    let (_origin, pillion) = limited_with(
        // The one with its own burst of 1 could never pay.
        keys().split_inclusive("acme\"\n").next().unwrap(),
        "[[routes]]\nmatch = \"GET /named\"\nlimits = [\"named\"]\n[[routes]]\nmatch = \"GET /free\"\nlimits = \"none\"\n\
         [[routes]]\nmatch = \"GET /dear\"\ncost = 3\n",
    );
    for _ in 0..5 {
        let exempt = get(&pillion, "/free");
        assert_eq!((exempt.status, exempt.field("ratelimit")), (200, None));
    }
    let named = get(&pillion, "/named");
    assert_eq!(named.field("ratelimit-policy").unwrap(), "\"requests\";q=3;w=3600, \"named\";q=1;w=3600");
    assert!(named.field("ratelimit").unwrap().starts_with("\"named\";r=0"));
    let refused = get(&pillion, "/named");
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["named"]));
    // The refusal took nothing of the other one.
    assert!(get(&pillion, "/").field("ratelimit").unwrap().starts_with("\"requests\";r=1"));
    assert_eq!(get(&pillion, "/dear").status, 429);
    assert_eq!(ask(&pillion, "GET /dear", &["x-api-key: key-pro"]).status, 200);
    assert_eq!(ask(&pillion, "GET /dear", &["x-api-key: key-pro"]).status, 429);
}

#[test]
fn shadow_mode_counts_and_refuses_nobody() {
    let (_origin, pillion) = limited("mode = \"shadow\"\n");
    for _ in 0..5 {
        let answer = get(&pillion, "/");
        assert_eq!(
            (answer.status, answer.field("ratelimit"), answer.field("retry-after")),
            (200, None, None)
        );
    }
    let decisions = |decision: &str| {
        let labels = format!("tier=\"free\",limit=\"requests\",decision=\"{decision}\"");
        pillion.metric(&format!("pillion_limit_decisions_total{{{labels}}}"))
    };
    assert_eq!(["allowed", "limited", "would-limit"].map(decisions), [3.0, 0.0, 2.0]);
}

#[test]
fn what_is_limited_is_seen_from_outside() {
    let (_origin, pillion) = limited("");
    statuses(&pillion, 6, &["x-api-key: key-pro"]);
    statuses(&pillion, 4, &[]);
    let top = pillion.admin_get("/limits/top").json();
    let keys = top["keys"].as_array().unwrap();
    assert_eq!((top["held"].as_u64(), keys.len()), (Some(2), 2));
    assert_eq!(
        (&keys[0]["name"], &keys[0]["allowed"], &keys[0]["limited"]),
        (&"acme".into(), &5.into(), &1.into())
    );
    assert_eq!(
        (&keys[1]["kind"], &keys[1]["allowed"], &keys[1]["limited"]),
        (&"ip".into(), &3.into(), &1.into())
    );
    assert!(!top.to_string().contains("127.0.0.1") && !top.to_string().contains("key-pro"));
    assert_eq!(pillion.admin_get("/limits/top?n=1").json()["keys"].as_array().unwrap().len(), 1);
    let status = pillion.admin_get("/limits/status?key=acme").json();
    assert_eq!(
        (&status["held"], &status["limits"][0]["remaining"], &status["limits"][1]["remaining"]),
        (&true.into(), &0.into(), &3.into())
    );
    let by_hash = format!("/limits/status?key={}", keys[1]["key"].as_str().unwrap());
    for path in [by_hash.as_str(), "/limits/status?key=127.0.0.1"] {
        let status = pillion.admin_get(path).json();
        assert_eq!(
            (&status["limits"][0]["limit"], &status["limits"][0]["remaining"]),
            (&"requests".into(), &0.into()),
            "{path}"
        );
    }
    assert_eq!(pillion.admin_get("/limits/status?key=own").json()["held"], false);
    for (path, status) in [
        ("/limits/status", 400),
        ("/limits/status?key=nobody", 404),
        ("/limits/top?n=0", 400),
        ("/limits/x", 404),
    ] {
        assert_eq!(pillion.admin_get(path).status, status, "{path}");
    }
    assert_eq!(pillion.admin_post("/limits/top").status, 405);
    assert_eq!(pillion.metric("pillion_limit_keys"), 2.0);
}

#[test]
fn a_reload_changes_quotas_at_once_and_untouched_limits_go_on() {
    let (origin, pillion) = limited("");
    assert_eq!(statuses(&pillion, 2, &[]), [200, 200]);
    statuses(&pillion, 4, &["x-api-key: key-pro"]);
    let keys = pillion.folder.path("keys.toml");
    let text = |tiers: &str| {
        format!(
            "[upstream]\nurl = \"http://{}\"\n[rate_limit]\nkeys = \"{}\"\n{tiers}",
            origin.script.address,
            keys.display()
        )
    };
    pillion.reload(&text(&TIERS.replace("5/h\", burst = 5", "7/h\", burst = 2")));
    // That of the free tier is what it was.
    assert_eq!(statuses(&pillion, 2, &[]), [200, 429]);
    // The edited one begins anew, the one beside it goes on: four of eight are used.
    assert_eq!(statuses(&pillion, 3, &["x-api-key: key-pro"]), [200, 200, 429]);
    let status = pillion.admin_get("/limits/status?key=acme").json();
    assert_eq!(
        (&status["limits"][0]["remaining"], &status["limits"][1]["remaining"]),
        (&0.into(), &2.into())
    );
    // Keys come and go with their file.
    std::fs::write(&keys, "").unwrap();
    pillion.reload(&text(TIERS));
    assert_eq!(statuses(&pillion, 1, &["x-api-key: key-pro"]), [429], "it is an address again");
}

#[test]
fn requests_in_flight_are_capped() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let script = Script::answering(move |request| {
        if request.line.contains("/slow") {
            let _ = wait.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20));
        }
        ok("done")
    });
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[cache]\nenabled = false\n[[routes]]\nmatch = \"GET /slow\"\nconcurrency = 1\n",
        script.address
    );
    let pillion = Pillion::with(&config);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| get(&pillion, "/slow"));
        eventually("the first is in flight", || (pillion.metric("pillion_limit_keys") > 0.0).then_some(()));
        let refused = get(&pillion, "/slow");
        assert_eq!((refused.status, refused.field("retry-after").unwrap().as_str()), (429, "1"));
        assert_eq!(refused.field("ratelimit").unwrap(), "\"concurrency\";r=0");
        assert_eq!(
            refused.field("ratelimit-policy").unwrap(),
            "\"concurrency\";q=1;qu=\"concurrent-requests\""
        );
        assert_eq!(refused.json()["violated-policies"], serde_json::json!(["concurrency"]));
        assert_eq!(get(&pillion, "/other").status, 200);
        release.send(()).unwrap();
        assert_eq!(slow.join().unwrap().status, 200);
        drop(release);
        eventually("its place is free", || (get(&pillion, "/slow").status == 200).then_some(()));
    });
}

#[test]
fn fields_are_neither_stored_nor_loosened() {
    let (origin, pillion) = limited("headers = [\"ratelimit\", \"legacy\"]\n");
    origin.says(
        "/a",
        &[
            "cache-control: max-age=60",
            "ratelimit: \"requests\";r=99",
            "ratelimit-policy: \"requests\";q=99;w=1, \"theirs\";q=9",
            "x-ratelimit-remaining: 99",
        ],
    );
    let first = get(&pillion, "/a");
    assert!(
        first.field("ratelimit").unwrap().starts_with("\"requests\";r=2"),
        "{:?}",
        first.field("ratelimit")
    );
    assert_eq!(first.field("ratelimit-policy").unwrap(), "\"requests\";q=3;w=3600, \"theirs\";q=9");
    assert_eq!(first.field("x-ratelimit-remaining").unwrap(), "2");
    assert_eq!(first.field("x-ratelimit-limit").unwrap(), "3");
    let hit = get(&pillion, "/a");
    assert!(status_of(&hit).contains("hit"));
    assert!(hit.field("ratelimit").unwrap().starts_with("\"requests\";r=1"));
    assert_eq!(hit.field("ratelimit-policy").unwrap(), "\"requests\";q=3;w=3600");
    origin.says("/b", &["ratelimit: \"requests\";r=0;t=1000000"]);
    assert_eq!(get(&pillion, "/b").field("ratelimit").unwrap(), "\"requests\";r=0;t=1000000");
}

#[test]
fn failures_and_refusals_tell_it_too() {
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nmax_body_size = \"1KiB\"\n{TIERS}",
        absent_app()
    );
    let pillion = Pillion::with(&config);
    let failed = get(&pillion, "/");
    assert_eq!((failed.status, failed.field("ratelimit").is_some()), (502, true));
    let large = ask(&pillion, "POST /", &["content-length: 2000"]);
    assert_eq!((large.status, large.field("ratelimit").unwrap().contains("r=1")), (413, true));
}

#[test]
fn keys_are_added_listed_and_hashed() {
    let folder = std::sync::Arc::new(Folder::new());
    let origin = Origin::new();
    let file = folder.path("keys.toml");
    let command = |args: &[&str]| {
        let output = Command::new(binary()).arg("keys").args(args).arg("--file").arg(&file).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    };
    let (fine, said) = command(&["add", "--tier", "pro", "--name", "acme"]);
    assert!(fine, "{said}");
    let key = said.lines().next().unwrap().to_owned();
    assert!(key.starts_with("pk_") && key.len() > 40, "{said}");
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(!written.contains(&key));
    // What is written by hand stays.
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
    let digest = String::from_utf8_lossy(&output.stdout).trim().to_owned();
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
    // A key that is added while it runs is known without a word.
    let (_, said) = command(&["add", "--tier", "pro"]);
    let key = said.lines().next().unwrap().to_owned();
    eventually("the file was read again", || {
        let answer = ask(&pillion, "GET /", &[&format!("x-api-key: {key}")]);
        answer.field("ratelimit-policy").unwrap().contains("q=5").then_some(())
    });
}

#[test]
fn an_app_that_cannot_bear_more_is_spared() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let script = Script::answering(move |_| {
        let _ = wait.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20));
        ok("done")
    });
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\nadaptive_concurrency = true\nqueue_timeout = \"300ms\"\n[cache]\nenabled = false\n",
        script.address
    );
    let pillion = Pillion::with(&config);
    let limit = pillion.metric("pillion_upstream_concurrency_limit{upstream=\"upstream\"}");
    let (asked, most) = (60, limit as usize);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let client = |number: usize| {
            let pillion = &pillion;
            scope.spawn(move || get(pillion, &format!("/{number}")))
        };
        let clients: Vec<_> = (0..asked).map(client).collect();
        eventually("the rest was turned away", || {
            let shed = pillion.metric("pillion_upstream_shed_total{upstream=\"upstream\"}");
            (shed as usize == asked - most).then_some(())
        });
        (0..most).for_each(|_| release.send(()).unwrap());
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let (served, shed): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((served.len(), shed.len()), (most, asked - most));
    for answer in shed {
        assert_eq!((answer.status, answer.field("retry-after").unwrap().as_str()), (503, "1"));
        let kind = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
        assert_eq!(answer.json()["type"], kind);
    }
    let failures = pillion.metric("pillion_upstream_failures_total{upstream=\"upstream\",kind=\"shed\"}");
    assert_eq!(failures as usize, asked - most);
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
fn a_place_in_flight_comes_back_however_a_request_ends() {
    let script = Script::answering(|request| {
        if request.line.contains("/long") {
            let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n".to_vec();
            answer.resize(answer.len() + 50_000_000, b'x');
            return answer;
        }
        if request.line.contains("/broken") { b"no answer\r\n\r\n".to_vec() } else { ok("fine") }
    });
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\nretries = 0\n[[routes]]\nmatch = \"* /**\"\nconcurrency = 1\n",
        script.address
    );
    let pillion = Pillion::with(&config);
    for _ in 0..3 {
        assert_eq!(get(&pillion, "/broken").status, 502);
        assert_eq!(get(&pillion, "/fine").status, 200);
    }
    {
        // Leaves in the middle of the content.
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut begun = [0; 1000];
        std::io::Read::read_exact(&mut tcp, &mut begun).unwrap();
        assert_eq!(get(&pillion, "/fine").status, 429);
    }
    eventually("the place is free", || (get(&pillion, "/fine").status == 200).then_some(()));
    // What is refused in a gRPC call is refused in its words.
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut begun = [0; 1000];
    std::io::Read::read_exact(&mut tcp, &mut begun).unwrap();
    let refused = ask(&pillion, "POST /fine", &["content-type: application/grpc", "content-length: 0"]);
    assert_eq!((refused.status, refused.field("grpc-status").unwrap().as_str()), (200, "8"));
}

#[test]
fn slow_clients_keep_no_place_at_the_app() {
    let script = Script::answering(|request| {
        let length = if request.line.contains("/long") { 50_000_000 } else { 4 };
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + length, b'x');
        answer
    });
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\nadaptive_concurrency = true\n[cache]\nenabled = false\n",
        script.address
    );
    let pillion = Pillion::with(&config);
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        std::io::Read::read_exact(&mut tcp, &mut [0; 100]).unwrap();
        readers.push(tcp);
    }
    let mut writers = Vec::new();
    for _ in 0..20 {
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nbegin").unwrap();
        writers.push(tcp);
    }
    for _ in 0..20 {
        assert_eq!(get(&pillion, "/short").status, 200);
    }
    assert_eq!(pillion.metric("pillion_upstream_shed_total{upstream=\"upstream\"}"), 0.0);
}

#[test]
fn an_app_that_bears_more_is_given_more() {
    let origin = Origin::new();
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\nadaptive_concurrency = true\n[cache]\nenabled = false\n[log]\naccess = \"off\"\n",
        origin.script.address
    );
    let pillion = Pillion::with(&config);
    let limit = || pillion.metric("pillion_upstream_concurrency_limit{upstream=\"upstream\"}");
    let before = limit();
    let mut load = Command::new("h2load")
        .args(["--h1", "-c32", "-D20", &pillion.url("/")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it grew", || (limit() > before).then_some(()));
    load.kill().unwrap();
    load.wait().unwrap();
    // A reload that leaves it on keeps what is known; one that turns it off opens the gate.
    let grown = limit();
    pillion.reload(&config.replace("access = \"off\"", "access = \"errors\""));
    assert_eq!(limit(), grown);
}

#[test]
fn a_wait_at_the_gate_is_not_taken_for_the_app_s() {
    // It takes as long whatever it has to do.
    let app = Script::answering(|_| {
        std::thread::sleep(std::time::Duration::from_millis(40));
        ok("{}")
    });
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nadaptive_concurrency = true\n[cache]\nenabled = false\n",
        app.address
    ));
    let limit = || pillion.metric("pillion_upstream_concurrency_limit{upstream=\"upstream\"}");
    let before = limit();
    // More than may be at once: the others wait several times as long as an answer takes.
    let mut load = Command::new("h2load")
        .args(["--h1", "-c40", "-D20", &pillion.url("/")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("nobody waits any more", || {
        // A look at its baseline halves it for a moment.
        assert!(limit() >= before / 2.0, "it shut before an app that is not slow");
        (limit() >= 40.0).then_some(())
    });
    load.kill().unwrap();
    load.wait().unwrap();
}

#[test]
fn what_attackers_tried_gives_no_fresh_allowance() {
    let (_origin, pillion) = limited("[[routes]]\nmatch = \"GET /named\"\nlimits = [\"named\"]\n");
    // HEAD asks for what GET would say.
    assert_eq!(get(&pillion, "/named").status, 200);
    assert_eq!(ask(&pillion, "HEAD /named", &[]).status, 429);
    // A second key beside the listed one.
    assert_eq!(statuses(&pillion, 2, &["x-api-key: key-own"]), [200, 429]);
    assert_eq!(statuses(&pillion, 1, &["x-api-key: junk", "x-api-key: key-own"]), [429]);
    assert_eq!(statuses(&pillion, 1, &["x-api-key: key-own", "x-api-key: junk"]), [429]);
    let (_origin, pillion) = limited("mode = \"shadow\"\nunlisted_keys = \"reject\"\n");
    assert_eq!(statuses(&pillion, 5, &["x-api-key: nope"]), [200; 5], "shadow refuses nobody");
}

#[test]
fn a_request_that_outlives_its_client_holds_its_place() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let arrived = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = arrived.clone();
    let script = Script::answering(move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let _ = wait.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20));
        ok("done")
    });
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"POST /pay\"\nconcurrency = 1\n",
        script.address
    );
    let pillion = Pillion::with(&config);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"POST /pay HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").unwrap();
    eventually("the app has it", || (arrived.load(std::sync::atomic::Ordering::SeqCst) == 1).then_some(()));
    drop(tcp);
    eventually("the client is seen to have left", || {
        pillion.access_log().contains("the client left").then_some(())
    });
    assert_eq!(ask(&pillion, "POST /pay", &["content-length: 0"]).status, 429, "the write goes on");
    release.send(()).unwrap();
    drop(release);
    eventually("the place is free", || {
        (ask(&pillion, "POST /pay", &["content-length: 0"]).status == 200).then_some(())
    });
}

#[test]
fn requests_held_on_many_routes_do_not_make_quotas_forget() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let script = Script::answering(move |request| {
        if request.line.contains("/held") {
            let _ = wait.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20));
        }
        ok("done")
    });
    let routes: String =
        (0..40).map(|route| format!("[[routes]]\nmatch = \"GET /held{route}\"\nconcurrency = 2\n")).collect();
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[cache]\nenabled = false\n{routes}\
         [rate_limit.tiers.free.limits]\nminute = {{ rate = \"50/h\" }}\ndaily = {{ rate = \"60/d\" }}\n",
        script.address
    );
    let pillion = Pillion::with(&config);
    let held: Vec<_> = (0..40)
        .map(|route| {
            let mut tcp = connect(pillion.http);
            tcp.write_all(format!("GET /held{route} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).unwrap();
            tcp
        })
        .collect();
    eventually("all are held", || (pillion.metric("pillion_http_requests_in_flight") >= 40.0).then_some(()));
    assert_eq!(statuses(&pillion, 12, &[]), [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 429, 429]);
    drop((held, release));
}
