//! Tests of the filter of fields that some apps mistake for others.

use super::is_odd;
use crate::layer::testing::Stage;

#[test]
fn names_with_underscores_and_proxy_are_odd() {
    for (name, wanted) in [("x-a", false), ("x_a", true), ("proxy", true), ("proxy-a", false)] {
        assert_eq!(is_odd(&name.parse().unwrap()), wanted, "{name}");
    }
}

#[test]
fn fields_are_dropped_by_the_configured_treatment() {
    const ROUTE: &str = "[[routes]]\nmatch = 'GET /a'\ncache = { ttl = '5s', key_headers = ['x-tenant'] }\n";
    for (treatment, line, dropped, bypasses) in [
        ("twins", ("x_a", "1"), false, true),
        // It has a meaning: for Pillion, for the identity of the user, or for the route.
        ("twins", ("x_forwarded_for", "1"), true, false),
        ("twins", ("content_length", "1"), true, false),
        ("twins", ("x_auth_token", "1"), true, false),
        ("twins", ("x_tenant", "1"), true, false),
        // Its twin is there.
        ("twins", ("x_known", "1"), true, false),
        // No cache key tells the twin's requests apart, even if it is dropped.
        ("twins", ("x_http_method_override", "1"), true, true),
        ("drop", ("x_a", "1"), true, false),
        ("pass", ("x_a", "1"), false, true),
        ("pass", ("x_forwarded_for", "1"), false, true),
        ("pass", ("proxy", "http://a/"), true, false),
        ("twins", ("proxy", "http://a/"), true, false),
    ] {
        let stage = Stage::new(&format!("{ROUTE}[server]\nunderscores = '{treatment}'"));
        let (name, value) = line;
        let routed = stage.ask("GET /a").field("x-known", "1").field(name, value).routed();
        let found = (!routed.request.headers().contains_key(name), routed.underscored);
        assert_eq!(found, (dropped, bypasses), "{treatment} {name}");
        assert!(routed.request.headers().contains_key("x-known"), "{treatment} {name}");
    }
}
