//! Tests of response fields that describe the handling (`X-Cache`, the tier, correlation ids), and of fields that a
//! route sets.

use crate::harness::origin::*;
use crate::harness::*;

/// Returns the `X-Cache` fields of a response, over HTTP/1.1 and over HTTP/2.
fn x_cache(pillion: &Pillion, path: &str, fields: &[&str]) -> [Vec<String>; 2] {
    ["--http1.1", "--http2-prior-knowledge"].map(|version| {
        let url = pillion.url(path);
        let mut args = vec!["-s", "-o", "/dev/null", "-D", "-", version, "-H", "host: a.example"];
        fields.iter().for_each(|field| args.extend(["-H", field]));
        args.push(&url);
        let head = run("curl", &args);
        let lines = head.lines().filter_map(|line| line.strip_prefix("x-cache: "));
        lines.map(|line| line.trim().to_owned()).collect()
    })
}

#[test]
fn n5_3_x_cache_says_in_a_word_what_the_cache_did() {
    let origin = Origin::new();
    let routes = "[[routes]]\nmatch = \"GET /off\"\ncache = { scope = \"off\" }\n";
    let pillion = pillion(&origin, routes);
    let both = |word: &str| [vec![word.to_owned()], vec![word.to_owned()]];
    origin.says("/fresh", &["cache-control: max-age=60"]);
    assert_eq!(get(&pillion, "/fresh").fields("x-cache"), ["MISS"]);
    // Enough requests for a rendered head.
    (0..4).for_each(|_| assert_eq!(x_cache(&pillion, "/fresh", &[]), both("HIT")));
    assert_eq!(x_cache(&pillion, "/unsaid", &[]), both("MISS"));
    assert_eq!(x_cache(&pillion, "/off", &[]), both("BYPASS"));
    let post = ["content-length: 0"];
    assert_eq!(ask(&pillion, "POST /any", &post).fields("x-cache"), ["BYPASS"], "a method of its own");
    origin.says("/asked", &["cache-control: max-age=0", "etag: \"1\""]);
    get(&pillion, "/asked");
    assert_eq!(x_cache(&pillion, "/asked", &[]), both("REVALIDATED"));
    origin.says("/swr", &["cache-control: max-age=0, stale-while-revalidate=60", "etag: \"1\""]);
    get(&pillion, "/swr");
    assert_eq!(x_cache(&pillion, "/swr", &[]), both("STALE"));
    assert_eq!(x_cache(&pillion, "/swr", &["cache-control: max-stale"])[0], ["STALE"]);
    origin.says("/sie", &["cache-control: max-age=0, stale-if-error=60"]);
    get(&pillion, "/sie");
    origin.says("/sie", &["status: 503"]);
    assert_eq!(x_cache(&pillion, "/sie", &[]), both("STALE"));
    // A 304 or a range made from a stored response is a hit too.
    origin.says("/tagged", &["cache-control: max-age=60", "etag: \"1\""]);
    get(&pillion, "/tagged");
    let unchanged = ask(&pillion, "GET /tagged", &["if-none-match: \"1\""]);
    assert_eq!((unchanged.status, unchanged.fields("x-cache")), (304, vec!["HIT".to_owned()]));
    let part = ask(&pillion, "GET /tagged", &["range: bytes=0-1"]);
    assert_eq!((part.status, part.fields("x-cache")), (206, vec!["HIT".to_owned()]));
}

#[test]
fn n5_3_x_cache_stands_behind_the_apps_own_which_is_not_stored() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "[[routes]]\nmatch = \"GET /edited\"\nset_response = { x-own = \"1\" }\n");
    for path in ["/a", "/edited"] {
        origin.says(path, &["cache-control: max-age=60", "x-cache: HIT from within"]);
        assert_eq!(get(&pillion, path).fields("x-cache"), ["HIT from within", "MISS"], "{path}");
        assert_eq!(get(&pillion, path).fields("x-cache"), ["HIT"], "{path}");
    }
    origin.says("/b", &["cache-control: max-age=0", "etag: \"1\"", "x-cache: HIT from within"]);
    get(&pillion, "/b");
    assert_eq!(get(&pillion, "/b").fields("x-cache"), ["REVALIDATED"]);
}

#[test]
fn n5_3_x_cache_can_be_turned_off_and_goes_with_debug_fields() {
    let origin = Origin::new();
    origin.says("/a", &["cache-control: max-age=60"]);
    for (setting, wanted) in [("x_cache = false", &[][..]), ("debug_header = true", &["HIT"])] {
        let pillion = pillion(&origin, &format!("[cache]\n{setting}\n"));
        get(&pillion, "/a");
        for found in x_cache(&pillion, "/a", &[]) {
            assert_eq!(found, wanted, "{setting}");
        }
    }
}

#[test]
fn n5_3_a_collapsed_request_is_a_hit() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let app = Script::answering(move |_| {
        let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncache-control: max-age=60\r\n\r\nok".to_vec()
    });
    let pillion = Pillion::in_front_of(app.address);
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| get(&pillion, "/a").fields("x-cache").join(" ")));
        eventually("one waits for the other", || {
            let waits = "pillion_cache_operations_total{operation=\"lookup\",result=\"collapsed\",route=\"unmatched\"}";
            (pillion.metric(waits) == 1.0).then_some(())
        });
        drop(release);
        let mut words = both.map(|one| one.join().unwrap());
        words.sort();
        assert_eq!(words, ["HIT", "MISS"]);
    });
}

#[test]
fn n5_3_cache_stats_have_hit_ratios_by_route_and_whole() {
    let origin = Origin::new();
    let routes = "[[routes]]\nmatch = \"GET /x/{id}\"\ncache = { ttl = \"1m\" }\n\
                  [[routes]]\nmatch = \"GET /off\"\ncache = { scope = \"off\" }\n";
    let pillion = pillion(&origin, routes);
    let empty = pillion.admin_get("/cache/stats").json();
    assert!(empty["hit_ratio"].is_null(), "{empty}");
    (0..4).for_each(|_| drop(get(&pillion, "/x/1")));
    (0..4).for_each(|_| drop(get(&pillion, "/other")));
    get(&pillion, "/off");
    let stats = pillion.admin_get("/cache/stats").json();
    assert_eq!(stats["routes"]["/x/{id}"]["hit_ratio"], 0.75, "{stats}");
    assert_eq!(stats["routes"]["/x/{id}"]["lookups"], 4, "{stats}");
    assert_eq!(stats["routes"]["unmatched"]["hit_ratio"], 0.0, "{stats}");
    assert_eq!(stats["routes"]["/off"]["bypassed"], 1, "{stats}");
    assert!(stats["routes"]["/off"]["hit_ratio"].is_null(), "{stats}");
    assert_eq!((&stats["hits"], &stats["lookups"]), (&3.into(), &8.into()), "{stats}");
    assert_eq!(stats["hit_ratio"], 0.375, "{stats}");
}

#[test]
fn n5_3_the_tier_stands_in_ratelimit_policy() {
    let origin = Origin::new();
    let tiers = "[rate_limit.tiers.free.limits]\nrequests = { rate = \"60/min\", burst = 2 }\n\
                 [[routes]]\nmatch = \"GET /slow\"\nconcurrency = 2\n";
    let pillion = pillion(&origin, tiers);
    let policy = |path: &str| get(&pillion, path).field("ratelimit-policy").unwrap();
    assert_eq!(policy("/"), "\"requests\";q=60;w=60;pillion-burst=2;pillion-tier=\"free\"");
    let slow = policy("/slow");
    assert!(slow.ends_with("\"concurrency\";q=2;qu=\"concurrent-requests\";pillion-tier=\"free\""), "{slow}");
}

#[test]
fn n5_3_a_correlation_id_is_taken_from_a_trusted_proxy() {
    let app = Script::echo();
    let config = |trusted: &str| {
        format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{trusted}[upstream]\nurl = \"http://{}\"\n",
            app.address
        )
    };
    let trusting = Pillion::with(&config("trusted_proxies = [\"127.0.0.0/8\"]\n"));
    let id =
        |pillion: &Pillion, fields: &[&str]| ask(pillion, "GET /", fields).field("x-request-id").unwrap();
    let (correlation, request) = ("x-correlation-id: theirs-1", "x-request-id: theirs-2");
    assert_eq!(id(&trusting, &[correlation]), "theirs-1");
    assert_eq!(ask(&trusting, "GET /", &[correlation]).json()["fields"]["x-request-id"], "theirs-1");
    assert_eq!(id(&trusting, &[correlation, request]), "theirs-2");
    assert_eq!(
        id(&trusting, &[correlation, "x-request-id: a\"b"]),
        "theirs-1",
        "what cannot be written is none"
    );
    assert_ne!(id(&trusting, &["x-correlation-id: a\"b"]), "a\"b");
    assert_ne!(id(&Pillion::with(&config("")), &[correlation]), "theirs-1");
}

/// Apps log and forward it like `X-Request-Id`, so a stranger must not choose it either.
#[test]
fn n5_3_a_correlation_id_of_a_stranger_is_replaced() {
    let app = Script::echo();
    let config = |server: &str, more: &str| {
        format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{server}[upstream]\nurl = \"http://{}\"\n{more}",
            app.address
        )
    };
    let edited = "[[routes]]\nmatch = \"* /**\"\nset_request = { x-tenant = \"clinic\" }\n";
    let correlation = "x-correlation-id: theirs";
    for more in ["", edited] {
        let pillion = Pillion::with(&config("", more));
        for fields in
            [&[correlation][..], &[correlation, "x-correlation-id: more"], &[correlation, "via: 1.1 edge"]]
        {
            let answer = ask(&pillion, "GET /", fields);
            let seen = answer.json()["fields"].clone();
            assert_eq!(seen["x-correlation-id"].as_str(), answer.field("x-request-id").as_deref(), "{seen}");
            assert_eq!(seen["x-correlation-id"], seen["x-request-id"]);
        }
        assert_eq!(ask(&pillion, "GET /", &[]).json()["fields"].get("x-correlation-id"), None);
    }
    let trusting = Pillion::with(&config("trusted_proxies = [\"127.0.0.0/8\"]\n", ""));
    let seen = ask(&trusting, "GET /", &[correlation, "x-request-id: one"]).json()["fields"].clone();
    assert_eq!((&seen["x-correlation-id"], &seen["x-request-id"]), (&"theirs".into(), &"one".into()));
}

/// A browser's script can then read a 429, and every response of a route has the same security fields.
#[test]
fn n4_9_a_route_edits_pillions_own_responses_too() {
    let origin = Origin::new();
    let edits = "set_response = { access-control-allow-origin = \"https://a.example\", x-frame-options = \"DENY\", \
                 cache-control = \"max-age=60\", pillion-cache-control = \"max-age=60\", content-type = \"text/plain\", \
                 content-language = \"en\", vary = \"origin\", etag = \"\\\"x\\\"\", last-modified = \"x\", expires = \"x\", \
                 retry-after = \"1000\", ratelimit-policy = \"x\", ratelimit = \"x\" }\n\
                 remove_response = [\"www-authenticate\", \"retry-after\", \"content-type\", \"ratelimit\"]\n";
    let pillion = pillion(
        &origin,
        &format!(
            "[identity]\napi_key = \"header:x-api-key\"\n[rate_limit]\nunlisted_keys = \"reject\"\n\
             [rate_limit.tiers.free.limits]\nrequests = {{ rate = \"60/min\", burst = 100 }}\n\
             one = {{ rate = \"1/h\", on = \"named\" }}\n\
             [upstreams.gone]\nurl = \"http://{}\"\n\
             [[routes]]\nmatch = \"* /rewritten/**\"\nrewrite = \"/gone/**\"\nset_response = {{ x-rewritten = \"1\" }}\n\
             [[routes]]\nmatch = \"* /limited\"\nlimits = [\"one\"]\n{edits}\
             [[routes]]\nmatch = \"* /gone/**\"\nupstream = \"gone\"\n{edits}\
             [[routes]]\nmatch = \"* /denied\"\ndeny = 403\n{edits}\
             [[routes]]\nmatch = \"* /moved/**\"\nredirect = {{ to = \"/elsewhere/**\" }}\n{edits}\
             [[routes]]\nmatch = \"* /small\"\nmax_body_size = \"1B\"\n{edits}",
            absent_app()
        ),
    );
    get(&pillion, "/limited");
    let key = ["x-api-key: unknown"];
    let long = ["content-length: 5"];
    for (line, fields, status) in [
        ("GET /limited", &[][..], 429),
        ("GET /limited", &key, 401),
        ("GET /gone/1", &[], 502),
        ("GET /rewritten/1", &[], 502),
        ("GET /denied", &[], 403),
        ("POST /small", &long, 413),
        ("GET /moved/1", &[], 308),
    ] {
        let found = ask(&pillion, line, fields);
        let field = |name: &str| found.field(name);
        assert_eq!(found.status, status, "{line}: {}", found.head);
        let origin = Some("https://a.example");
        assert_eq!(field("access-control-allow-origin").as_deref(), origin, "{line}");
        assert_eq!(field("x-frame-options").as_deref(), Some("DENY"), "{line}");
        assert_eq!(field("www-authenticate"), None, "{line}");
        assert_eq!(field("x-rewritten").is_some(), line.contains("rewritten"), "{line}");
        for kept in ["pillion-cache-control", "content-language", "etag", "last-modified", "expires"] {
            assert_eq!(field(kept), None, "{line} {kept}");
        }
        assert!(field("vary").is_none_or(|vary| vary != "origin"), "{line}");
        assert!(field("ratelimit-policy").is_none_or(|policy| policy != "x"), "{line}");
        if status >= 400 {
            assert_eq!(field("cache-control").as_deref(), Some("no-store"), "{line}");
            assert_eq!(field("content-type").as_deref(), Some("application/problem+json"), "{line}");
        }
        if status == 429 {
            let wait: u64 = field("retry-after").unwrap().parse().unwrap();
            assert!(wait > 1000, "{wait}");
            assert!(field("ratelimit").unwrap().starts_with("\"one\";r=0"), "{:?}", field("ratelimit"));
        }
    }
    // Edits of upstream responses are unchanged.
    origin.says("/limited", &[]);
    assert_eq!(get(&pillion, "/nowhere").field("x-frame-options"), None);
    let over_2 = run("curl", &["-s", "-i", "--http2-prior-knowledge", &pillion.url("/denied")]);
    assert!(
        over_2.contains("x-frame-options: DENY") && over_2.contains("cache-control: no-store"),
        "{over_2}"
    );
}
