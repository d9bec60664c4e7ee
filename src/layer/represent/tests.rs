//! Tests of the representation layer on a scripted service.

use std::io::Read as _;
use std::pin::Pin;

use http::{HeaderMap, Response};
use tower::Service;

use super::Represent;
use super::error::RepresentError;
use crate::layer::cache::service::CacheLayer;
use crate::layer::testing::{
    Asking, Outcome, Scripted, Stage, arriving, content, field, on_worker, response,
};
use crate::message::body::Body;
use crate::represent::entity_tag;

const TEXT: (&str, &str) = ("content-type", "text/html");

/// Content that is worth encoding.
fn page() -> String {
    "<p>hello, hello, hello</p>\n".repeat(100)
}

/// Sends a request through the layer to a service that responds in one way.
async fn sent(
    configuration: &str,
    line: &str,
    change: impl Fn(Asking) -> Asking,
    respond: impl Fn() -> Response<Body> + 'static,
) -> (Scripted, Outcome) {
    let stage = Stage::new(configuration);
    let below = Scripted::by(move |_| Ok(respond()));
    let outcome = Represent(below.clone()).call(change(stage.ask(line)).routed()).await;
    (below, outcome)
}

fn fields<const N: usize>(headers: &HeaderMap, names: [&str; N]) -> [String; N] {
    names.map(|name| field(headers, name).to_owned())
}

async fn bytes(response: Response<Body>) -> Vec<u8> {
    let (mut body, mut content) = (response.into_body(), Vec::new());
    while let Some(frame) =
        std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await
    {
        content.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    content
}

#[test]
fn boxes_of_every_request_are_allocated_quickly() {
    let size = size_of::<super::Representing>();
    assert!(crate::layer::is_quick(size), "{size}");
}

#[test]
fn content_gets_the_coding_that_the_client_prefers() {
    on_worker(async {
        for (accepts, coding) in [
            ("gzip", "gzip"),
            ("gzip, br", "br"),
            ("gzip, br, zstd", "zstd"),
            ("gzip;q=1, br;q=0.5", "gzip"),
            ("identity", ""),
            ("deflate", ""),
        ] {
            let asks = move |asking: Asking| asking.field("accept-encoding", accepts);
            let (below, outcome) = sent("", "GET /a", asks, || response(200, &[TEXT], &page())).await;
            let found = outcome.unwrap();
            let told = fields(found.headers(), ["content-encoding", "vary"]);
            assert_eq!(told, [coding, "accept-encoding"].map(str::to_owned), "{accepts}");
            assert_eq!(below.last().field("accept-encoding"), "identity", "{accepts}");
            assert_eq!(bytes(found).await.len() < page().len(), !coding.is_empty(), "{accepts}");
        }
    });
}

#[test]
fn gzip_content_decodes_to_the_content_of_the_upstream() {
    on_worker(async {
        let asks = |asking: Asking| asking.field("accept-encoding", "gzip");
        let (_, outcome) = sent("", "GET /a", asks, || response(200, &[TEXT], &page())).await;
        let coded = bytes(outcome.unwrap()).await;
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*coded).read_to_string(&mut text).unwrap();
        assert_eq!(text, page());
    });
}

#[test]
fn content_is_not_encoded_where_that_is_of_no_use_or_not_allowed() {
    on_worker(async {
        let short = "<p>hello</p>".to_owned();
        for (line, asked, lines, content, coding) in [
            ("GET /a", ("x-a", "1"), &[TEXT][..], page(), "gzip"),
            ("GET /a", ("cache-control", "no-transform"), &[TEXT], page(), ""),
            ("GET /a", ("x-a", "1"), &[TEXT, ("cache-control", "no-transform")], page(), ""),
            ("GET /a", ("x-a", "1"), &[TEXT, ("content-encoding", "br")], page(), "br"),
            ("GET /a", ("x-a", "1"), &[("content-type", "image/png")], page(), ""),
            ("GET /a", ("x-a", "1"), &[("content-type", "text/event-stream")], page(), ""),
            ("GET /a", ("x-a", "1"), &[TEXT], short, ""),
            // The content repeats a part of the query, and the response sets a cookie.
            ("GET /a?q=hello,%20hello", ("x-a", "1"), &[TEXT, ("set-cookie", "a=b")], page(), ""),
            ("GET /raw", ("x-a", "1"), &[TEXT], page(), ""),
        ] {
            let (name, value) = asked;
            let asks = move |asking: Asking| asking.field("accept-encoding", "gzip").field(name, value);
            let configuration = "[[routes]]\nmatch = 'GET /raw'\ncompress = false";
            let lines: Vec<(&'static str, &str)> = lines.to_vec();
            let (_, outcome) = sent(configuration, line, asks, move || response(200, &lines, &content)).await;
            let found = outcome.unwrap();
            assert_eq!(field(found.headers(), "content-encoding"), coding, "{line} {asked:?}");
        }
    });
}

#[test]
fn a_strong_tag_on_encoded_content_is_weakened_and_strong_again_for_the_upstream() {
    on_worker(async {
        let asks = |asking: Asking| asking.field("accept-encoding", "gzip");
        let tagged = || response(200, &[TEXT, ("etag", "\"a\"")], &page());
        let (_, outcome) = sent("", "GET /a", asks, tagged).await;
        assert_eq!(field(outcome.unwrap().headers(), "etag"), "W/\"a\"");
        let holds = move |asking: Asking| asks(asking).field("if-none-match", "W/\"a\"");
        let (below, outcome) = sent("", "GET /a", holds, tagged).await;
        assert_eq!(below.last().field("if-none-match"), "\"a\", W/\"a\"");
        let found = outcome.unwrap();
        assert_eq!((found.status().as_u16(), field(found.headers(), "etag")), (304, "W/\"a\""));
        let plain = |asking| asking;
        let (_, outcome) = sent("", "GET /a", plain, tagged).await;
        assert_eq!(field(outcome.unwrap().headers(), "etag"), "\"a\"");
    });
}

#[test]
fn a_response_without_a_validator_gets_a_made_tag_that_clients_can_revalidate() {
    on_worker(async {
        let plain = || response(200, &[TEXT], "hello");
        let made = entity_tag::made([bytes::Bytes::from_static(b"hello")].iter());
        let made = made.to_str().unwrap().to_owned();
        let (_, outcome) = sent("", "GET /a", |asking| asking, plain).await;
        assert_eq!(field(outcome.unwrap().headers(), "etag"), made);
        let tag = made.clone();
        let holds = move |asking: Asking| asking.field("if-none-match", &tag);
        let (below, outcome) = sent("", "GET /a", &holds, plain).await;
        let found = outcome.unwrap();
        assert_eq!((found.status().as_u16(), field(found.headers(), "etag")), (304, &*made));
        assert_eq!(content(found).await.unwrap(), "");
        assert_eq!(below.last().field("if-none-match"), "", "the upstream does not know it");
        // A made tag is weak, so it never holds where tags are compared strongly.
        let matches = move |asking: Asking| asking.field("if-match", &made);
        let (below, outcome) = sent("", "PUT /a", &matches, plain).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(RepresentError::PreconditionFailed)), "{error}");
        assert_eq!(below.count(), 0);
        for lines in [
            &[TEXT, ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")][..],
            &[TEXT, ("cache-control", "no-store")],
        ] {
            let lines = lines.to_vec();
            let (_, outcome) =
                sent("", "GET /a", |asking| asking, move || response(200, &lines, "hello")).await;
            assert_eq!(field(outcome.unwrap().headers(), "etag"), "");
        }
    });
}

#[test]
fn conditions_are_evaluated_on_the_response() {
    on_worker(async {
        const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
        const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
        for (line, condition, wanted) in [
            ("GET /a", ("if-none-match", "\"a\""), Ok(304)),
            ("HEAD /a", ("if-none-match", "\"a\""), Ok(304)),
            ("GET /a", ("if-none-match", "\"b\""), Ok(200)),
            ("GET /a", ("if-none-match", "*"), Ok(304)),
            ("GET /a", ("if-modified-since", DATE), Ok(304)),
            ("GET /a", ("if-modified-since", LATER), Ok(304)),
            ("GET /a", ("if-modified-since", EARLIER), Ok(200)),
            ("GET /a", ("if-match", "\"a\""), Ok(200)),
            ("GET /a", ("if-match", "\"b\""), Err(())),
            ("GET /a", ("if-unmodified-since", EARLIER), Err(())),
            // The upstream evaluates those of a write.
            ("PUT /a", ("if-match", "\"b\""), Ok(200)),
        ] {
            let asks = move |asking: Asking| asking.field(condition.0, condition.1);
            let responds = || response(200, &[TEXT, ("etag", "\"a\""), ("last-modified", DATE)], "hello");
            let (_, outcome) = sent("", line, asks, responds).await;
            let found = outcome.map(|found| found.status().as_u16()).map_err(|error| {
                assert!(matches!(error.downcast_ref(), Some(RepresentError::PreconditionFailed)), "{error}");
            });
            assert_eq!(found, wanted, "{line} {condition:?}");
        }
    });
}

#[test]
fn a_range_is_cut_from_the_content() {
    on_worker(async {
        for (asked, status, range, wanted) in [
            ("bytes=0-1", 206, "bytes 0-1/5", "he"),
            ("bytes=3-", 206, "bytes 3-4/5", "lo"),
            ("bytes=-1", 206, "bytes 4-4/5", "o"),
            ("bytes=2-1", 200, "", "hello"),
            ("lines=0-1", 200, "", "hello"),
        ] {
            let asks = move |asking: Asking| asking.field("range", asked);
            let (_, outcome) = sent("", "GET /a", asks, || response(200, &[TEXT], "hello")).await;
            let found = outcome.unwrap();
            assert_eq!(
                (found.status().as_u16(), field(found.headers(), "content-range")),
                (status, range),
                "{asked}"
            );
            assert_eq!(content(found).await.unwrap(), wanted, "{asked}");
        }
        let beyond = |asking: Asking| asking.field("range", "bytes=5-");
        let (_, outcome) = sent("", "GET /a", beyond, || response(200, &[TEXT], "hello")).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(RepresentError::RangeNotSatisfiable(5))), "{error}");
        // If-Range with another tag asks for the whole.
        let other = |asking: Asking| asking.field("range", "bytes=0-1").field("if-range", "\"b\"");
        let tagged = || response(200, &[TEXT, ("etag", "\"a\"")], "hello");
        let (_, outcome) = sent("", "GET /a", other, tagged).await;
        assert_eq!(outcome.unwrap().status(), 200);
    });
}

#[test]
fn a_client_that_accepts_nothing_available_is_refused() {
    on_worker(async {
        for (accepts, coded, wanted) in [
            ("identity;q=0, deflate", "", Err(())),
            ("*;q=0", "", Err(())),
            ("identity;q=0, gzip", "", Ok("gzip")),
            ("identity;q=0, br", "br", Ok("br")),
            // Without identity;q=0 a response in another coding is better than none.
            ("br", "gzip", Ok("gzip")),
        ] {
            let asks = move |asking: Asking| asking.field("accept-encoding", accepts);
            let responds = move || match coded {
                "" => response(200, &[TEXT], &page()),
                coded => response(200, &[TEXT, ("content-encoding", coded)], &page()),
            };
            let (_, outcome) = sent("", "GET /a", asks, responds).await;
            let found = match &outcome {
                Ok(found) => Ok(field(found.headers(), "content-encoding")),
                Err(error) => {
                    assert!(matches!(error.downcast_ref(), Some(RepresentError::NotAcceptable)), "{error}");
                    Err(())
                }
            };
            assert_eq!(found, wanted, "{accepts} {coded}");
        }
    });
}

#[test]
fn responses_that_have_no_representation_here_pass_unchanged() {
    on_worker(async {
        let gzip = |asking: Asking| asking.field("accept-encoding", "gzip");
        for change in
            [(|asking: Asking| asking.upgrade("websocket")) as fn(Asking) -> Asking, |asking: Asking| {
                asking.field("signature-input", "a=(\"@method\")")
            }]
        {
            let asks = move |asking: Asking| change(gzip(asking));
            let (below, outcome) = sent("", "GET /a", asks, || response(200, &[TEXT], &page())).await;
            let found = outcome.unwrap();
            assert_eq!(
                fields(found.headers(), ["content-encoding", "etag", "vary"]),
                ["", "", ""].map(str::to_owned)
            );
            assert_eq!(below.last().field("accept-encoding"), "gzip", "the request is not edited either");
        }
    });
}

#[test]
fn content_that_arrives_slowly_is_encoded_as_it_comes() {
    on_worker(async {
        let (sender, body) = arriving(None);
        sender.send(Ok(page().into())).unwrap();
        let mut arrives = response(200, &[TEXT], "");
        *arrives.body_mut() = body;
        let below = Scripted::queue([arrives]);
        let asking = Stage::new("").ask("GET /a").field("accept-encoding", "gzip");
        let found = Represent(below).call(asking.routed()).await.unwrap();
        assert_eq!(field(found.headers(), "content-encoding"), "gzip");
        assert_eq!(field(found.headers(), "etag"), "", "its end was not in sight");
        sender.send(Ok(page().into())).unwrap();
        drop(sender);
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*bytes(found).await).read_to_string(&mut text).unwrap();
        assert_eq!(text, page().repeat(2));
    });
}

#[test]
fn browsers_are_told_the_lifetime_of_the_route() {
    on_worker(async {
        let configuration = "[[routes]]\nmatch = 'GET /a'\nbrowser_ttl = '1h'";
        let (_, outcome) =
            sent(configuration, "GET /a", |asking| asking, || response(200, &[TEXT], "")).await;
        assert_eq!(field(outcome.unwrap().headers(), "cache-control"), "max-age=3600");
    });
}

#[test]
fn a_stored_response_that_is_often_asked_for_over_http1_has_a_rendered_head() {
    on_worker(async {
        let stage = Stage::new("");
        let lines = [TEXT, ("cache-control", "max-age=60"), ("etag", "\"a\"")];
        let below = Scripted::queue([response(200, &lines, &page())]);
        let mut layer = Represent(CacheLayer::new(below, stage.cache().clone(), Default::default()));
        let asking = || stage.ask("GET /a").over_http1().field("accept-encoding", "gzip");
        for rendered in [false, false, false, true, true] {
            let mut found = layer.call(asking().routed()).await.unwrap();
            let lines = found.body_mut().take_lines();
            assert_eq!(lines.is_some(), rendered);
            if let Some(lines) = lines {
                let text = lines.parts().map(|part| String::from_utf8(part.to_vec()).unwrap()).concat();
                for line in
                    ["content-encoding: gzip", "etag: W/\"a\"", "age: ", "cache-status: pillion; hit; ttl="]
                {
                    assert!(text.contains(line), "{line}: {text}");
                }
            }
            assert!(bytes(found).await.len() < page().len());
        }
        let holds = asking().field("if-none-match", "W/\"a\"");
        let mut found = layer.call(holds.routed()).await.unwrap();
        assert_eq!((found.status().as_u16(), found.body_mut().take_lines().unwrap().unchanged), (304, true));
    });
}
