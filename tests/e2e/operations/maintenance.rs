//! Tests of maintenance mode.

use std::process::Command;
use std::sync::Arc;

use crate::harness::wire::ask;
use crate::harness::*;

const SERVER: &str =
    "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n";

/// Runs `pillion maintenance` and returns whether it succeeded, with what it said.
fn switch(pillion: &Pillion, state: &str) -> (bool, String) {
    let admin = pillion.admin.to_string();
    let output = Command::new(binary()).args(["maintenance", state, "--admin", &admin]).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

fn get(pillion: &Pillion, path: &str, fields: &str) -> Answer {
    ask(pillion.http, &format!("GET {path}"), fields)
}

#[test]
fn the_command_turns_requests_away_until_it_is_off() {
    let folder = Arc::new(Folder::new());
    folder.write("down.html", "<h1>Back soon</h1>");
    let app = Script::answering(|_| ok("here"));
    let config = format!(
        "{SERVER}[upstream]\nurl = \"http://{}\"\n\
         [[routes]]\nmatch = \"GET /moved\"\nredirect = {{ to = \"/new\" }}\n\
         [[routes]]\nmatch = \"GET /stored\"\ncache = {{ ttl = \"1h\", scope = \"shared\" }}\n\
         [maintenance]\ndocument = \"down.html\"\nretry_after = \"10m\"\nallow = [\"10.0.0.0/8\"]\nexcept = [\"GET /healthz\"]\n",
        app.address
    );
    let pillion = Pillion::in_folder(folder.clone(), &config);
    assert_eq!(get(&pillion, "/stored", "").text(), "here");
    assert_eq!(pillion.metric("pillion_maintenance"), 0.0);
    let (fine, said) = switch(&pillion, "on");
    assert!(fine && said.contains("maintenance on"), "{said}");
    let answer = get(&pillion, "/x", "accept: text/html\r\n");
    assert_eq!((answer.status, answer.text().as_str()), (503, "<h1>Back soon</h1>"));
    assert_eq!(answer.field("retry-after").unwrap(), "600");
    assert_eq!(answer.field("content-type").unwrap(), "text/html; charset=utf-8");
    assert_eq!(answer.field("cache-control").unwrap(), "no-store");
    let answer = get(&pillion, "/x", "accept: application/json\r\n");
    assert_eq!(answer.json()["type"], "urn:pillion:problem:maintenance");
    assert_eq!(get(&pillion, "/stored", "").status, 503, "stored responses are not served by default");
    assert_eq!(ask(pillion.http, "POST /x", "").status, 503);
    for (path, fields, status) in
        [("/moved", "", 308), ("/healthz", "", 200), ("/x", "x-forwarded-for: 10.1.2.3\r\n", 200)]
    {
        assert_eq!(get(&pillion, path, fields).status, status, "{path} {fields}");
    }
    assert_eq!(pillion.metric("pillion_maintenance"), 1.0);
    assert_eq!(pillion.admin_get("/health").json()["maintenance"], true);
    assert_eq!(pillion.admin_get("/ready").status, 200);
    eventually("the switch is logged", || pillion.log().contains("maintenance is on").then_some(()));
    let line = pillion.access("the refused POST", |line| line["method"] == "POST");
    assert!(line.to_string().contains("maintenance is on"), "{line}");

    folder.write("down.html", "<h1>Still working</h1>");
    pillion.reload(&config);
    let answer = get(&pillion, "/x", "");
    assert_eq!((answer.status, answer.text().as_str()), (503, "<h1>Still working</h1>"), "a reload keeps it");
    assert!(switch(&pillion, "off").0);
    assert_eq!(get(&pillion, "/x", "").status, 200);
    assert_eq!(pillion.admin_get("/health").json()["maintenance"], false);
    assert!(!switch(&pillion, "perhaps").0);
}

#[test]
fn the_file_starts_it_and_a_reload_takes_a_new_value() {
    let app = Script::answering(|_| ok("here"));
    let config = |enabled: bool| {
        format!(
            "{SERVER}[upstream]\nurl = \"http://{}\"\n[maintenance]\nenabled = {enabled}\nready = false\n",
            app.address
        )
    };
    let pillion = Pillion::with(&config(true));
    assert_eq!(get(&pillion, "/", "").status, 503);
    let ready = pillion.admin_get("/ready");
    assert_eq!((ready.status, ready.json()["status"].as_str()), (503, Some("maintenance")));
    assert!(switch(&pillion, "off").0, "the command goes before the file");
    pillion.reload(&config(true));
    assert_eq!(
        get(&pillion, "/", "").status,
        200,
        "a reload that leaves the key keeps what the command said"
    );
    pillion.reload(&config(false));
    pillion.reload(&config(true));
    assert_eq!(get(&pillion, "/", "").status, 503, "a new value holds");
}

#[test]
fn stored_responses_are_served_as_if_the_upstream_could_not_be_reached() {
    let app = Script::answering(|_| ok("here"));
    let pillion = Pillion::with(&format!(
        "{SERVER}[upstream]\nurl = \"http://{}\"\n\
         [[routes]]\nmatch = \"GET /fresh\"\ncache = {{ ttl = \"1h\", scope = \"shared\" }}\n\
         [[routes]]\nmatch = \"GET /stale\"\ncache = {{ ttl = \"0s\", scope = \"shared\", stale_if_error = \"1h\" }}\n\
         [[invalidate]]\non = \"POST /touch\"\npaths = [\"/stale\"]\nmode = \"soft\"\n\
         [maintenance]\nserve_stored = true\n",
        app.address
    ));
    for path in ["/fresh", "/stale", "/gone"] {
        assert_eq!(get(&pillion, path, "").status, 200, "{path}");
    }
    assert!(switch(&pillion, "on").0);
    for (path, status) in [("/fresh", 200), ("/gone", 503)] {
        assert_eq!(get(&pillion, path, "").status, status, "{path}");
    }
    let stale = get(&pillion, "/stale", "");
    assert_eq!((stale.status, stale.field("x-cache").as_deref()), (200, Some("STALE")), "{}", stale.head);
    assert_eq!(get(&pillion, "/gone", "").field("retry-after").unwrap(), "300");
    assert!(switch(&pillion, "off").0);
    assert_eq!(get(&pillion, "/gone", "").status, 200);
}

#[test]
fn the_endpoint_has_the_rules_of_the_token() {
    let app = Script::answering(|_| ok("here"));
    let pillion = Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nadmin_token = \"s3cret\"\n[upstream]\nurl = \"http://{}\"\n",
        app.address
    ));
    for (line, token, status) in [
        ("POST /maintenance?state=on", "", 401),
        ("POST /maintenance?state=on", "authorization: Bearer wrong\r\n", 401),
        ("GET /maintenance?state=on", "authorization: Bearer s3cret\r\n", 405),
        ("POST /maintenance", "authorization: Bearer s3cret\r\n", 400),
        ("POST /maintenance?state=perhaps", "authorization: Bearer s3cret\r\n", 400),
        ("POST /maintenance?mode=on", "authorization: Bearer s3cret\r\n", 400),
    ] {
        assert_eq!(ask(pillion.admin, line, token).status, status, "{line} {token}");
        assert_eq!(get(&pillion, "/", "").status, 200, "{line} switched nothing");
    }
    let on = ask(pillion.admin, "POST /maintenance?state=on", "authorization: Bearer s3cret\r\n");
    assert_eq!((on.status, on.json()["status"].as_str()), (200, Some("maintenance on")));
    assert_eq!(get(&pillion, "/", "").status, 503);
}
