//! Tests of sessions that begin and end: a stored response must not reach a later user with the same credentials.

use crate::harness::origin::*;
use crate::harness::*;

const USERS: &str = r#"
[[routes]]
match = "GET /me/**"
cache = { ttl = "1h", scope = "user", tags = ["me"] }
[[routes]]
match = "GET /all"
cache = { ttl = "1h", scope = "shared", tags = ["me"] }
"#;

/// Returns whether the stored response of each request is still there, in order.
fn hits<const N: usize>(pillion: &Pillion, of: [(&str, &str); N]) -> [bool; N] {
    of.map(|(path, fields)| status_of(&ask(pillion, &format!("GET {path}"), &[fields])).contains("; hit"))
}

const ALICE: &str = "cookie: sessionid=alice";
const BOB: &str = "cookie: sessionid=bob";
const COPIES: [(&str, &str); 4] = [("/me/a", ALICE), ("/me/b", ALICE), ("/me/a", BOB), ("/all", "x-none: 1")];

#[test]
fn n1_9_a_response_that_ends_a_session_takes_its_copies_away() {
    let origin = Origin::new();
    let pillion = pillion(&origin, USERS);
    for (line, asks, says, wanted) in [
        ("POST /logout", ALICE, "sessionid=; Path=/", true),
        ("GET /logout", ALICE, "sessionid=x; Max-Age=0", true),
        ("HEAD /logout", ALICE, "sessionid=x; Max-Age=-1", true),
        ("DELETE /logout", ALICE, "sessionid=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT", true),
        // The same for another listed name, and under a route of its own.
        ("GET /me/logout", ALICE, "connect.sid=; Path=/", true),
        // A renewal, an unlisted cookie, and a cookie of another client.
        ("GET /page", ALICE, "sessionid=alice; Max-Age=3600", false),
        ("POST /page", ALICE, "sessionid=alice; Max-Age=3600", false),
        ("POST /page", ALICE, "theme=; Max-Age=0", false),
        ("POST /page", "cookie: sessionid=carol", "sessionid=; Max-Age=0", false),
        ("POST /page", "x-none: 1", "sessionid=; Max-Age=0", false),
    ] {
        hits(&pillion, COPIES);
        assert_eq!(hits(&pillion, COPIES), [true; 4], "{line}");
        let path = line.split(' ').nth(1).unwrap();
        for status in ["200", "302", "401", "500"] {
            hits(&pillion, COPIES);
            origin.says(path, &[&format!("status: {status}"), "location: /", &format!("set-cookie: {says}")]);
            assert_eq!(ask(&pillion, line, &[asks, "content-length: 0"]).status.to_string(), status);
            assert_eq!(hits(&pillion, COPIES), [!wanted, !wanted, true, true], "{line} {status} {says}");
        }
    }
}

#[test]
fn n1_9_a_write_that_begins_a_session_takes_the_copies_of_its_credentials_away() {
    let origin = Origin::new();
    let pillion = pillion(&origin, USERS);
    let token = "authorization: Bearer a";
    let copies = [("/me/a", token), ("/me/a", BOB)];
    origin.says("/login", &["set-cookie: sessionid=new"]);
    for (line, asks, wanted) in [
        ("POST /login", token, true),
        ("GET /login", token, false),
        ("POST /login", "cookie: sessionid=new\r\nauthorization: Bearer a", false),
    ] {
        hits(&pillion, copies);
        assert_eq!(ask(&pillion, line, &[asks, "content-length: 0"]).status, 200);
        assert_eq!(hits(&pillion, copies), [!wanted, true], "{line} {asks}");
    }
}

#[test]
fn n1_9_a_read_that_a_logout_overtakes_is_not_stored() {
    let script = Script::answering(move |request| {
        let logout = request.line.contains("logout");
        if !logout && request.field("x-slow").is_some() {
            std::thread::sleep(std::time::Duration::from_millis(400));
        }
        answer(request, if logout { "set-cookie: sessionid=; Max-Age=0" } else { "" }, "content")
    });
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"http://{}\"\n{USERS}", script.address));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| ask(&pillion, "GET /me/a", &[ALICE, "x-slow: 1"]));
        eventually("the read is on its way", || {
            (script.connections.load(std::sync::atomic::Ordering::SeqCst) >= 1).then_some(())
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(ask(&pillion, "POST /logout", &[ALICE, "content-length: 0"]).status, 200);
        assert_eq!(slow.join().unwrap().status, 200);
    });
    assert_eq!(hits(&pillion, [("/me/a", ALICE)]), [false]);
}

#[test]
fn n1_9_rules_of_the_principal_take_away_the_writers_copies_alone() {
    let origin = Origin::new();
    origin.says("/me/c", &["surrogate-key: own"]);
    let rules = r#"
[[invalidate]]
on = "GET,POST /switch"
principal = true
[[invalidate]]
on = "POST /tagged"
principal = true
tags = ["me"]
[[invalidate]]
on = "POST /pathed/{id}"
principal = true
paths = ["/me/{id}"]
[[invalidate]]
on = "POST /below"
principal = true
paths = ["/me/**"]
[[invalidate]]
on = "POST /own"
principal = true
tags = ["own"]
"#;
    let pillion = pillion(&origin, &format!("{USERS}{rules}"));
    let copies = [
        ("/me/a", ALICE),
        ("/me/b", ALICE),
        ("/me/c", ALICE),
        ("/me/a", BOB),
        ("/me/c", BOB),
        ("/all", "x-none: 1"),
    ];
    let none = [true; 6];
    let all = [false, false, false, true, true, true];
    for (line, says, wanted) in [
        ("GET /switch", "status: 200", all),
        ("HEAD /switch", "status: 200", all),
        ("POST /switch", "status: 303", all),
        ("GET /switch", "status: 403", none),
        ("GET /switch", "status: 302\r\nlocation: /login", none),
        ("POST /tagged", "status: 200", all),
        ("GET /tagged", "status: 200", none),
        ("POST /pathed/b", "status: 200", [true, false, true, true, true, true]),
        ("POST /below", "status: 200", all),
        ("POST /own", "status: 200", [true, true, false, true, true, true]),
    ] {
        hits(&pillion, copies);
        hits(&pillion, copies);
        assert_eq!(hits(&pillion, copies), none, "{line}");
        origin.says(line.split(' ').nth(1).unwrap(), &[says]);
        ask(&pillion, line, &[ALICE, "content-length: 0"]);
        assert_eq!(hits(&pillion, copies), wanted, "{line} {says}");
        hits(&pillion, copies);
        ask(&pillion, line, &["content-length: 0"]);
        assert_eq!(hits(&pillion, copies), none, "{line} of nobody");
    }
}
