//! Tests of the limit layer on a scripted service.

use std::time::Duration;

use http::HeaderMap;
use tower::Service;

use super::{Limit, LimitError, names};
use crate::layer::record::RequestRecord;
use crate::layer::testing::{
    Asking, Outcome, Scripted, Stage, arriving, content, field, on_worker, response,
};
use crate::message::body::{Body, BodyError};

const TIERS: &str = "
    [rate_limit]
    tier = ['header:x-tier']
    [rate_limit.tiers.free]
    upgrade = 'https://example.com/pricing'
    [rate_limit.tiers.free.limits]
    requests = { rate = '60/min', burst = 2 }
    analysis = { rate = '60/h', burst = 1, on = 'named' }
    [rate_limit.tiers.pro.limits]
    requests = { rate = '600/min', burst = 20 }
    [[routes]]
    match = '* /free/not'
    [[routes]]
    match = '* /free/**'
    limits = 'none'
    [[routes]]
    match = '* /analysis'
    limits = ['analysis']
    [[routes]]
    match = '* /dear'
    cost = 2
    [[routes]]
    match = '* /few'
    concurrency = 1
    [server]
    trusted_proxies = ['10.0.0.0/8']
";

/// The layer before a service that responds with 200.
struct Limited {
    stage: Stage,
    layer: Limit<Scripted>,
}

impl Limited {
    fn new(configuration: &str) -> Limited {
        let stage = Stage::new(configuration);
        let below = Scripted::by(|_| Ok(response(200, &[], "hello")));
        let layer = Limit::new(below, stage.sink.shared_state.limiter.clone());
        Limited { stage, layer }
    }

    /// Sends a request; returns its record too, which holds its place among those in flight.
    async fn send(&self, asking: Asking) -> (std::rc::Rc<RequestRecord>, Outcome) {
        let routed = asking.routed();
        let record = routed.record.clone();
        (record, self.layer.clone().call(routed).await)
    }

    /// Returns whether a request passes, with the limits that it violates otherwise.
    async fn violated(&self, asking: Asking) -> Result<(), Vec<String>> {
        self.send(asking).await.1.map(drop).map_err(|error| match error.downcast_ref() {
            Some(LimitError::Exceeded { violated, tier, .. }) => {
                names(violated, tier).into_iter().map(str::to_owned).collect()
            }
            Some(LimitError::Rejected) => vec!["rejected".to_owned()],
            _ => panic!("{error}"),
        })
    }
}

fn told(record: &RequestRecord) -> HeaderMap {
    let mut headers = HeaderMap::new();
    record.add_own_fields(&mut headers);
    headers
}

#[test]
fn a_request_beyond_the_burst_is_refused_until_it_conforms() {
    on_worker(async {
        let limited = Limited::new(TIERS);
        // All arrive at the same moment, by which the limits count.
        let asking = || limited.stage.ask("GET /a");
        let base = crate::runtime::clock::now();
        let at = |seconds| asking().at(base + Duration::from_secs(seconds));
        for remaining in ["\"requests\";r=1;t=1", "\"requests\";r=0;t=2"] {
            let (record, outcome) = limited.send(at(0)).await;
            assert!(outcome.is_ok());
            let told = told(&record);
            assert_eq!(field(&told, "ratelimit"), remaining);
            assert_eq!(
                field(&told, "ratelimit-policy"),
                "\"requests\";q=60;w=60;pillion-burst=2;pillion-tier=\"free\""
            );
        }
        let (record, outcome) = limited.send(at(0)).await;
        let error = outcome.unwrap_err();
        let Some(LimitError::Exceeded { retry_after, tier, .. }) = error.downcast_ref() else {
            panic!("{error}")
        };
        assert_eq!((*retry_after, tier.name.as_str()), (Some(1), "free"));
        assert_eq!(field(&told(&record), "ratelimit"), "\"requests\";r=0;t=1");
        // The promise of Retry-After holds.
        assert_eq!(limited.violated(at(1)).await, Ok(()));
        assert_eq!(limited.violated(at(1)).await, Err(vec!["requests".to_owned()]));
        assert_eq!(limited.violated(at(0).from([192, 0, 2, 2])).await, Ok(()), "another client");
    });
}

#[test]
fn a_trusted_proxy_names_the_tier_of_a_request() {
    on_worker(async {
        for (client, tier, allowed) in [
            ([10, 0, 0, 1], "pro", 20),
            ([10, 0, 0, 1], "free", 2),
            ([10, 0, 0, 1], "unknown", 2),
            // A client cannot give itself a tier.
            ([192, 0, 2, 1], "pro", 2),
        ] {
            let limited = Limited::new(TIERS);
            let base = crate::runtime::clock::now();
            let mut passed = 0;
            for _ in 0..30 {
                let asking = limited.stage.ask("GET /a").at(base).from(client).field("x-tier", tier);
                passed += u32::from(limited.violated(asking).await.is_ok());
            }
            assert_eq!(passed, allowed, "{client:?} {tier}");
        }
    });
}

#[test]
fn routes_name_limits_weigh_requests_or_are_exempt() {
    on_worker(async {
        for (target, allowed, violated) in [
            ("/a", 2, &["requests"][..]),
            ("/free/a", 9, &[]),
            ("/free/not", 2, &["requests"]),
            // A path that can be read as one of another route is not exempt.
            ("/free/NOT", 2, &["requests"]),
            ("/analysis", 1, &["analysis"]),
            ("/dear", 1, &["requests"]),
        ] {
            let limited = Limited::new(TIERS);
            let base = crate::runtime::clock::now();
            let mut passed = 0;
            let mut last = Ok(());
            for _ in 0..9 {
                last = limited.violated(limited.stage.ask(&format!("GET {target}")).at(base)).await;
                if last.is_err() {
                    break;
                }
                passed += 1;
            }
            assert_eq!(passed, allowed, "{target}");
            assert_eq!(last.err().unwrap_or_default(), violated, "{target}");
        }
    });
}

#[test]
fn a_place_in_flight_is_free_again_when_its_request_ends() {
    on_worker(async {
        let limited = Limited::new("[[routes]]\nmatch = '* /few'\nconcurrency = 1");
        let asking = || limited.stage.ask("GET /few");
        let (record, first) = limited.send(asking()).await;
        assert!(first.is_ok());
        let (_, second) = limited.send(asking()).await;
        let error = second.unwrap_err();
        let Some(LimitError::Exceeded { violated, tier, retry_after }) = error.downcast_ref() else {
            panic!("{error}")
        };
        assert_eq!((names(violated, tier), *retry_after), (vec!["concurrency"], None));
        assert_eq!(limited.violated(asking().from([192, 0, 2, 2])).await, Ok(()), "another client");
        record.finish();
        drop((record, first));
        assert_eq!(limited.violated(asking()).await, Ok(()));
    });
}

#[test]
fn a_tier_in_shadow_mode_refuses_nothing_and_announces_nothing() {
    on_worker(async {
        let shadow = TIERS.replace("[rate_limit]", "[rate_limit]\nmode = 'shadow'");
        let limited = Limited::new(&shadow);
        let base = crate::runtime::clock::now();
        for _ in 0..5 {
            let (record, outcome) = limited.send(limited.stage.ask("GET /a").at(base)).await;
            assert!(outcome.is_ok());
            assert_eq!(field(&told(&record), "ratelimit"), "");
        }
    });
}

#[test]
fn older_fields_are_told_if_they_are_configured() {
    on_worker(async {
        let legacy = TIERS.replace("[rate_limit]", "[rate_limit]\nheaders = ['legacy']");
        let limited = Limited::new(&legacy);
        let (record, _) = limited.send(limited.stage.ask("GET /a")).await;
        let told = told(&record);
        assert_eq!((field(&told, "x-ratelimit-limit"), field(&told, "x-ratelimit-remaining")), ("60", "1"));
        assert_eq!(field(&told, "ratelimit"), "");
    });
}

#[test]
fn an_unknown_api_key_is_limited_by_its_address_or_refused() {
    on_worker(async {
        for (unlisted, allowed, last) in [("ip", 2, "requests"), ("reject", 0, "rejected"), ("own", 9, "")] {
            let configuration =
                TIERS.replace("[rate_limit]", &format!("[rate_limit]\nunlisted_keys = '{unlisted}'"));
            let limited = Limited::new(&configuration);
            let base = crate::runtime::clock::now();
            let mut passed = 0;
            let mut told = String::new();
            for number in 0..9 {
                // Each time another key that the client made up.
                let asking = limited.stage.ask("GET /a").at(base).field("x-api-key", &number.to_string());
                match limited.violated(asking).await {
                    Ok(()) => passed += 1,
                    Err(violated) => told = violated.join(" "),
                }
            }
            assert_eq!((passed, told.as_str()), (allowed, last), "{unlisted}");
        }
    });
}

#[test]
fn a_body_above_the_maximum_is_refused_by_its_length_or_as_it_comes() {
    on_worker(async {
        let stage = Stage::new("[server]\nmax_body_size = '4B'");
        let below = Scripted::by(|_| Ok(response(200, &[], "")));
        let mut layer = Limit::new(below.clone(), stage.sink.shared_state.limiter.clone());
        let error = layer.call(stage.ask("POST /a").body(Body::full("hello")).routed()).await.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&LimitError::TooLarge(4)));
        assert!(layer.call(stage.ask("POST /a").body(Body::full("hell")).routed()).await.is_ok());
        let (sender, body) = arriving(None);
        sender.send(Ok("hello".into())).unwrap();
        let mut limited = Passing::default();
        let mut layer = Limit::new(limited.clone(), stage.sink.shared_state.limiter.clone());
        layer.call(stage.ask("POST /a").body(body).routed()).await.unwrap();
        let body = limited.take();
        assert_eq!(content(http::Response::new(body)).await, Err(BodyError::TooLarge(4)));
    });
}

/// Keeps the body of the request it got.
#[derive(Clone, Default)]
struct Passing(std::rc::Rc<std::cell::RefCell<Option<Body>>>);

impl Passing {
    fn take(&mut self) -> Body {
        self.0.take().unwrap()
    }
}

impl Service<Box<crate::layer::routed::Routed>> for Passing {
    type Response = http::Response<Body>;
    type Error = crate::message::error::BoxError;
    type Future = std::future::Ready<Outcome>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut routed: Box<crate::layer::routed::Routed>) -> Self::Future {
        self.0.replace(Some(std::mem::replace(routed.request.body_mut(), Body::empty())));
        std::future::ready(Ok(response(200, &[], "")))
    }
}
