//! Tests of limits on concurrent requests, by caller and by upstream.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::harness::origin::*;
use crate::harness::*;

#[test]
fn requests_in_flight_are_capped() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let script = Script::answering(move |request| {
        if request.line.contains("/slow") {
            let _ = wait.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20));
        }
        ok("done")
    });
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[cache]\nenabled = false\n[[routes]]\nmatch = \"GET /slow\"\nconcurrency = 1\n",
        script.address
    );
    let pillion = Pillion::with(&config);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| get(&pillion, "/slow"));
        eventually("the first is in flight", || (pillion.metric("pillion_limit_keys") > 0.0).then_some(()));
        let refused = get(&pillion, "/slow");
        assert_eq!((refused.status, refused.field("retry-after").unwrap().as_str()), (429, "1"));
        assert_eq!(refused.field("ratelimit").unwrap(), "\"concurrency\";r=0");
        assert_eq!(
            refused.field("ratelimit-policy").unwrap(),
            "\"concurrency\";q=1;qu=\"concurrent-requests\""
        );
        assert_eq!(refused.json()["violated-policies"], serde_json::json!(["concurrency"]));
        assert_eq!(get(&pillion, "/other").status, 200);
        release.send(()).unwrap();
        assert_eq!(slow.join().unwrap().status, 200);
        drop(release);
        eventually("its place is free", || (get(&pillion, "/slow").status == 200).then_some(()));
    });
}

#[test]
fn a_place_is_free_once_its_answer_has_ended() {
    let script = Script::answering(|_| ok("done"));
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"GET /\"\nconcurrency = 1\n",
        script.address
    );
    let pillion = Pillion::with(&config);
    // The next request is already there when a response ends whose log line is not written yet.
    let request = |last: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{last}\r\n");
    let answers = raw(pillion.http, [request(""), request(""), request("Connection: close\r\n")].concat());
    let answers = String::from_utf8_lossy(&answers);
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
}

#[test]
fn an_app_that_cannot_bear_more_is_spared() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let script = Script::answering(move |_| {
        let _ = wait.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20));
        ok("done")
    });
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\nadaptive_concurrency = true\nqueue_timeout = \"300ms\"\n[cache]\nenabled = false\n",
        script.address
    );
    let pillion = Pillion::with(&config);
    let limit = pillion.metric("pillion_upstream_concurrency_limit{upstream=\"upstream\"}");
    let (asked, most) = (60, limit as usize);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let client = |number: usize| {
            let pillion = &pillion;
            scope.spawn(move || get(pillion, &format!("/{number}")))
        };
        let clients: Vec<_> = (0..asked).map(client).collect();
        eventually("the rest was turned away", || {
            let shed = pillion.metric("pillion_upstream_shed_total{upstream=\"upstream\"}");
            (shed as usize == asked - most).then_some(())
        });
        (0..most).for_each(|_| release.send(()).unwrap());
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let (served, shed): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((served.len(), shed.len()), (most, asked - most));
    for answer in shed {
        assert_eq!((answer.status, answer.field("retry-after").unwrap().as_str()), (503, "1"));
        let kind = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
        assert_eq!(answer.json()["type"], kind);
    }
    let failures = pillion.metric("pillion_upstream_failures_total{upstream=\"upstream\",kind=\"shed\"}");
    assert_eq!(failures as usize, asked - most);
}

#[test]
fn a_place_in_flight_comes_back_however_a_request_ends() {
    let script = Script::answering(|request| {
        if request.line.contains("/long") {
            let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n".to_vec();
            answer.resize(answer.len() + 50_000_000, b'x');
            return answer;
        }
        if request.line.contains("/broken") { b"no answer\r\n\r\n".to_vec() } else { ok("fine") }
    });
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\nretries = 0\n[[routes]]\nmatch = \"* /**\"\nconcurrency = 1\n",
        script.address
    );
    let pillion = Pillion::with(&config);
    for _ in 0..3 {
        assert_eq!(get(&pillion, "/broken").status, 502);
        assert_eq!(get(&pillion, "/fine").status, 200);
    }
    {
        // The client leaves in the middle of the content.
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut begun = [0; 1000];
        std::io::Read::read_exact(&mut tcp, &mut begun).unwrap();
        assert_eq!(get(&pillion, "/fine").status, 429);
    }
    eventually("the place is free", || (get(&pillion, "/fine").status == 200).then_some(()));
    // A refused gRPC call gets a gRPC response.
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut begun = [0; 1000];
    std::io::Read::read_exact(&mut tcp, &mut begun).unwrap();
    let refused = ask(&pillion, "POST /fine", &["content-type: application/grpc", "content-length: 0"]);
    assert_eq!((refused.status, refused.field("grpc-status").unwrap().as_str()), (200, "8"));
}

#[test]
fn slow_clients_keep_no_place_at_the_app() {
    let script = Script::answering(|request| {
        let length = if request.line.contains("/long") { 50_000_000 } else { 4 };
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + length, b'x');
        answer
    });
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\nadaptive_concurrency = true\n[cache]\nenabled = false\n",
        script.address
    );
    let pillion = Pillion::with(&config);
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        std::io::Read::read_exact(&mut tcp, &mut [0; 100]).unwrap();
        readers.push(tcp);
    }
    let mut writers = Vec::new();
    for _ in 0..20 {
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nbegin").unwrap();
        writers.push(tcp);
    }
    for _ in 0..20 {
        assert_eq!(get(&pillion, "/short").status, 200);
    }
    assert_eq!(pillion.metric("pillion_upstream_shed_total{upstream=\"upstream\"}"), 0.0);
}

#[test]
fn an_app_that_bears_more_is_given_more() {
    let origin = Origin::new();
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\nadaptive_concurrency = true\n[cache]\nenabled = false\n[log]\naccess = \"off\"\n",
        origin.script.address
    );
    let pillion = Pillion::with(&config);
    let limit = || pillion.metric("pillion_upstream_concurrency_limit{upstream=\"upstream\"}");
    let before = limit();
    let mut load = Command::new("h2load")
        .args(["--h1", "-c32", "-D20", &pillion.url("/")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it grew", || (limit() > before).then_some(()));
    load.kill().unwrap();
    load.wait().unwrap();
    // A reload that leaves adaptive concurrency on keeps its limit; one that turns it off removes the limit.
    let grown = limit();
    pillion.reload(&config.replace("access = \"off\"", "access = \"errors\""));
    assert_eq!(limit(), grown);
}

#[test]
fn a_wait_at_the_gate_is_not_taken_for_the_app_s() {
    // The app takes equally long under any load.
    let app = Script::answering(|_| {
        std::thread::sleep(std::time::Duration::from_millis(40));
        ok("{}")
    });
    let pillion =
        Config::new(app.address).upstream("adaptive_concurrency", true).cache("enabled", false).start();
    let limit = || pillion.metric("pillion_upstream_concurrency_limit{upstream=\"upstream\"}");
    let before = limit();
    // More concurrent requests than allowed: they wait several times as long as a response takes.
    let mut load = Command::new("h2load")
        .args(["--h1", "-c40", "-D20", &pillion.url("/")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("nobody waits any more", || {
        // A measurement of the baseline halves the limit briefly.
        assert!(limit() >= before / 2.0, "it shut before an app that is not slow");
        (limit() >= 40.0).then_some(())
    });
    load.kill().unwrap();
    load.wait().unwrap();
}

#[test]
fn a_request_that_outlives_its_client_holds_its_place() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let arrived = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = arrived.clone();
    let script = Script::answering(move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let _ = wait.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20));
        ok("done")
    });
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"POST /pay\"\nconcurrency = 1\n[[invalidate]]\non = \"POST /pay\"\npaths = [\"/paid\"]\n",
        script.address
    );
    let pillion = Pillion::with(&config);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"POST /pay HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").unwrap();
    eventually("the app has it", || (arrived.load(std::sync::atomic::Ordering::SeqCst) == 1).then_some(()));
    drop(tcp);
    eventually("the client is seen to have left", || {
        pillion.access_log().contains("the client disconnected before the response ended").then_some(())
    });
    assert_eq!(ask(&pillion, "POST /pay", &["content-length: 0"]).status, 429, "the write goes on");
    release.send(()).unwrap();
    drop(release);
    eventually("the place is free", || {
        (ask(&pillion, "POST /pay", &["content-length: 0"]).status == 200).then_some(())
    });
}
