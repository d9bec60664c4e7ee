//! Tests of routes with conditions: which route is chosen, and what of it is in the cache.

use super::tools::named;
use crate::harness::{Answer, Pillion, Script, exchange};

/// An app that responds with the target and the fields that it got.
fn echo() -> Script {
    Script::answering(|request| {
        let text = request.to_json().to_string();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).into_bytes()
    })
}

/// Sends a request with these fields.
fn ask(pillion: &Pillion, line: &str, fields: &[&str]) -> Answer {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let text = format!("{line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{fields}\r\n");
    exchange(pillion.http, &text)
}

#[test]
fn conditions_choose_the_route() {
    let (main, other) = (named("main"), named("other"));
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[upstreams.other]\nurl = \"http://{}\"\n\
         [[routes]]\nmatch = \"GET /query\"\nwhen = {{ query = {{ action = [\"x\", \"beat-*\"] }} }}\nupstream = \"other\"\n\
         [[routes]]\nmatch = \"GET /header\"\nwhen = {{ header = {{ x-plan = \"pro\" }} }}\nupstream = \"other\"\n\
         [[routes]]\nmatch = \"GET /proto\"\nwhen = {{ header = [\"x-forwarded-proto\"] }}\nupstream = \"other\"\n\
         [[routes]]\nmatch = \"GET /cookie\"\nwhen = {{ cookie = [\"sid\", \"wordpress_logged_in_*\"] }}\nupstream = \"other\"\n\
         [[routes]]\nmatch = \"GET /nobody\"\nwhen = {{ not_cookie = [\"sid\"] }}\nupstream = \"other\"\n\
         [[routes]]\nmatch = \"GET /both\"\nwhen = {{ query = [\"a\"], cookie = [\"sid\"] }}\nupstream = \"other\"\n\
         [[routes]]\nmatch = \"GET /wall\"\nwhen = {{ query = [\"a\"] }}\ndeny = 403\n",
        main.address, other.address
    ));
    for (target, fields, app) in [
        ("/query?action=x", &[][..], "other"),
        ("/query?b=1&ACTION=beat-7", &[], "other"),
        ("/query?action=y", &[], "main"),
        ("/query", &[], "main"),
        ("/header", &["x-plan: pro"], "other"),
        ("/header", &["x-plan: free"], "main"),
        ("/header", &["x_plan: pro"], "main"),
        ("/proto", &["x-forwarded-proto: https"], "main"),
        ("/cookie", &["cookie: a=1; wordpress_logged_in_7=x"], "other"),
        ("/cookie", &["cookie: a=1"], "main"),
        ("/nobody", &["cookie: a=1"], "other"),
        ("/nobody", &["cookie: __Host-sid=1"], "main"),
        ("/both?a", &["cookie: sid=1"], "other"),
        ("/both?a", &[], "main"),
    ] {
        assert_eq!(ask(&pillion, &format!("GET {target}"), fields).text(), app, "{target} {fields:?}");
    }
    for (target, status) in
        [("/wall", 200), ("/wall?a", 403), ("/WALL?a", 403), ("/wall;x?a", 403), ("/WALL", 200)]
    {
        assert_eq!(ask(&pillion, &format!("GET {target}"), &[]).status, status, "{target}");
    }
}

#[test]
fn a_field_that_a_condition_names_has_no_twin() {
    let app = echo();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n\
         [[routes]]\nmatch = \"GET /**\"\nwhen = {{ header = {{ x-plan = \"pro\" }} }}\n\
         [[routes]]\nmatch = \"GET /**\"\n",
        app.address
    ));
    let got = ask(&pillion, "GET /", &["x_plan: pro", "x_other: 1"]).json();
    assert!(got["fields"].get("x_plan").is_none(), "{got}");
    assert_eq!(got["fields"]["x_other"], "1");
}

#[test]
fn copies_of_each_outcome_are_apart_and_a_write_takes_them_all() {
    let app = Script::answering(|request| {
        if request.line.starts_with("DELETE") {
            return b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
        }
        let text = request.to_json().to_string();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).into_bytes()
    });
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[cache]\npurge_from = [\"127.0.0.0/8\"]\n\
         [[routes]]\nmatch = \"GET /page\"\nwhen = {{ query = [\"preview\"] }}\nrewrite = \"/preview-of/page\"\n\
         [[routes]]\nmatch = \"GET /edited\"\nwhen = {{ header = {{ x-plan = \"pro\" }} }}\nrewrite = \"/edited\"\n\
         set_request = {{ x-inner = \"1\" }}\n\
         [[routes]]\nmatch = \"* /dir/**\"\nwhen = {{ header = {{ x-plan = \"pro\" }} }}\nrewrite = \"/pro/dir/**\"\n\
         [[routes]]\nmatch = \"* /page\"\nwhen = {{ header = {{ x-plan = \"pro\" }} }}\n\
         cache = {{ ttl = \"1h\", scope = \"shared\", key_query = [] }}\n\
         [[routes]]\nmatch = \"GET /page\"\nwhen = {{ query = {{ part = \"*\" }} }}\n\
         cache = {{ ttl = \"1h\", scope = \"shared\", key_query = [\"lang\"], strip_query = true }}\n\
         [[routes]]\nmatch = \"* /**\"\ncache = {{ ttl = \"1h\", scope = \"shared\" }}\n",
        app.address
    ));
    let forms = [
        ("GET /page", &[][..]),
        ("GET /page", &["x-plan: pro"]),
        ("GET /page?preview", &[]),
        ("GET /page?part=1", &[]),
        ("GET /page?part=2&other=3", &[]),
    ];
    // The last route and the path are the same; only the outcome of the condition above tells them apart.
    assert!(ask(&pillion, "GET /edited", &[]).json()["fields"].get("x-inner").is_none());
    let edited = ask(&pillion, "GET /edited", &["x-plan: pro"]);
    assert_eq!(
        (edited.field("x-cache").as_deref(), &edited.json()["fields"]["x-inner"]),
        (Some("MISS"), &"1".into())
    );
    let words = || {
        let cached = |(line, fields): &(&str, &[&str])| ask(&pillion, line, fields).field("x-cache").unwrap();
        forms.iter().map(cached).collect::<Vec<String>>().join(" ")
    };
    assert_eq!(words(), "MISS MISS MISS MISS MISS", "each is fetched");
    assert_eq!(words(), "HIT HIT HIT HIT HIT");
    let stripped = ask(&pillion, "GET /page?part=2&other=3", &[]).json();
    assert_eq!(stripped["target"], "/page?part=2", "a parameter of the condition counts");
    for write in ["POST /page", "PURGE /page"] {
        for fields in [&["content-length: 0"][..], &["content-length: 0", "x-plan: pro"]] {
            assert_eq!(ask(&pillion, write, fields).status, 200, "{write}");
            assert_eq!(
                words(),
                "MISS MISS MISS MISS MISS",
                "{write} {fields:?} takes the copies of all routes"
            );
            assert_eq!(words(), "HIT HIT HIT HIT HIT");
        }
    }
    let below = |fields: &[&str]| ask(&pillion, "GET /dir/a", fields).field("x-cache").unwrap();
    let both = || (below(&[]), below(&["x-plan: pro"]));
    assert_eq!((both(), both()), (("MISS".into(), "MISS".into()), ("HIT".into(), "HIT".into())));
    ask(&pillion, "DELETE /dir", &["depth: infinity", "x-plan: pro"]);
    assert_eq!(both(), ("MISS".into(), "MISS".into()), "a tree is taken at every path of its URL");
    assert_eq!(ask(&pillion, "PURGE /page?part=1", &[]).status, 200);
    assert!(words().ends_with(" HIT MISS HIT"), "a query takes the copies that it has under each route");
}
