//! Tests of reloads on request.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::tools::{DENY, applied, ask, pillion, refused, rename_over, server, stderr, upstream};
use crate::harness::holding::{Raise, holding};
use crate::harness::{
    self, Folder, PATIENCE, Pillion, Script, complete, connect, eventually, free_address, ok, printed,
    read_answer,
};

#[test]
fn sighup_applies_the_file_as_it_is_now() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    assert_eq!(pillion.get("/denied").status, 200);
    pillion.reload(&format!("{}{DENY}", upstream(&app)));
    assert_eq!(pillion.get("/denied").status, 404);
    assert_eq!((applied(&pillion), pillion.metric("pillion_config_generation")), (1.0, 2.0));
    pillion.reload(&upstream(&app));
    assert_eq!(pillion.get("/denied").status, 200);
}

#[test]
fn a_refused_file_changes_nothing_is_logged_and_counted() {
    let app = Script::echo();
    let pillion = Pillion::with(&format!("{}{DENY}", upstream(&app)));
    let mut kept = connect(pillion.http);
    assert_eq!(ask(&mut kept, "/denied").status, 404);
    for (bad, said) in [
        ("[upstream]\nurl = \"http://127.0.0.1:1\"\nresponse_timout = \"1s\"\n", "response_timeout"),
        ("[upstream]\nurl = true\n", "url"),
        ("[upstream\n", "pillion.toml"),
        ("", "upstream"),
    ] {
        pillion.reload(bad);
        eventually(&format!("{bad:?}: the log says {said:?}"), || pillion.log().contains(said).then_some(()));
        assert_eq!(ask(&mut kept, "/denied").status, 404);
        assert_eq!(ask(&mut kept, "/").status, 200);
    }
    std::fs::remove_file(pillion.folder.path("pillion.toml")).unwrap();
    pillion.process.signal("HUP");
    eventually("the missing file is refused", || (refused(&pillion) >= 5.0).then_some(()));
    assert_eq!(ask(&mut kept, "/denied").status, 404);
    assert_eq!((applied(&pillion), pillion.metric("pillion_config_generation")), (0.0, 1.0));
    let warnings = pillion.admin_get("/performance/system").json()["warnings"].to_string();
    assert!(warnings.contains("configuration rejected"), "{warnings}");
}

#[test]
fn what_needs_a_restart_is_refused_by_name() {
    let app = Script::echo();
    let base = format!("{}{}", server("workers = 1"), upstream(&app));
    let pillion = Pillion::with(&base);
    for (config, name) in [
        (base.replace("workers = 1", "workers = 2"), "server.workers"),
        (base.replace("listen = [\"127.0.0.1:0\"]", "listen = [\"127.0.0.2:0\"]"), "server.listen"),
        (base.replace("admin = \"127.0.0.1:0\"", "admin = \"127.0.0.2:0\""), "server.admin"),
        (base.replace("workers = 1", "workers = 1\nprobes = \"127.0.0.1:0\""), "server.probes"),
        (format!("[log]\nformat = \"pretty\"\n{base}"), "log.format"),
    ] {
        pillion.reload(&config);
        eventually(&format!("the log says that {name} needs a restart"), || {
            pillion.log().lines().any(|line| line.contains(name) && line.contains("restart")).then_some(())
        });
    }
    assert_eq!(refused(&pillion), 5.0);
    assert_eq!(pillion.get("/").status, 200);
}

#[test]
fn reloads_under_load_drop_no_request_and_no_connection() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    let stop = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // All requests use one connection, which only the client may end.
                let mut tcp = connect(pillion.http);
                while !stop.load(Ordering::SeqCst) {
                    let answer = ask(&mut tcp, "/");
                    assert_eq!((answer.status, answer.field("connection")), (200, None));
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let _stop = Raise(&stop);
        for at in 0..20 {
            let deny = if at % 2 == 0 { DENY } else { "" };
            let more = format!("max_connections = {}\n", 50 + at);
            pillion.reload(&format!("{}{more}{deny}", upstream(&app)));
            let goal = served.load(Ordering::SeqCst) + 20;
            eventually("requests go on", || (served.load(Ordering::SeqCst) >= goal).then_some(()));
        }
    });
    assert_eq!(applied(&pillion), 20.0);
}

#[test]
fn a_request_in_flight_survives_a_reload_that_takes_its_upstream_away() {
    let (app, seen, release) = holding();
    let other = Script::answering(|_| ok("other"));
    let pillion = Pillion::with(&upstream(&app));
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    seen.recv_timeout(PATIENCE).unwrap();
    pillion.reload(&upstream(&other));
    assert_eq!(pillion.get("/").text(), "other");
    release.send(()).unwrap();
    assert_eq!(read_answer(&mut tcp).text(), "held");
    assert_eq!(ask(&mut tcp, "/").text(), "other", "the next on the same connection goes by the new file");
}

#[test]
fn certificates_are_read_again_at_a_reload() {
    let app = Script::echo();
    let folder = Arc::new(Folder::new());
    let issue = |name: &str| {
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        folder.write("tls.key", issued.signing_key.serialize_pem());
        folder.write("tls.crt", issued.cert.pem());
        folder.write(name, issued.cert.pem())
    };
    let (old, config) = (
        issue("old.pem"),
        format!(
            "{}[server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{{ cert = \"tls.crt\", key = \"tls.key\" }}]\n{}",
            server(""),
            upstream(&app)
        ),
    );
    let pillion = Pillion::in_folder(folder.clone(), &config);
    let port = pillion.https.unwrap().port();
    let trusts = |ca: &std::path::Path| {
        let url = format!("https://localhost:{port}/");
        let resolve = format!("localhost:{port}:127.0.0.1");
        let ca = ca.to_str().unwrap();
        let curl = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "--resolve", &resolve, "--cacert", ca, &url])
            .status();
        curl.unwrap().success()
    };
    assert!(trusts(&old));
    let new = issue("new.pem");
    pillion.reload(&config);
    assert!(trusts(&new) && !trusts(&old), "the new certificate is served");
    folder.write("tls.crt", "no certificate");
    pillion.reload(&config);
    assert_eq!(refused(&pillion), 1.0);
    assert!(trusts(&new), "a certificate that cannot be read changes nothing");
}

#[test]
fn the_reload_and_drain_commands_reach_the_process_by_address_and_by_file() {
    let app = Script::echo();
    let admin = free_address();
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"{admin}\"\nadmin_token = \"s3cret\"\n{}",
        upstream(&app)
    );
    let running = Pillion::with(&config);
    let file = running.folder.path("pillion.toml");
    let (address, file) = (admin.to_string(), file.to_str().unwrap().to_owned());

    let output = pillion(&["reload", "--admin", &address]);
    assert_eq!(output.status.code(), Some(1), "no token");
    assert!(stderr(&output).contains("token"), "{}", stderr(&output));
    assert_eq!(pillion(&["reload", "--admin", &address, "--token", "wrong!"]).status.code(), Some(1));
    assert_eq!(applied(&running), 0.0);

    running.folder.write("pillion.toml", complete(&format!("{config}{DENY}")));
    let output = pillion(&["reload", "--admin", &address, "--token", "s3cret"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(printed(&output.stdout).contains("routes"), "what changed is shown: {output:?}");
    assert_eq!(running.get("/denied").status, 404);

    running.folder.write("pillion.toml", complete(&config));
    assert_eq!(
        pillion(&["reload", "--config", &file]).status.code(),
        Some(0),
        "address and token from the file"
    );
    assert_eq!(running.get("/denied").status, 200);

    running.folder.write("pillion.toml", complete(&config.replace("url", "ulr")));
    let output = pillion(&["reload", "--admin", &address, "--token", "s3cret"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("did you mean") || stderr(&output).contains("url"),
        "{}",
        stderr(&output)
    );
    running.folder.write("pillion.toml", complete(&config));

    assert_eq!(running.admin_get("/ready").status, 200);
    assert_eq!(pillion(&["drain", "--config", &file]).status.code(), Some(0));
    assert_eq!(running.admin_get("/ready").status, 503);
    let mut tcp = connect(running.http);
    let answer = ask(&mut tcp, "/");
    assert_eq!(
        (answer.status, answer.field("connection").as_deref()),
        (200, Some("close")),
        "served, and handed back"
    );
    assert_eq!(
        pillion(&["drain", "--admin", &address, "--token", "s3cret"]).status.code(),
        Some(0),
        "again is no error"
    );
    assert_eq!(running.stop().code(), Some(0));
    let output = pillion(&["drain", "--admin", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&address), "who cannot be reached is named: {}", stderr(&output));
}

#[test]
fn a_token_in_the_file_may_be_changed_by_the_reload_command() {
    // The operator edits the file and runs `pillion reload --config`, while the process still has the old token.
    let app = Script::echo();
    let admin = free_address();
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"{admin}\"\nadmin_token = \"first\"\n{}",
        upstream(&app)
    );
    let running = Pillion::with(&config);
    running.folder.write("pillion.toml", complete(&config.replace("first", "second")));
    let file = running.folder.path("pillion.toml");
    let with_old = pillion(&["reload", "--config", file.to_str().unwrap(), "--token", "first"]);
    assert_eq!(with_old.status.code(), Some(0), "{}", stderr(&with_old));
    let with_new = pillion(&["reload", "--config", file.to_str().unwrap()]);
    assert_eq!(with_new.status.code(), Some(0), "{}", stderr(&with_new));
}

#[test]
fn a_storm_of_signals_ends_with_the_last_file() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    for at in 0..30 {
        let config = format!("{}[[routes]]\nmatch = \"* /storm\"\ndeny = {}\n", upstream(&app), 400 + at);
        rename_over(&pillion.folder, &config);
        pillion.process.signal("HUP");
    }
    eventually("the last file is in force", || (pillion.get("/storm").status == 429).then_some(()));
    assert_eq!(refused(&pillion), 0.0);
}

#[test]
fn http2_under_load_survives_reloads() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    let url = pillion.url("/");
    std::thread::scope(|scope| {
        let load =
            scope.spawn(|| harness::run("h2load", &["-n", "4000", "-c", "4", "-m", "10", "-t", "1", &url]));
        let mut at = 0;
        while !load.is_finished() {
            at += 1;
            pillion.reload(&format!("{}{}", upstream(&app), if at % 2 == 0 { "" } else { DENY }));
        }
        let report = load.join().unwrap();
        assert!(report.contains("4000 succeeded, 0 failed, 0 errored, 0 timeout"), "{report}");
        assert!(report.contains("4000 2xx"), "{report}");
    });
    assert!(applied(&pillion) >= 1.0);
}
