//! Tests of WebDAV and the cache: operations on collections invalidate what lies below, and strangers cannot.

use std::sync::atomic::Ordering;

use super::tools::{Holding, RULES, begin, is_hit, leave, wait_for};
use crate::harness::holding::Raise;
use crate::harness::origin::*;

#[test]
fn n4_12_webdav_takes_trees_away() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        "[[routes]]\nmatch = \"* /dav/**\"\nrewrite = \"/files/**\"\n\
         [[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1h\", scope = \"shared\" }\n",
    );
    let paths = ["/files/a", "/files/a/1", "/files/a/b/2", "/files/ab", "/files/c/3", "/files/d"];
    let lost = |line: &str, destination: &str, says: &str| {
        origin.says("/files/a", &[]);
        paths.iter().for_each(|path| drop(get(&pillion, path)));
        paths.iter().for_each(|path| drop(get(&pillion, path)));
        assert!(paths.iter().all(|path| is_hit(&pillion, path)), "{line}");
        ["/files/a", "/files/a/"].iter().for_each(|path| origin.says(path, &[says]));
        ask(&pillion, line, &[&format!("destination: {destination}"), "content-length: 0"]);
        origin.says("/files/a", &[]);
        paths.map(|path| !is_hit(&pillion, path))
    };
    let (none, source) = ([false; 6], [true, true, true, false, false, false]);
    let both = [true, true, true, false, true, false];
    for (line, destination, says, wanted) in [
        ("MOVE /files/a", "http://a.example/files/c", "status: 201", both),
        ("COPY /files/a", "https://a.example:8443/files/c/", "status: 204", both),
        // The path in the destination is stored on the other host.
        ("COPY /files/a", "https://elsewhere.example/files/c/", "status: 204", source),
        ("MOVE /files/a/", "/files/c", "status: 207", both),
        ("MOVE /dav/a", "http://a.example/dav/c?x", "status: 201", both),
        ("COPY /files/a", "/files/%63", "status: 201", both),
        ("DELETE /files/a", "-", "status: 204\r\ndav: 1", source),
        ("DELETE /files/a", "-", "status: 207", source),
        ("MOVE /files/a", "/files/c", "status: 403", none),
        ("DELETE /files/a", "-", "status: 401", none),
        (
            "DELETE /files/a",
            "-",
            "status: 302\r\nlocation: /login",
            [true, false, false, false, false, false],
        ),
        ("PUT /files/a", "/files/c", "status: 204", [true, false, false, false, false, false]),
    ] {
        assert_eq!(lost(line, destination, says), wanted, "{line} {destination} {says}");
    }
}

/// An app announces WebDAV once, or the request is a WebDAV request. A DELETE in an API deletes no collection.
#[test]
fn n4_12_a_delete_takes_a_tree_where_the_app_speaks_webdav() {
    let route = "[[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1h\", scope = \"shared\" }\n";
    let paths = ["/files/a", "/files/a/1", "/b"];
    for (before, says, depth, tree) in [
        (None, "status: 204", "x-none: 1", false),
        (None, "status: 200", "depth: infinity", false),
        (None, "status: 204", "depth: infinity", true),
        (Some(("OPTIONS /files/a", "dav: 1, 2")), "status: 204", "x-none: 1", true),
        (Some(("PROPFIND /files/a", "status: 207")), "status: 200", "x-none: 1", true),
        (Some(("OPTIONS /files/a", "dav: 1")), "status: 302\r\nlocation: /files", "depth: infinity", false),
    ] {
        let origin = Origin::new();
        let pillion = pillion(&origin, route);
        if let Some((line, says)) = before {
            origin.says("/files/a", &[says]);
            ask(&pillion, line, &[]);
            origin.says("/files/a", &[]);
        }
        (0..2).for_each(|_| paths.iter().for_each(|path| drop(get(&pillion, path))));
        assert!(paths.iter().all(|path| is_hit(&pillion, path)), "{before:?}");
        origin.says("/files/a", &[says]);
        ask(&pillion, "DELETE /files/a", &[depth]);
        origin.says("/files/a", &[]);
        let lost = paths.map(|path| !is_hit(&pillion, path));
        assert_eq!(lost, [true, tree, false], "{before:?} {says} {depth}");
    }
}

/// Regression: one `DELETE /` of a stranger emptied the whole cache of an app that responds alike to every method.
#[test]
fn n4_12_strangers_take_no_trees_away() {
    for says in [
        "200 OK",
        "204 No Content",
        "302 Found\r\nlocation: /home",
        "303 See Other\r\nlocation: /home",
        "401 Unauthorized",
        "502 Bad Gateway",
        "504 Gateway Timeout",
        "",
    ] {
        let app = Holding::new();
        app.says.lock().unwrap().replace_range(.., says);
        app.released.store(!says.is_empty(), Ordering::SeqCst);
        let _released = Raise(&app.released);
        let pillion = app.pillion(&format!("response_timeout = \"200ms\"\n{RULES}"));
        let paths = ["/a/b", "/c"];
        for (line, field) in [
            ("DELETE /", "x-none: 1"),
            ("DELETE /", "depth: infinity"),
            ("COPY /nowhere", "destination: /"),
            ("MOVE /nowhere", "destination: http://elsewhere.example/"),
            ("MOVE /", "destination: http://a.example/%2e/"),
        ] {
            paths.iter().for_each(|path| drop(get(&pillion, path)));
            ask(&pillion, line, &[field, "content-length: 0"]);
            let left = paths.map(|path| is_hit(&pillion, path));
            assert_eq!(left, [true; 2], "{line} {field} {says:?}");
        }
        // Stored responses below another path are invalidated only if the app confirms the operation.
        if says.starts_with("204") {
            continue;
        }
        for (line, field) in [
            ("DELETE /a", "depth: infinity"),
            ("COPY /nowhere", "destination: /a"),
            ("MOVE /a", "destination: /d"),
        ] {
            paths.iter().for_each(|path| drop(get(&pillion, path)));
            ask(&pillion, line, &[field, "content-length: 0"]);
            let left = paths.map(|path| is_hit(&pillion, path));
            assert_eq!(left, [true; 2], "{line} {field} {says:?}");
        }
    }
}

/// A stranger who sends a DELETE and leaves invalidates its path, but does not keep an upstream slot.
#[test]
fn n4_12_a_delete_that_no_rule_takes_is_given_up_with_its_client() {
    let app = Holding::new();
    let pillion = app.pillion(RULES);
    ["/a", "/a/b"].iter().for_each(|path| drop(get(&pillion, path)));
    let _released = Raise(&app.released);
    let client = begin(&pillion, "DELETE /a HTTP/1.1\r\nhost: a.example\r\ndepth: infinity\r\n\r\n");
    wait_for("the write", &app.whole, 1);
    leave(client);
    wait_for("the app is told", &app.broken, 1);
    assert!(!is_hit(&pillion, "/a") && is_hit(&pillion, "/a/b"));
}
