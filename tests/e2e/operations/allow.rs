//! Tests of routes that serve the clients of some networks alone.

use crate::harness::wire::ask;
use crate::harness::*;

fn pillion(app: &Script, trusted: &str) -> Pillion {
    Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ntrusted_proxies = [{trusted}]\n\
         [upstream]\nurl = \"http://{}\"\n\
         [[routes]]\nmatch = \"* /old-staff/**\"\nallow = [\"10.0.0.0/8\"]\nrewrite = \"/anything/**\"\n\
         [[routes]]\nmatch = \"* /staff/**\"\nallow = [\"10.0.0.0/8\", \"2001:db8::/32\"]\n\
         cache = {{ ttl = \"1h\", scope = \"shared\" }}\n\
         [[routes]]\nmatch = \"GET /moved\"\nallow = [\"10.0.0.0/8\"]\nredirect = {{ to = \"/staff\" }}\n",
        app.address
    ))
}

fn status(pillion: &Pillion, path: &str, client: &str) -> u16 {
    ask(pillion.http, &format!("GET {path}"), &format!("x-forwarded-for: {client}\r\n")).status
}

#[test]
fn clients_of_other_networks_get_403_by_either_reading_and_for_stored_responses() {
    let app = Script::answering(|_| ok("here"));
    let pillion = pillion(&app, "\"127.0.0.0/8\"");
    for (path, client, wanted) in [
        ("/staff/x", "10.1.2.3", 200),
        ("/staff/x", "2001:db8::7", 200),
        ("/staff/x", "192.0.2.1", 403),
        ("/staff/x", "2001:db9::7", 403),
        ("/staff/x", "10.1.2.3, 192.0.2.1", 403),
        ("/STAFF/x", "192.0.2.1", 403),
        ("/STAFF/x", "10.1.2.3", 200),
        ("/staff;a=b/x", "192.0.2.1", 403),
        ("/%2573taff/x", "192.0.2.1", 403),
        ("/old-staff/x", "10.1.2.3", 200),
        ("/old-staff/x", "192.0.2.1", 403),
        ("/Old-Staff/x", "192.0.2.1", 403),
        ("/moved", "10.1.2.3", 308),
        ("/moved", "192.0.2.1", 403),
        ("/other", "192.0.2.1", 200),
    ] {
        assert_eq!(status(&pillion, path, client), wanted, "{path} for {client}");
    }
    let answer = ask(pillion.http, "GET /staff/x", "x-forwarded-for: 192.0.2.1\r\n");
    assert_eq!(answer.json()["type"], "urn:pillion:problem:not-allowed");
}

#[test]
fn what_a_stranger_says_of_its_address_is_not_believed() {
    let app = Script::answering(|_| ok("here"));
    let pillion = pillion(&app, "");
    assert_eq!(status(&pillion, "/staff/x", "10.1.2.3"), 403);
    assert_eq!(status(&pillion, "/other", "10.1.2.3"), 200);
}
