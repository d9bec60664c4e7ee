//! Tests of paths that apps read in different ways.

use super::{is_bypass, is_hit};
use crate::harness::origin::{Origin, ask, get, pillion};
use crate::harness::{Pillion, run};

/// Returns the status that curl gets over HTTP/2 with prior knowledge for a path as written.
fn h2_status(pillion: &Pillion, path: &str) -> String {
    let format = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--path-as-is", "--globoff"];
    run("curl", &[&format[..], &["--http2-prior-knowledge", &pillion.url(path)]].concat())
}

const DENY: &str = "[[routes]]\nmatch = \"* /admin/**\"\ndeny = 403\n\
    [[routes]]\nmatch = \"GET /WebDAV/secret\"\ndeny = 404\n\
    [[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1h\", scope = \"shared\" }\n";

#[test]
fn n2_6_deny_holds_for_both_readings() {
    let origin = Origin::new();
    let pillion = pillion(&origin, DENY);
    let denied = [
        "/admin/users",
        "/admin;v=1/users",
        "/admin;/users",
        "/;jsessionid=1/admin/users",
        "/ADMIN/users",
        "/Admin",
        "/admin/",
        "/admin%5Cusers",
        "/admin%2fusers",
        "/admin%252fusers",
        "/%2561dmin/users",
        "/x%252f..%252fadmin",
        "/x/%252e%252e/admin",
        "/admin%3bv=1/users",
        "//admin//users",
        "/ADMIN/100%25",
    ];
    for path in denied {
        assert_eq!(get(&pillion, path).status, 403, "{path}");
        assert_eq!(ask(&pillion, &format!("POST {path}"), &["content-length: 0"]).status, 403, "{path}");
        assert_eq!(h2_status(&pillion, path), "403", "{path} over HTTP/2");
    }
    for path in ["/webdav/secret", "/WebDAV/secret", "/WEBDAV/secret/"] {
        assert_eq!(get(&pillion, path).status, 404, "{path}");
    }
    assert_eq!(origin.count(), 0, "nothing of it reached the app");
    for path in ["/administrator", "/x/admin", "/a;b/c", "/adm%5Cin", "/;jsessionid=1", "/100%25"] {
        assert_eq!(get(&pillion, path).status, 200, "{path}");
        assert_eq!(h2_status(&pillion, path), "200", "{path} over HTTP/2");
    }
}

/// Flask and the `:param` routes of Express decode a path before they match routes.
#[test]
fn n2_6_deny_holds_for_delimiters_that_are_encoded() {
    let origin = Origin::new();
    let deny = ["POST /v1/things:wipe", "* /users/@me", "* /$metadata/**", "* /_cat(x)", "* /a%2Bb"];
    let routes = deny.map(|pattern| format!("[[routes]]\nmatch = \"{pattern}\"\ndeny = 403\n")).concat();
    let pillion = pillion(&origin, &routes);
    for path in [
        "/v1/things:wipe",
        "/v1/things%3Awipe",
        "/v1/things%3awipe",
        "/v1/things%253Awipe",
        "/users/@me",
        "/users/%40me",
        "/%24metadata/x",
        "/_cat%28x%29",
        "/a+b",
        "/a%2Bb",
    ] {
        assert_eq!(ask(&pillion, &format!("POST {path}"), &["content-length: 0"]).status, 403, "{path}");
    }
    assert_eq!(origin.count(), 0, "nothing of it reached the app");
    assert_eq!(ask(&pillion, "POST /v1/things%3Akeep", &["content-length: 0"]).status, 200);
}

#[test]
fn n2_6_dot_segments_with_parameters_are_no_paths() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    for path in [
        "/a/..;/b",
        "/a/..;x=1/b",
        "/a/.;a=b",
        "/%2e%2e;/b",
        "/a/..%3b/b",
        "/a/;/b",
        "/a/;",
        "/a/..%5Cb",
        "/a\\b",
    ] {
        assert_eq!(get(&pillion, path).status, 400, "{path}");
    }
    for path in ["/a/..;/b", "/a/;/b", "/a/..%5Cb"] {
        assert_eq!(h2_status(&pillion, path), "400", "{path} over HTTP/2");
    }
    assert_eq!(origin.count(), 0);
    // File names and session ids are unambiguous.
    for path in ["/a/..b;x/c", "/a%5Cb", "/;jsessionid=1", "/a;v=1.2/b;c=d"] {
        assert_eq!(get(&pillion, path).status, 200, "{path}");
        assert_eq!(origin.last().line, format!("GET {path} HTTP/1.1"), "it goes on as it came");
    }
}

#[test]
fn n2_6_what_readings_disagree_on_is_not_shared() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        "[[routes]]\nmatch = \"GET /account/**\"\ncache = { scope = \"off\" }\n\
         [[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1h\", scope = \"shared\" }\n",
    );
    for path in ["/account;x.css", "/ACCOUNT/a.css", "/x%252f..%252faccount", "/account%5Ca.css"] {
        assert!(is_bypass(&get(&pillion, path)), "{path}");
        assert!(is_bypass(&get(&pillion, path)), "{path}");
    }
    for path in ["/static/a;v=1.css", "/Static/A.css", "/static/", "/static//a", "/a%5Cb"] {
        get(&pillion, path);
        assert!(is_hit(&get(&pillion, path)), "{path}: both readings meet one route");
    }
}

#[test]
fn n2_6_limits_none_does_not_exempt_what_may_be_limited() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        "[[routes]]\nmatch = \"POST /login\"\n\
         [[routes]]\nmatch = \"* /**\"\nlimits = \"none\"\n\
         [rate_limit]\ndefault = \"free\"\n[rate_limit.tiers.free.limits]\nrequests = { rate = \"2/h\", burst = 2 }\n",
    );
    let post = |path: &str| ask(&pillion, &format!("POST {path}"), &["content-length: 0"]);
    assert_eq!((post("/Login").status, post("/login;a=1").status), (200, 200));
    let limited = post("/LOGIN/");
    assert_eq!(limited.status, 429);
    assert!(limited.field("ratelimit").is_some(), "{}", limited.head);
    assert_eq!(post("/login").status, 429);
    for path in ["/other", "/Other", "/x;a=1"] {
        assert_eq!(post(path).status, 200, "{path} is exempt in both readings");
    }
}

#[test]
fn n2_6_rewritten_paths_are_read_loosely_too() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        "[[routes]]\nmatch = \"* /v1/hidden/**\"\ndeny = 403\n\
         [[routes]]\nmatch = \"* /v1/**\"\nrewrite = \"/api/**\"\n\
         [[routes]]\nmatch = \"* /api/internal/**\"\ndeny = 404\n\
         [[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1h\", scope = \"shared\" }\n",
    );
    for (path, status) in [
        ("/v1/HIDDEN/x", 403),
        ("/v1/hidden;a/x", 403),
        ("/v1/INTERNAL/x", 404),
        ("/v1/internal;a=1/x", 404),
        ("/V1/internal/x", 404),
        ("/v1/internal%5Cx", 404),
        ("/v1/Public", 200),
    ] {
        assert_eq!(get(&pillion, path).status, status, "{path}");
    }
    assert_eq!(origin.count(), 1);
    assert_eq!(origin.last().line, "GET /api/Public HTTP/1.1");
    assert!(is_hit(&get(&pillion, "/v1/Public")));
}

#[test]
fn n4_17_raw_octets_of_targets_are_encoded() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        "[[routes]]\nmatch = \"GET /{x}/{y}\"\ncache = { ttl = \"1h\", scope = \"shared\" }\n",
    );
    for (sent, wanted) in [
        ("/a{b}/c|d?e={f}&g=\"h\"", "/a%7Bb%7D/c%7Cd?e=%7Bf%7D&g=%22h%22"),
        ("/a/b?c=<d>^`|\\e", "/a/b?c=%3Cd%3E%5E%60%7C%5Ce"),
        ("/a\"<>/^`?x", "/a%22%3C%3E/%5E%60?x"),
    ] {
        get(&pillion, sent);
        assert_eq!(origin.last().line, format!("GET {wanted} HTTP/1.1"), "{sent}");
        assert!(is_hit(&get(&pillion, wanted)), "{sent}: both spellings are one");
        let absolute = ask(&pillion, &format!("GET http://a.example{sent}"), &[]);
        assert!(is_hit(&absolute), "{sent} in absolute-form");
    }
    for path in ["/a\\b", "/a\\b?c"] {
        assert_eq!(get(&pillion, path).status, 400, "{path}");
    }
    assert_eq!(ask(&pillion, "GET http://a{b}.example/", &[]).status, 400, "a host is not encoded");
    // Over HTTP/2, the paths that the library accepts.
    for (sent, wanted) in [
        ("/h{b}/c|d?e={f}&g=^`|\\h", "/h%7Bb%7D/c%7Cd?e=%7Bf%7D&g=%5E%60%7C%5Ch"),
        ("/h\"b^/c", "/h%22b%5E/c"),
    ] {
        assert_eq!(h2_status(&pillion, sent), "200", "{sent} over HTTP/2");
        assert_eq!(origin.last().line, format!("GET {wanted} HTTP/1.1"), "{sent} over HTTP/2");
    }
    assert_eq!(h2_status(&pillion, "/a\\b"), "400");
}

#[test]
fn n2_6_a_write_to_one_reading_of_a_path_invalidates_the_other() {
    let origin = Origin::new();
    let pillion =
        pillion(&origin, "[[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1h\", scope = \"shared\" }\n");
    let fill = |path: &str| {
        get(&pillion, path);
        assert!(is_hit(&get(&pillion, path)), "{path}");
    };
    for (stored, written) in [
        ("/Api/x", "/api/x"),
        ("/api/x", "/API/x"),
        ("/api/x/", "/api/x"),
        ("/api/x", "/api;v=1/x"),
        ("/api%5Cx", "/api/x"),
        ("/api/x", "/api%2Fx"),
        ("/users/@me", "/users/%40me"),
        ("/users/%40you", "/users/@you"),
    ] {
        fill(stored);
        fill("/api/other");
        ask(&pillion, &format!("PUT {written}"), &["content-length: 0"]);
        assert!(!is_hit(&get(&pillion, stored)), "PUT {written} and then GET {stored}");
        assert!(is_hit(&get(&pillion, "/api/other")), "PUT {written}");
    }
}

#[test]
fn n2_6_rules_take_both_readings_of_what_is_written() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        "[[routes]]\nmatch = \"GET /api/summary/{id}\"\n\
         cache = { ttl = \"1h\", scope = \"shared\", tags = [\"patient:{id}\"] }\n\
         [[invalidate]]\non = \"PUT /api/patients/{id}\"\ntags = [\"patient:{id}\"]\n",
    );
    for (stored, written) in [
        ("/api/summary/7", "/api/patients/7"),
        ("/api/summary/7", "/api/patients/7;jsessionid=1"),
        ("/api/summary/7", "/API/patients/7"),
        ("/api/summary/7", "/api/patients/7/"),
        ("/api/summary/7;v=1", "/api/patients/7"),
        ("/api/summary/AbC", "/api/patients/AbC"),
    ] {
        for path in [stored, "/api/summary/8"] {
            get(&pillion, path);
            assert!(is_hit(&get(&pillion, path)), "{path}");
        }
        ask(&pillion, &format!("PUT {written}"), &["content-length: 0"]);
        assert!(!is_hit(&get(&pillion, stored)), "PUT {written} and then GET {stored}");
        assert!(is_hit(&get(&pillion, "/api/summary/8")), "PUT {written}");
    }
    let counted = pillion.metric("pillion_cache_invalidations_total{rule=\"PUT /api/patients/{id}\"}");
    assert_eq!(counted, 6.0, "a rule that takes both readings counts once");
}
