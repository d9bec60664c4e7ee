//! Tests of upstream addresses that appear, disappear and fail, and of the addresses used instead.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::tools::{ONE_WORKER, healthy, named, request, sample, send};
use crate::harness::holding::{Raise, holding};
use crate::harness::{
    Config, Nginx, Pillion, Request, Script, absent_app, connect, eventually, now, ok, read_answer,
};

#[test]
fn killing_one_of_three_replicas_under_load_costs_no_client_an_error() {
    let serve = |name: &str| {
        Nginx::serving(&format!("server {{ listen LISTEN; location / {{ return 200 \"{name}\"; }} }}"))
    };
    let (first, mut second, third) = (serve("first"), serve("second"), serve("third"));
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\", \"http://{}\"]\n\
         [upstream.health]\ninterval = \"200ms\"\n",
        first.address, second.address, third.address
    ));
    let stop = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut tcp = connect(pillion.http);
                while !stop.load(Ordering::SeqCst) {
                    tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
                    let answer = read_answer(&mut tcp);
                    served.fetch_add(1, Ordering::SeqCst);
                    if answer.status != 200 {
                        failures.lock().unwrap().push((answer.status, answer.text()));
                    }
                }
            });
        }
        let _stop = Raise(&stop);
        let more = |count: usize| {
            let goal = served.load(Ordering::SeqCst) + count;
            eventually("more are served", || (served.load(Ordering::SeqCst) >= goal).then_some(()));
        };
        more(500);
        second.process.signal("KILL");
        second.process.wait();
        eventually("it is ejected", || (!healthy(&pillion, second.address)).then_some(()));
        more(500);
        second.restart();
        eventually("it is back", || healthy(&pillion, second.address).then_some(()));
        more(500);
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} of {} failed: {:?}",
        failures.len(),
        served.load(Ordering::SeqCst),
        failures.first()
    );
    assert!(
        pillion.log().contains("ejected") && pillion.log().contains("address restored: it responds again")
    );
    let mut names: Vec<String> = (0..30).map(|_| pillion.get("/").text()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names, ["first", "second", "third"], "it is used again");
}

#[test]
fn the_last_address_is_never_ejected_and_is_used_as_soon_as_it_is_back() {
    let (one, other) = (absent_app(), absent_app());
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{one}\"\nreplicas = [\"http://{other}\"]\n[upstream.health]\ninterval = \"10s\"\n"
    ));
    for _ in 0..20 {
        assert_eq!(pillion.get("/").status, 502);
    }
    assert!(!healthy(&pillion, one) && !healthy(&pillion, other), "neither answers");
    let told = eventually("which one is the last is told", || {
        pillion.log().lines().find(|line| line.contains("is the last")).map(str::to_owned)
    });
    let last = if told.contains(&one.to_string()) { one } else { other };
    let _app = Script::on(TcpListener::bind(last).unwrap(), |mut tcp| {
        while Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(&ok("back"));
        }
    });
    assert_eq!(pillion.get("/").status, 200, "without waiting for a probe");
}

#[test]
fn an_app_that_is_back_is_ready_although_nobody_asks_for_it() {
    // An address that is not ready gets no requests, so only its health path can tell that it has recovered.
    let address = absent_app();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{address}\"\n[upstream.health]\npath = \"/healthz\"\ninterval = \"50ms\"\n\
         unhealthy_after = 3\nhealthy_after = 2\n"
    ));
    (0..5).for_each(|_| assert_eq!(pillion.get("/").status, 502));
    assert_eq!(pillion.admin_get("/ready").status, 503);
    assert!(!healthy(&pillion, address), "the last one, too, is told as it is");
    let _app = Script::on(TcpListener::bind(address).unwrap(), |mut tcp| {
        while Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(&ok("back"));
        }
    });
    eventually("it is ready", || (pillion.admin_get("/ready").status == 200).then_some(()));
    assert!(healthy(&pillion, address));
}

#[test]
fn an_app_that_starts_late_is_found() {
    let address = absent_app();
    let pillion = Pillion::in_front_of(address);
    assert_eq!(pillion.get("/").status, 502);
    let _app = Script::on(TcpListener::bind(address).unwrap(), |mut tcp| {
        while Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(&ok("late"));
        }
    });
    assert_eq!(pillion.get("/").text(), "late");
    assert_eq!(pillion.admin_get("/ready").status, 200);
}

#[test]
fn an_app_that_says_it_is_sick_gets_no_requests_until_it_is_well() {
    let serve = |name: &str| {
        Nginx::serving(&format!(
            "server {{ listen LISTEN; location / {{ return 200 \"{name}\"; }}\n\
             location = /healthz {{ if (-f FOLDER/sick) {{ return 500; }} return 200 \"well\"; }} }}"
        ))
    };
    let (well, sick) = (serve("well"), serve("sick"));
    sick.folder.write("sick", "");
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\"]\n\
         [upstream.health]\npath = \"/healthz\"\ninterval = \"50ms\"\nunhealthy_after = 2\nhealthy_after = 2\n",
        sick.address, well.address
    ));
    eventually("it is out", || (!healthy(&pillion, sick.address)).then_some(()));
    for _ in 0..20 {
        assert_eq!(pillion.get("/").text(), "well");
    }
    std::fs::remove_file(sick.folder.path("sick")).unwrap();
    eventually("it is in", || healthy(&pillion, sick.address).then_some(()));
    eventually("it is used", || (pillion.get("/").text() == "sick").then_some(()));
}

#[test]
fn requests_that_succeed_do_not_outvote_a_health_path_that_fails() {
    // The app responds to everything except its health path, and its own statement counts.
    let app = || {
        Script::answering(|request| match request.line.contains("/healthz") {
            true => b"HTTP/1.1 500 Sick\r\ncontent-length: 0\r\n\r\n".to_vec(),
            false => ok("sick"),
        })
    };
    let (sick, well) = (app(), named("well"));
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\"]\n\
         [upstream.health]\npath = \"/healthz\"\ninterval = \"100ms\"\nunhealthy_after = 3\n",
        sick.address, well.address
    ));
    eventually("it is out under traffic", || {
        (0..20).for_each(|_| assert_eq!(pillion.get("/").status, 200));
        (!healthy(&pillion, sick.address)).then_some(())
    });
}

#[test]
fn writes_go_to_the_primary_and_reads_are_spread() {
    let (primary, one, two) = (named("primary"), named("one"), named("two"));
    let upstream = format!(
        "[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\", \"http://{}\"]\n",
        primary.address, one.address, two.address
    );
    let pillion = Pillion::with(&format!("{ONE_WORKER}{upstream}"));
    for method in ["POST", "PUT", "PATCH", "DELETE", "PURGE"] {
        for _ in 0..6 {
            assert_eq!(send(&pillion, method, "/").text(), "primary", "{method}");
        }
    }
    for method in ["GET", "OPTIONS", "QUERY"] {
        let names: Vec<String> = (0..30).map(|_| send(&pillion, method, "/").text()).collect();
        for name in ["primary", "one", "two"] {
            let share = names.iter().filter(|answered| *answered == name).count();
            assert!(share >= 5, "{method}: {name} got {share} of 30");
        }
    }
    let pillion = Pillion::with(&format!("{ONE_WORKER}{upstream}writes_to = \"any\"\n"));
    let mut names: Vec<String> = (0..30).map(|_| send(&pillion, "POST", "/").text()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names, ["one", "primary", "two"], "writes_to = \"any\"");
}

#[test]
fn reads_go_to_the_least_busy() {
    let (slow, seen, release) = holding();
    let quick = named("quick");
    let config =
        format!("[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\"]\n", slow.address, quick.address);
    let pillion = Pillion::with(&config);
    // Tries until one request hangs in the slow address ...
    let mut hanging = loop {
        let mut tcp = connect(pillion.http);
        tcp.write_all(request("GET", "/").as_bytes()).unwrap();
        if seen.recv_timeout(Duration::from_millis(200)).is_ok() {
            break tcp;
        }
        assert_eq!(read_answer(&mut tcp).text(), "quick");
    };
    // ... and then all go to the other one.
    for _ in 0..20 {
        assert_eq!(pillion.get("/other").text(), "quick");
    }
    release.send(()).unwrap();
    assert_eq!(read_answer(&mut hanging).text(), "held");
}

#[test]
fn a_name_that_does_not_resolve_is_502_and_no_reason_not_to_start() {
    let pillion = Pillion::in_front_of("no-such-host.invalid:80");
    let answer = pillion.get("/");
    assert_eq!(answer.status, 502);
    assert!(!answer.text().contains("invalid"), "no internals: {}", answer.text());
    assert_eq!(sample(&pillion, "pillion_upstream_failures_total", "kind=\"resolve\""), Some(1.0));
}

#[test]
fn a_replica_whose_name_does_not_resolve_costs_nobody_anything() {
    let app = named("app");
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://localhost:{}\"\nreplicas = [\"http://no-such-host.invalid:80\"]\n",
        app.address.port()
    ));
    for _ in 0..20 {
        assert_eq!(pillion.get("/").text(), "app");
    }
}

#[test]
fn a_replica_that_hangs_is_ejected_after_a_few_timeouts() {
    let hanging = Script::new(|mut tcp| while Request::read(&mut tcp).is_some() {});
    let well = named("well");
    let pillion = Pillion::with(&format!(
        "{ONE_WORKER}[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\"]\nresponse_timeout = \"100ms\"\n\
         [upstream.health]\ninterval = \"1h\"\n",
        hanging.address, well.address
    ));
    let statuses: Vec<u16> = (0..20).map(|_| pillion.get("/").status).collect();
    let late = statuses.iter().filter(|status| **status == 504).count();
    assert_eq!(late, 3, "unhealthy_after: {statuses:?}");
    assert!(!healthy(&pillion, hanging.address) && healthy(&pillion, well.address));
}

#[test]
fn writes_are_not_sent_elsewhere_when_the_primary_is_dead() {
    let (primary, replica) = (absent_app(), named("replica"));
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{primary}\"\nreplicas = [\"http://{}\"]\n[upstream.health]\ninterval = \"100ms\"\n",
        replica.address
    ));
    for _ in 0..10 {
        assert_eq!(pillion.get("/").text(), "replica");
        assert_eq!(send(&pillion, "POST", "/").status, 502);
    }
    assert!(!healthy(&pillion, primary));
    let _app = Script::on(TcpListener::bind(primary).unwrap(), |mut tcp| {
        while Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(&ok("primary"));
        }
    });
    assert_eq!(send(&pillion, "POST", "/").text(), "primary", "ejected or not, there is no other for writes");
}

#[test]
fn a_reload_keeps_connections_and_what_is_known_of_health() {
    let (dead, well) = (absent_app(), Script::echo());
    let config = format!(
        "{ONE_WORKER}[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{dead}\"]\nkeep_alive = \"20s\"\n[upstream.health]\ninterval = \"1h\"\n",
        well.address
    );
    let pillion = Pillion::with(&config);
    eventually("it is ejected", || {
        assert_eq!(pillion.get("/").status, 200);
        (!healthy(&pillion, dead)).then_some(())
    });
    let before = well.connections.load(Ordering::SeqCst);
    pillion.reload(&format!("{config}[[routes]]\nmatch = \"* /new\"\ndeny = 404\n"));
    assert!(!healthy(&pillion, dead), "still out");
    assert_eq!(pillion.get("/").status, 200);
    assert_eq!(well.connections.load(Ordering::SeqCst), before, "no new connection");
}

#[test]
fn one_address_that_hangs_does_not_delay_the_probes_of_the_others() {
    let hanging = || Script::new(|mut tcp| while Request::read(&mut tcp).is_some() {});
    let hang = [hanging(), hanging(), hanging(), hanging()];
    let sick = Script::answering(|_| b"HTTP/1.1 500 Sick\r\ncontent-length: 0\r\n\r\n".to_vec());
    let well = named("well");
    let urls: Vec<String> =
        hang.iter().chain([&sick]).map(|app| format!("\"http://{}\"", app.address)).collect();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nreplicas = [{}]\n\
         [upstream.health]\npath = \"/healthz\"\ninterval = \"200ms\"\ntimeout = \"1s\"\nunhealthy_after = 2\n",
        well.address,
        urls.join(", ")
    ));
    let since = now();
    eventually("the sick one is out", || (!healthy(&pillion, sick.address)).then_some(()));
    assert!(since.elapsed() < Duration::from_secs(3), "probed every interval: {:?}", since.elapsed());
}

#[test]
fn n4_1_a_response_head_that_is_too_long_for_us_is_no_illness() {
    let app = Script::answering(|request| {
        if request.line.starts_with("GET /long") {
            return format!(
                "HTTP/1.1 302 Found\r\nlocation: /{}\r\ncontent-length: 0\r\n\r\n",
                "x".repeat(400_000)
            )
            .into_bytes();
        }
        ok("fine")
    });
    let pillion = Config::new(app.address).table("[upstream.health]", "unhealthy_after = 1").start();
    assert_eq!(pillion.get("/").status, 200);
    for _ in 0..3 {
        assert_eq!(pillion.get("/long").status, 502);
        assert_eq!(pillion.admin_get("/ready").status, 200);
    }
}

/// Starts an app that closes the connection of `/crash` without a response, responds 503 at `/busy`, and never responds
/// at `/slow`.
fn crashing() -> Script {
    Script::new(|mut tcp| {
        while let Some(request) = Request::read(&mut tcp) {
            let answer = match request.line.split(' ').nth(1) {
                Some("/crash") => return,
                Some("/busy") => b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_vec(),
                Some("/slow") => continue,
                _ => ok("fine"),
            };
            if tcp.write_all(&answer).is_err() {
                return;
            }
        }
    })
}

#[test]
fn n3_4_requests_of_one_client_that_fail_make_nobody_unready() {
    let app = crashing();
    for (path, status) in [("/crash", 502), ("/busy", 503), ("/slow", 504)] {
        for method in ["GET", "POST"] {
            let pillion = Config::new(app.address).upstream("response_timeout", "200ms").start();
            pillion.wait_until_ready();
            for _ in 0..4 {
                assert_eq!(send(&pillion, method, path).status, status, "{method} {path}");
                let ready = pillion.admin_get("/ready");
                assert_eq!(ready.status, 200, "{method} {path}: {}", ready.text());
            }
            let health = pillion.admin_get("/health");
            assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("degraded")));
            assert!(!healthy(&pillion, app.address), "it is told all the same");
            assert_eq!(pillion.get("/").text(), "fine");
            assert!(healthy(&pillion, app.address), "a success ends the row");
        }
    }
}

#[test]
fn n3_4_a_request_that_fails_at_two_addresses_is_held_against_none() {
    let (one, other) = (crashing(), crashing());
    let config = |more: &str| {
        format!(
            "{ONE_WORKER}[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\"]\n{more}[upstream.health]\n\
             interval = \"1h\"\nunhealthy_after = 2\n[health]\nready_requires = [\"upstream:primary\"]\n",
            one.address, other.address
        )
    };
    let pillion = Pillion::with(&config(""));
    pillion.wait_until_ready();
    for _ in 0..5 {
        assert_eq!(send(&pillion, "GET", "/crash").status, 502);
    }
    assert!(healthy(&pillion, one.address) && healthy(&pillion, other.address));
    // A request that cannot be retried elsewhere may eject an address, but not the last one, and Pillion stays ready.
    for _ in 0..5 {
        assert_eq!(send(&pillion, "POST", "/crash").status, 502);
    }
    assert!(!healthy(&pillion, one.address) && healthy(&pillion, other.address));
    assert_eq!(pillion.admin_get("/ready").status, 200, "the primary can be reached");
}

#[test]
fn n3_4_an_address_that_fails_what_another_one_answers_is_ejected() {
    let (sick, well) = (Script::new(|mut tcp| drop(Request::read(&mut tcp))), named("well"));
    let pillion = Pillion::with(&format!(
        "{ONE_WORKER}[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\"]\n[upstream.health]\ninterval = \"1h\"\n",
        sick.address, well.address
    ));
    for _ in 0..10 {
        assert_eq!(pillion.get("/").text(), "well");
    }
    assert!(!healthy(&pillion, sick.address) && healthy(&pillion, well.address));
    assert_eq!(sick.connections.load(Ordering::SeqCst), 3, "unhealthy_after");
}
