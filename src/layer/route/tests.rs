//! Tests of the route layer on a scripted service.

use http::StatusCode;
use tower::Service;

use super::{Route, RouteError};
use crate::layer::testing::{Asking, Outcome, Scripted, Stage, field, on_worker, response};
use crate::message::inbound::Refused;
use crate::policy::path::PathError;

const ROUTES: &str = "
    [[routes]]
    match = 'GET /secret/**'
    deny = 404
    [[routes]]
    match = '* old.example.com/**'
    redirect = { to = 'https://example.com/**', status = 308 }
    set_response = { x-frame-options = 'DENY', cache-control = 'no-store' }
    [[routes]]
    match = '* /v1/**'
    rewrite = '/api/**'
    set_response = { x-version = '1' }
    [[routes]]
    match = '* /api/{id}'
    set_response = { x-a = '2' }
    remove_response = ['server']
";

/// Sends a request through the layer to a service that responds with 200.
async fn sent(configuration: &str, line: &str, change: impl Fn(Asking) -> Asking) -> (Scripted, Outcome) {
    let stage = Stage::new(configuration);
    let below = Scripted::by(|_| Ok(response(200, &[("server", "a"), ("x-a", "1")], "")));
    let outcome = Route(below.clone()).call(change(stage.ask(line)).observed()).await;
    (below, outcome)
}

#[test]
fn a_path_is_forwarded_as_it_came_but_without_dot_segments() {
    on_worker(async {
        for (target, wanted) in [
            ("/a", "/a"),
            ("/a/./b/../c", "/a/c"),
            // Empty segments count for no route. The upstream gets them, unless the path is rewritten.
            ("//a///b", "//a///b"),
            ("/v1//orders", "/api/orders"),
            ("/%61", "/%61"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a/?b=./c", "/a/?b=./c"),
            ("/v1/orders/5?x=%2e", "/api/orders/5?x=%2e"),
            ("/v1", "/api"),
        ] {
            let (below, outcome) = sent(ROUTES, &format!("GET {target}"), |asking| asking).await;
            assert_eq!(outcome.unwrap().status(), 200, "{target}");
            assert_eq!(below.last().target, wanted, "{target}");
        }
    });
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_refused() {
    on_worker(async {
        for (target, wanted) in [
            ("/a%00", PathError::Null),
            ("/%2e%2e/a", PathError::EncodedDots),
            ("/a/..;/b", PathError::DotsWithParameters),
            ("/a/;/b", PathError::EmptyParameters),
            ("/../a", PathError::AboveRoot),
            ("/a%2", PathError::BadEscape),
        ] {
            let (below, outcome) = sent(ROUTES, &format!("GET {target}"), |asking| asking).await;
            assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&wanted), "{target}");
            assert_eq!(below.count(), 0, "{target}");
        }
    });
}

#[test]
fn deny_holds_in_both_readings_of_a_path() {
    on_worker(async {
        let denied = RouteError::Denied(StatusCode::NOT_FOUND);
        for (line, wanted) in [
            ("GET /secret/a", Some(&denied)),
            ("HEAD /secret/a", Some(&denied)),
            ("GET /SECRET/a", Some(&denied)),
            ("GET /secret;x=1/a", Some(&denied)),
            ("POST /secret/a", None),
            ("GET /secrets", None),
        ] {
            let (_, outcome) = sent(ROUTES, line, |asking| asking).await;
            let found = outcome.as_ref().err().and_then(|error| error.downcast_ref());
            assert_eq!(found, wanted, "{line}");
        }
    });
}

#[test]
fn a_redirect_is_filled_with_the_path_and_edited_by_its_route() {
    on_worker(async {
        let (below, outcome) = sent(ROUTES, "GET /a/b?c=d", |asking| asking.host("old.example.com")).await;
        let found = outcome.unwrap();
        assert_eq!(found.status(), 308);
        assert_eq!(field(found.headers(), "location"), "https://example.com/a/b?c=d");
        assert_eq!(field(found.headers(), "x-frame-options"), "DENY");
        assert_eq!(field(found.headers(), "cache-control"), "", "not on Pillion's own responses");
        assert_eq!(below.count(), 0);
    });
}

#[test]
fn a_response_is_edited_by_the_routes_that_its_request_passed() {
    on_worker(async {
        for (line, version, edited, server) in
            [("GET /api/5", "", "2", ""), ("GET /v1/5", "1", "2", ""), ("GET /other", "", "1", "a")]
        {
            let (_, outcome) = sent(ROUTES, line, |asking| asking).await;
            let response = outcome.unwrap();
            let found = ["x-version", "x-a", "server"].map(|name| field(response.headers(), name));
            assert_eq!(found, [version, edited, server], "{line}");
        }
    });
}

#[test]
fn https_is_demanded_of_clients_that_do_not_use_it() {
    on_worker(async {
        let configuration = "[server]\nredirect_https = true\ntrusted_proxies = ['10.0.0.0/8']";
        let (below, outcome) = sent(configuration, "GET /a?b", |asking| asking).await;
        let found = outcome.unwrap();
        assert_eq!((found.status().as_u16(), below.count()), (308, 0));
        assert_eq!(field(found.headers(), "location"), "https://example.com/a?b");
        let said = |value: &'static str| {
            move |asking: Asking| asking.from([10, 0, 0, 1]).field("x-forwarded-proto", value)
        };
        let (_, over_tls) = sent(configuration, "GET /a", Asking::over_tls).await;
        let (_, told_https) = sent(configuration, "GET /a", said("https")).await;
        let (_, told_http) = sent(configuration, "GET /a", said("http")).await;
        let found = [over_tls, told_https, told_http].map(|outcome| outcome.unwrap().status().as_u16());
        assert_eq!(found, [200, 200, 308]);
    });
}

#[test]
fn connect_and_loops_are_refused() {
    on_worker(async {
        let own = crate::fields::forwarded::via(http::Version::HTTP_11);
        let others: Vec<String> =
            (0..11).map(|number| format!("1.1 {}-{number}", crate::fields::forwarded::PSEUDONYM)).collect();
        for (line, via, wanted) in [
            ("CONNECT /a", "1.1 a", Some(RouteError::Connect)),
            ("GET /a", "1.1 a", None),
            ("GET /a", own, Some(RouteError::CameBack)),
            ("GET /a", &others[..10].join(", "), None),
            ("GET /a", &others.join(", "), Some(RouteError::Loop)),
        ] {
            let (_, outcome) = sent("", line, |asking| asking.field("via", via)).await;
            let found = outcome.as_ref().err().and_then(|error| error.downcast_ref());
            assert_eq!(found, wanted.as_ref(), "{line} {via}");
        }
    });
}

#[test]
fn a_request_that_its_connection_refused_is_refused() {
    on_worker(async {
        let mut observed = Stage::new("").ask("GET /a").observed();
        let refused = Refused { status: StatusCode::BAD_REQUEST, detail: "a reason" };
        observed.inbound.refused = Some(refused);
        let error = Route(Scripted::queue([])).call(observed).await.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&refused));
    });
}
