//! Tests of routes that respond without an upstream.

use std::sync::atomic::Ordering;

use super::tools::named;
use crate::harness::{self, Config, Pillion, Script, ok};

#[test]
fn routes_name_their_app() {
    let (main, media) = (named("main"), named("media"));
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[upstreams.media]\nurl = \"http://{}\"\n\
         [[routes]]\nmatch = \"* /media/**\"\nupstream = \"media\"\n[[routes]]\nmatch = \"GET media.test/**\"\nupstream = \"media\"\n",
        main.address, media.address
    ));
    for (path, app) in [
        ("/", "main"),
        ("/media", "media"),
        ("/media/a/b", "media"),
        ("/mediax", "main"),
        ("//media//x", "media"),
    ] {
        assert_eq!(pillion.get(path).text(), app, "{path}");
    }
    let by_host = "GET /x HTTP/1.1\r\nhost: media.test\r\nconnection: close\r\n\r\n";
    assert_eq!(harness::exchange(pillion.http, by_host).text(), "media");
}

#[test]
fn routes_rewrite_refuse_redirect_and_edit() {
    let app = Script::answering(|request| {
        let mut answer = ok(&request.to_json().to_string());
        let at = answer.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
        answer.splice(at..at, *b"server: secret/1.0\r\nx-kind: app\r\n");
        answer
    });
    let pillion = Config::new(app.address).route("* /v1/**", "rewrite = \"/api/**\"\ndeprecated = { since = \"2026-01-01\", sunset = \"2026-12-31\", link = \"https://example.com/v2\" }").route("GET /u/{id}/p/{page}", r#"rewrite = "/pages/{page}/of/{id}""#).route("* /api/edited", "set_request = { x-tenant = \"clinic\", accept = \"text/plain\" }\nremove_request = [\"x-secret\"]\nset_response = { x-kind = \"edited\" }\nremove_response = [\"server\"]").route("* /internal/**", "deny = 404").route("* /gone", "deny = 410").route("GET /old/**", r#"redirect = { to = "https://example.com/new/**", status = 301 }"#).start();
    let answer = pillion.get("/v1/patients/7?x=1");
    assert_eq!(answer.json()["target"], "/api/patients/7?x=1");
    assert_eq!(answer.field("deprecation").unwrap(), "@1767225600");
    assert_eq!(answer.field("sunset").unwrap(), "Thu, 31 Dec 2026 00:00:00 GMT");
    let link = answer.field("link").unwrap();
    assert!(link.contains("<https://example.com/v2>"), "{link}");
    assert_eq!(pillion.get("/u/a%2Fb/p/9").json()["target"], "/pages/9/of/a%2Fb");

    let edited =
        "GET /v1/edited HTTP/1.1\r\nhost: test\r\nx-secret: 1\r\naccept: */*\r\nconnection: close\r\n\r\n";
    let answer = harness::exchange(pillion.http, edited);
    let fields = answer.json()["fields"].clone();
    assert_eq!(
        (fields["x-tenant"].as_str(), fields["accept"].as_str()),
        (Some("clinic"), Some("text/plain"))
    );
    assert!(fields.get("x-secret").is_none());
    assert_eq!(answer.fields("x-kind"), ["edited"]);
    assert!(
        answer.field("server").is_none() && answer.field("deprecation").is_some(),
        "edits of both routes: {}",
        answer.head
    );

    let before = app.connections.load(Ordering::SeqCst);
    assert_eq!(pillion.get("/internal").status, 404);
    assert_eq!(pillion.get("/internal/a/../../internal/b").status, 404);
    assert_eq!(pillion.get("/%69nternal/x").status, 404, "unreserved octets are decoded before matching");
    assert_eq!(pillion.get("/gone").status, 410);
    let moved = pillion.get("/old/a/b?c=d");
    assert_eq!(
        (moved.status, moved.field("location").unwrap().as_str()),
        (301, "https://example.com/new/a/b?c=d")
    );
    assert_eq!(app.connections.load(Ordering::SeqCst), before, "nothing of it reached the app");
}

#[test]
fn templates_with_prefixes_suffixes_and_a_rest_in_the_middle_hold_wherever_they_are_written() {
    let app = Script::answering(|request| {
        let text = request.to_json().to_string();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).into_bytes()
    });
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n\
         [[routes]]\nmatch = \"* /**/{{file}}.bak\"\ndeny = 404\n\
         [[routes]]\nmatch = \"GET /@{{scope}}/{{name}}\"\nrewrite = \"/scoped/{{name}}/{{scope}}.json\"\n\
         [[routes]]\nmatch = \"GET /old/**/{{page}}.html\"\nredirect = {{ to = \"/new/**/{{page}}\" }}\n\
         [[routes]]\nmatch = \"GET /v2/**/blobs/sha256:{{digest}}\"\n\
         cache = {{ ttl = \"1h\", scope = \"shared\", tags = [\"blob:{{digest}}\"] }}\n\
         [[routes]]\nmatch = \"GET /scoped/**\"\nset_request = {{ x-here = \"1\" }}\n\
         [[invalidate]]\non = \"PUT /push/**/d-{{digest}}\"\ntags = [\"blob:{{digest}}\"]\n",
        app.address
    ));
    for denied in ["/x.bak", "/a/b/x.bak", "/a/b/X.BAK", "/a/x%2Ebak", "/a/x.bak;v=1", "/a/x.bak/"] {
        assert_eq!(pillion.get(denied).status, 404, "{denied}");
    }
    let rewritten = pillion.get("/@b%61bel/core").json();
    assert_eq!(rewritten["target"], "/scoped/core/b%61bel.json");
    assert_eq!(rewritten["fields"]["x-here"], "1", "matching goes on below");
    assert_eq!(pillion.get("/babel/core").json()["target"], "/babel/core");
    let moved = pillion.get("/old/a/b/c.html?d=e");
    assert_eq!(moved.field("location").unwrap(), "/new/a/b/c?d=e");

    let blob = "/v2/library/nginx/blobs/sha256:77";
    let cached = || pillion.get(blob).field("x-cache").unwrap();
    assert_eq!((cached(), cached()), ("MISS".to_owned(), "HIT".to_owned()));
    let put = |path: &str| {
        let text =
            format!("PUT {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        assert_eq!(harness::exchange(pillion.http, &text).status, 200);
    };
    put("/push/library/d-78");
    assert_eq!(cached(), "HIT");
    put("/push/library/d-77");
    assert_eq!(cached(), "MISS", "the rule took the value between prefix and suffix");
}
