//! Tests of the conditions under which `/ready` is 200.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use crate::harness::*;

fn ready(pillion: &Pillion) -> u16 {
    pillion.admin_get("/ready").status
}

#[track_caller]
fn becomes(pillion: &Pillion, status: u16) {
    eventually(&format!("/ready is {status}"), || (ready(pillion) == status).then_some(()));
}

fn why(pillion: &Pillion) -> String {
    pillion.admin_get("/ready").json()["detail"].as_str().unwrap_or_default().to_owned()
}

fn app_at(address: SocketAddr) -> Script {
    Script::on(TcpListener::bind(address).unwrap(), |mut tcp| {
        while Request::read(&mut tcp).is_some() {
            let _ = std::io::Write::write_all(&mut tcp, &ok("here"));
        }
    })
}

/// Regression: a sidecar whose app was not up yet was ready, so its first requests were 502.
#[test]
fn n5_1_ready_is_503_until_the_app_accepts_a_connection() {
    let address = absent_app();
    let pillion = Pillion::in_front_of(address);
    assert_eq!(ready(&pillion), 503);
    assert!(why(&pillion).contains("upstream has not answered yet"), "{}", why(&pillion));
    assert_eq!(pillion.admin_get("/live").status, 200);
    let health = pillion.admin_get("/health");
    assert_eq!((health.status, health.json()["status"].as_str()), (503, Some("unhealthy")));
    // Accepting connections without responding is enough if no health path is configured.
    let _app = TcpListener::bind(address).unwrap();
    let bound = now();
    becomes(&pillion, 200);
    let took = now() - bound;
    assert!(took < std::time::Duration::from_millis(1500), "tried every 250 ms: {took:?}");
    assert_eq!(pillion.admin_get("/health").status, 200);
}

#[test]
fn n5_1_a_health_path_has_to_answer_well_once() {
    let sick = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let told = sick.clone();
    let app = Script::answering(move |request| {
        let sick = told.load(std::sync::atomic::Ordering::SeqCst);
        match request.line.contains("/healthz") && sick {
            true => b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n".to_vec(),
            false => ok("served"),
        }
    });
    let pillion = Config::new(app.address).table("[upstream.health]", r#"path = "/healthz""#).start();
    assert_eq!(pillion.get("/").status, 200);
    assert_eq!(ready(&pillion), 503, "a request that is answered is not the health path");
    sick.store(false, std::sync::atomic::Ordering::SeqCst);
    // Long before the interval of five seconds has passed.
    let healed = now();
    becomes(&pillion, 200);
    assert!(now() - healed < std::time::Duration::from_secs(3));
}

#[test]
fn n5_1_one_address_suffices_before_and_after() {
    let (absent, other) = (absent_app(), absent_app());
    let _app = app_at(other);
    let config = |requires: &str| {
        format!(
            "[upstream]\nurl = \"http://{absent}\"\nreplicas = [\"http://{other}\"]\nretries = 0\n\
             [upstream.health]\ninterval = \"100ms\"\n[health]\nready_requires = [{requires}]\n"
        )
    };
    let pillion = Pillion::with(&config("\"upstream\""));
    becomes(&pillion, 200);
    (0..10).for_each(|_| drop(pillion.get("/")));
    assert_eq!(ready(&pillion), 200, "one of two fails");
    let primary = Pillion::with(&config("\"upstream:primary\""));
    assert_eq!(ready(&primary), 503);
    assert!(why(&primary).contains("the url of upstream has not answered yet"), "{}", why(&primary));
    let _primary = app_at(absent);
    becomes(&primary, 200);
}

#[test]
fn n5_1_an_app_that_answered_and_fails_now_makes_it_unready_again() {
    let address = absent_app();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let listener = TcpListener::bind(address).unwrap();
    let first = std::thread::spawn(move || {
        // The connection is closed after it was seen.
        let _ = listener.accept();
        let _ = stopped.recv();
    });
    let pillion = Pillion::in_front_of(address);
    becomes(&pillion, 200);
    drop(stop);
    first.join().unwrap();
    (0..4).for_each(|_| assert_eq!(pillion.get("/").status, 502));
    assert_eq!(ready(&pillion), 503);
    assert!(why(&pillion).contains("no address of upstream answers"), "{}", why(&pillion));
    let _app = app_at(address);
    becomes(&pillion, 200);
}

#[test]
fn n5_1_a_further_upstream_counts_where_it_is_named() {
    let app = Script::echo();
    let media = absent_app();
    let config = |requires: &str| {
        format!(
            "[upstream]\nurl = \"http://{}\"\n[upstreams.media]\nurl = \"http://{media}\"\n\
             [health]\nready_requires = [{requires}]\n[[routes]]\nmatch = \"* /media/**\"\nupstream = \"media\"\n",
            app.address
        )
    };
    let without = Pillion::with(&config("\"upstream\""));
    becomes(&without, 200);
    (0..4).for_each(|_| assert_eq!(without.get("/media/1").status, 502));
    assert_eq!(ready(&without), 200, "media is not required");
    let health = without.admin_get("/health");
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("degraded")));
    let with = Pillion::with(&config("\"upstream\", \"upstream:media\""));
    eventually("the app answered", || why(&with).contains("media has not answered yet").then_some(()));
    assert_eq!(ready(&with), 503);
    let _media = app_at(media);
    becomes(&with, 200);
}

#[test]
fn n5_1_a_reload_keeps_what_answered_and_waits_for_what_is_new() {
    let app = Script::echo();
    let config = |url: &str, more: &str| format!("[upstream]\nurl = \"{url}\"\n{more}");
    let url = format!("http://{}", app.address);
    let pillion = Pillion::with(&config(&url, ""));
    becomes(&pillion, 200);
    pillion.reload(&config(&url, "max_connections = 7\n"));
    assert_eq!(ready(&pillion), 200, "the same app in the same place");
    let other = absent_app();
    pillion.reload(&config(&format!("http://{other}"), ""));
    assert_eq!(ready(&pillion), 503, "another one");
    let _app = app_at(other);
    becomes(&pillion, 200);
}

#[test]
fn n5_1_names_and_sockets_are_tried_too() {
    let app = Script::echo();
    let named = format!("[upstream]\nurl = \"http://localhost:{}\"\n", app.address.port());
    becomes(&Pillion::with(&named), 200);
    let folder = Folder::new();
    let socket = folder.path("app.sock");
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"unix:{}\"\n", socket.display()));
    assert_eq!(ready(&pillion), 503);
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    becomes(&pillion, 200);
}

#[test]
fn n5_1_mistakes_in_ready_requires_are_told() {
    let folder = Folder::new();
    let check = |upstreams: &str, requires: &str| {
        let text = format!(
            "[upstream]\nurl = \"http://127.0.0.1:1\"\n{upstreams}[health]\nready_requires = [\"{requires}\"]\n"
        );
        let path = folder.write("pillion.toml", text);
        let output = std::process::Command::new(binary()).arg("check").arg(path).output().unwrap();
        let text = printed(&output.stdout);
        (output.status.success(), text + &printed(&output.stderr))
    };
    let media = "[upstreams.media]\nurl = \"http://127.0.0.1:2\"\n";
    for requires in ["upstream", "upstream:primary", "upstream:media", "memory", "workers"] {
        let (fine, said) = check(media, requires);
        assert!(fine, "{requires}: {said}");
    }
    for (upstreams, requires, told) in [
        (media, "upstream:medai", "did you mean \"upstream:media\"?"),
        ("", "upstream:media", "there is no check \"upstream:media\""),
        (media, "upstraem", "did you mean \"upstream\"?"),
        (
            "[upstreams.primary]\nurl = \"http://127.0.0.1:2\"\n",
            "upstream:primary",
            "rename [upstreams.primary]",
        ),
    ] {
        let (fine, said) = check(upstreams, requires);
        assert!(!fine && said.contains(told), "{requires}: {said}");
        assert!(said.contains("pillion.toml:"), "{said}");
    }
}

/// A native sidecar must have started before its app starts, so a startup probe of `/ready` would be a deadlock.
#[test]
fn n5_1_startup_probes_of_the_manifests_ask_live() {
    fn yaml(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                yaml(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                into.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    yaml(&root.join("deploy"), &mut files);
    let mut probes = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (at, kind) in [("startupProbe:", true), ("livenessProbe:", true), ("readinessProbe:", false)]
            .into_iter()
            .flat_map(|(name, live)| text.match_indices(name).map(move |(at, _)| (at, live)))
        {
            let asked: String = text[at..].lines().take(2).collect();
            let fine = if kind { asked.contains("live") } else { asked.contains("ready") };
            assert!(fine, "{}: {asked}", file.display());
            probes += 1;
        }
    }
    assert!(probes >= 8, "{probes}");
    let image = std::fs::read_to_string(root.join("Dockerfile")).unwrap();
    assert!(image.contains("--live"), "{image}");
}
