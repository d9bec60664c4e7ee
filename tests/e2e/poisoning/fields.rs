//! Tests of fields that apps act on and the cache key lacks: names with underscores, misleading ones, those for
//! fragments, those of trusted proxies, and those an app omits from its Vary.

use super::{is_bypass, is_hit};
use crate::harness::origin::{Origin, ask, get, pillion, status_of};
use crate::harness::{HTTP1, HTTP2, cases, eventually, run};

const LOCAL: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";

#[test]
fn n2_3_twins_of_fields_that_mean_something_never_reach_the_app() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        &format!(
            "{LOCAL}trusted_proxies = [\"127.0.0.1\"]\n\
             [[routes]]\nmatch = \"* /**\"\nset_request = {{ x-set = \"1\" }}\nremove_request = [\"x-debug\"]\n\
             cache = {{ ttl = \"1h\", scope = \"shared\", key_headers = [\"x-tenant-id\"] }}\n"
        ),
    );
    let stored = get(&pillion, "/a").text();
    for field in [
        "x_forwarded_for: 6.6.6.6",
        "X_Forwarded-Proto: https",
        "x_forwarded_user: admin",
        "x_real_ip: 6.6.6.6",
        "x_request_id: evil",
        "content_length: 3",
        "transfer_encoding: chunked",
        "x_auth_token: a",
        "x_remote_user: admin",
        "api_key: a",
        "x_tenant_id: other",
        "x_set: 2",
        "x_debug: 1",
        "if_none_match: *",
    ] {
        let (name, _) = field.split_once(':').unwrap();
        ask(&pillion, "POST /b", &[field, "content-length: 0"]);
        assert_eq!(origin.last().field(&name.to_ascii_lowercase()), None, "{field}");
        let hit = ask(&pillion, "GET /a", &[field]);
        assert!(is_hit(&hit) && hit.text() == stored, "{field}: {}", status_of(&hit));
    }
    // A different field in the same request.
    ask(&pillion, "POST /b", &["x-own: 1", "x_own: 2", "content-length: 0"]);
    assert_eq!((origin.last().field("x-own"), origin.last().field("x_own")), (Some("1"), None));
    // A misleading field is dropped, and stored responses are not affected.
    let misled = ask(&pillion, "GET /a", &["x_original_url: /admin"]);
    assert!(is_bypass(&misled), "{}", status_of(&misled));
    assert_eq!(origin.last().field("x_original_url"), None);
    // Any other field is forwarded, and no cache key distinguishes it from `x-flavour`.
    for fields in [&["x_flavour: 1"][..], &["x-flavour: 1", "y_z: 2"]] {
        let passed = ask(&pillion, "GET /a", fields);
        assert!(is_bypass(&passed), "{fields:?}: {}", status_of(&passed));
    }
    assert_eq!(origin.last().field("y_z"), Some("2"));
    eventually("the last one is told of", || pillion.log().contains("x_original_url").then_some(()));
    let warnings = pillion.log().matches("x_real_ip").count();
    assert_eq!(warnings, 1, "a dropped name is told of once:\n{}", pillion.log());
    let dropped = pillion.metric("pillion_request_fields_dropped_total{reason=\"underscore\"}");
    assert_eq!(dropped, 30.0);
}

fn n2_3_underscores_reach_the_app_as_configured(version: &str) {
    for (mode, reaches, hits) in [("twins", false, true), ("drop", false, true), ("pass", true, false)] {
        let origin = Origin::new();
        let pillion = pillion(&origin, &format!("{LOCAL}underscores = \"{mode}\"\n"));
        origin.says("/a", &["cache-control: max-age=60"]);
        let url = pillion.url("/a");
        let fields = ["-H", "host: a.example", "-H", "api_key: a"];
        run("curl", &[&["-sS", version, "-X", "POST"][..], &fields, &[&url]].concat());
        assert_eq!(origin.last().field("api_key").is_some(), reaches, "{mode} {version}");
        get(&pillion, "/a");
        assert_eq!(is_hit(&ask(&pillion, "GET /a", &["x_real_ip: 6.6.6.6"])), hits, "{mode}");
        let other = ask(&pillion, "GET /a", &["x_other: 1"]);
        assert_eq!(is_hit(&other), mode == "drop", "{mode}: {}", status_of(&other));
    }
}

cases! { n2_3_underscores_reach_the_app_as_configured:
    n2_3_underscores_reach_the_app_as_configured_over_http1 => HTTP1;
    n2_3_underscores_reach_the_app_as_configured_over_http2 => HTTP2;
}

fn n2_3_proxy_is_always_dropped(version: &str) {
    let origin = Origin::new();
    let pillion =
        pillion(&origin, &format!("{LOCAL}underscores = \"pass\"\ntrusted_proxies = [\"127.0.0.1\"]\n"));
    let url = pillion.url("/a");
    run("curl", &["-sS", version, "-H", "Proxy: http://evil.example", &url]);
    assert_eq!(origin.last().field("proxy"), None, "{version}");
}

cases! { n2_3_proxy_is_always_dropped:
    n2_3_proxy_is_always_dropped_over_http1 => HTTP1;
    n2_3_proxy_is_always_dropped_over_http2 => HTTP2;
}

#[test]
fn n2_4_misleading_fields_pass_the_cache_by() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: max-age=60"]);
    get(&pillion, "/a");
    for field in [
        "x-invoke-status: 500",
        "x-invoke-path: /b",
        "x-matched-path: /b",
        "x-now-route-matches: 1=b",
        "x-middleware-prefetch: 1",
        "x-middleware-subrequest: a",
        "http-method-override: DELETE",
        "x-backend-host: evil.example",
        "x-forwarded: for=6.6.6.6",
        "x-http-method-override: DELETE",
        "x-rewrite-url: /b",
    ] {
        let answer = ask(&pillion, "GET /a", &[field]);
        assert!(is_bypass(&answer), "{field}: {}", status_of(&answer));
    }
    assert!(is_hit(&get(&pillion, "/a")));
}

#[test]
fn n2_4_what_trusted_proxies_say_in_forwarded_is_in_the_key() {
    let origin = Origin::new();
    let pillion = pillion(&origin, &format!("{LOCAL}trusted_proxies = [\"127.0.0.1\"]\n"));
    origin.says("/a", &["cache-control: max-age=60"]);
    let of = |forwarded: &str| ask(&pillion, "GET /a", &[&format!("forwarded: {forwarded}")]);
    let first = of("for=1.1.1.1;proto=https;host=a.example").text();
    for same in [
        "for=2.2.2.2;proto=https;host=a.example",
        "for=3.3.3.3;by=_x;proto=https;host=a.example",
        "Proto=https;Host=a.example",
        "for=4.4.4.4, proto=https;host=a.example",
        // The client wrote the elements left of its address; the app does not get them.
        "for=1.1.1.1;host=evil.example, for=2.2.2.2;proto=https;host=a.example",
    ] {
        assert_eq!(of(same).text(), first, "{same}");
    }
    for other in [
        "for=1.1.1.1;proto=https;host=b.example",
        "for=1.1.1.1;proto=https;host=a.example;path=/evil",
        // The trusted proxy's statement about the client it names.
        "for=1.1.1.1;host=evil.example, for=127.0.0.1;proto=https;host=a.example",
        "for=1.1.1.1;proto=http;host=a.example",
        "for=1.1.1.1",
    ] {
        assert_ne!(of(other).text(), first, "{other}");
    }
}

#[test]
fn n2_4_fragments_are_told_apart_by_vary_alone() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        "[[routes]]\nmatch = \"GET /keyed\"\ncache = { ttl = \"1h\", scope = \"shared\", key_headers = [\"hx-request\"] }\n",
    );
    for field in [
        "x-requested-with: XMLHttpRequest",
        "hx-request: true",
        "hx-target: main",
        "turbo-frame: main",
        "x-inertia: true",
        "x-pjax: true",
        "x-livewire: true",
        "x-up-target: main",
        "rsc: 1",
        "next-router-prefetch: 1",
        "next-url: /",
        "next-action: a",
    ] {
        let (name, _) = field.split_once(':').unwrap();
        let path = format!("/no-vary/{name}");
        origin.says(&path, &["cache-control: max-age=60"]);
        let line = format!("GET {path}");
        let fragment = ask(&pillion, &line, &[field]);
        assert!(!status_of(&fragment).contains("stored"), "{field}: {}", status_of(&fragment));
        let page = get(&pillion, &path);
        assert_ne!(page.text(), fragment.text(), "{field} poisons the page");
        assert!(is_hit(&get(&pillion, &path)));
        assert_ne!(ask(&pillion, &line, &[field]).text(), page.text(), "{field} gets the page");
        // With Vary, both variants are stored.
        let path = format!("/vary/{name}");
        origin.says(&path, &["cache-control: max-age=60", &format!("vary: Accept, {name}")]);
        let line = format!("GET {path}");
        let (page, fragment) = (get(&pillion, &path).text(), ask(&pillion, &line, &[field]).text());
        assert_ne!(page, fragment);
        assert_eq!(
            (get(&pillion, &path).text(), ask(&pillion, &line, &[field]).text()),
            (page, fragment),
            "{field}"
        );
    }
    let (page, fragment) =
        (get(&pillion, "/keyed").text(), ask(&pillion, "GET /keyed", &["hx-request: true"]).text());
    assert_ne!(page, fragment);
    assert_eq!(ask(&pillion, "GET /keyed", &["hx-request: true"]).text(), fragment, "the key tells it apart");
}

#[test]
fn n2_5_a_response_without_vary_is_matched_by_what_others_vary_with() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    let of = |fields: &[&str]| ask(&pillion, "GET /a", fields);
    let says = |fields: &[&str]| origin.says("/a", fields);
    says(&["cache-control: max-age=60", "vary: X-Lang"]);
    let german = of(&["x-lang: de"]).text();
    // The app omits Vary in one of its responses.
    says(&["cache-control: max-age=60"]);
    let french = of(&["x-lang: fr"]).text();
    assert_ne!(french, german);
    assert_eq!(of(&["x-lang: de"]).text(), german);
    assert_eq!(of(&["x-lang: fr"]).text(), french);
    let other = of(&["x-lang: it"]).text();
    assert!(other != german && other != french, "nobody gets another language");
    let none = of(&[]).text();
    assert!(none != german && none != french && none != other);
    // The same if it was stored before the first response with Vary: an unknown value counts as absent.
    origin.says("/b", &["cache-control: max-age=60"]);
    let first = ask(&pillion, "GET /b", &["x-lang: de"]).text();
    origin.says("/b", &["cache-control: max-age=60", "vary: X-Lang"]);
    let second = ask(&pillion, "GET /b", &["x-lang: fr", "cache-control: no-cache"]).text();
    assert_eq!(ask(&pillion, "GET /b", &["x-lang: fr"]).text(), second);
    assert_ne!(ask(&pillion, "GET /b", &["x-lang: it"]).text(), first);
    assert_eq!(get(&pillion, "/b").text(), first);
}

#[test]
fn n4_20_selecting_fields_are_compared_in_their_normal_form() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: max-age=60", "vary: Accept, Accept-Language, X-Own"]);
    let of = |fields: &[&str]| ask(&pillion, "GET /a", fields);
    let first = of(&[
        "accept: text/html, application/json;q=0.9",
        "accept-language: en, de;q=0.5",
        "x-own: a",
        "x-own: b",
    ]);
    for same in [
        &["accept: TEXT/HTML,application/json; q=0.900", "accept-language: en ,de; q=0.50", "x-own: a, b"][..],
        &["accept: application/json;q=0.9, text/html", "accept-language: de;q=0.5,EN", "x-own:  a, b "],
        &[
            "accept: text/html",
            "accept: application/json;Q=0.9",
            "accept-language: en,,de;q=0.5",
            "x-own: a, b",
        ],
    ] {
        assert_eq!(of(same).text(), first.text(), "{same:?}");
    }
    for other in [
        &["accept: text/html;q=0.9, application/json", "accept-language: en, de;q=0.5", "x-own: a, b"][..],
        &["accept: text/html, application/json;q=0.9", "accept-language: en, de;q=0.5", "x-own: A, b"],
        &["accept: text/html, application/json;q=0.9", "accept-language: en, de;q=0.5", "x-own: b, a"],
        &["accept: text/html, application/json;q=0.9", "accept-language: de;q=0.5", "x-own: a, b"],
    ] {
        assert_ne!(of(other).text(), first.text(), "{other:?}");
    }
}

#[test]
fn n2_5_an_origin_that_is_allowed_by_name_varies_although_vary_does_not_say_so() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    let of = |fields: &[&str]| ask(&pillion, "GET /a", fields);
    origin.says("/a", &["cache-control: max-age=60", "access-control-allow-origin: https://evil.example"]);
    let evil = of(&["origin: https://evil.example"]).text();
    origin.says("/a", &["cache-control: max-age=60", "access-control-allow-origin: https://a.example"]);
    let mine = of(&["origin: https://a.example"]);
    assert_ne!(mine.text(), evil);
    assert_eq!(of(&["origin: https://a.example"]).text(), mine.text());
    assert_eq!(of(&["origin: https://evil.example"]).text(), evil);
    // A response that allows all origins is shared.
    origin.says("/b", &["cache-control: max-age=60", "access-control-allow-origin: *"]);
    let first = ask(&pillion, "GET /b", &["origin: https://a.example"]).text();
    assert_eq!(ask(&pillion, "GET /b", &["origin: https://b.example"]).text(), first);
}
