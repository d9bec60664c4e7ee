//! Tests of sequences of deployment events while requests arrive: no request may fail.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::*;

/// Number of clients, each of which sends one request after the other.
const CLIENTS: usize = 4;
/// Pause between two requests of one client.
const PAUSE: Duration = Duration::from_millis(2);

/// Calls `during` while clients send requests, with a function that waits for a number of further responses. An error
/// from `ask` fails the test.
fn under_load<K>(
    ask: impl Fn(&mut Option<K>) -> Result<(), String> + Sync,
    during: impl FnOnce(&dyn Fn(usize)),
) {
    let stop = AtomicBool::new(false);
    let (failed, served) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut kept = None;
                while !stop.load(Ordering::Relaxed) {
                    match ask(&mut kept) {
                        Ok(()) => drop(served.fetch_add(1, Ordering::Relaxed)),
                        Err(why) => failed.lock().unwrap().push(why),
                    }
                    std::thread::sleep(PAUSE);
                }
            });
        }
        let go_on = |further: usize| {
            let before = served.load(Ordering::Relaxed);
            eventually("requests go on", || {
                (served.load(Ordering::Relaxed) >= before + further).then_some(())
            });
        };
        // Waits for the clients even if `during` panics.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            go_on(1);
            during(&go_on);
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} beside {served:?}: {:?}", failed.len(), &failed[..failed.len().min(3)]);
}

/// Returns a client that keeps its connection until the server announces its close.
fn keeping(address: SocketAddr) -> impl Fn(&mut Option<TcpStream>) -> Result<(), String> + Sync {
    move |kept| {
        let mut tcp = kept.take().unwrap_or_else(|| connect(address));
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            read_answer(&mut tcp)
        }));
        match asked {
            Ok(answer) if answer.status == 200 => {
                let closed = answer.field("connection").is_some_and(|value| value == "close");
                *kept = (!closed).then_some(tcp);
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    }
}

/// Mounts files as the kubelet does: `name` -> `..data/name`, and `..data` -> a folder for each generation. Only that
/// link is swapped.
fn mount(folder: &Folder, generation: usize, files: &[(&str, String)]) {
    let name = format!("..{generation}");
    std::fs::create_dir(folder.path(&name)).unwrap();
    for (file, content) in files {
        folder.write(&format!("{name}/{file}"), content);
        if generation == 0 {
            std::os::unix::fs::symlink(format!("..data/{file}"), folder.path(file)).unwrap();
        }
    }
    std::os::unix::fs::symlink(&name, folder.path("..data_tmp")).unwrap();
    std::fs::rename(folder.path("..data_tmp"), folder.path("..data")).unwrap();
    if generation > 0 {
        std::fs::remove_dir_all(folder.path(&format!("..{}", generation - 1))).unwrap();
    }
}

/// Three replicas behind a balancer that understands only TCP and checks `/ready`, replaced one after the other.
#[test]
fn replicas_are_replaced() {
    let app = Script::answering(|_| ok("served"));
    let places: Vec<(SocketAddr, SocketAddr)> = (0..3).map(|_| (free_address(), free_address())).collect();
    let start = |(http, probes): (SocketAddr, SocketAddr)| {
        let pillion = Pillion::with(&format!(
            "[server]\nlisten = [\"{http}\"]\nadmin = \"127.0.0.1:0\"\nprobes = \"{probes}\"\ndrain_delay = \"1s\"\n\
             drain_timeout = \"5s\"\n[upstream]\nurl = \"http://{}\"\n",
            app.address
        ));
        pillion.wait_until_ready();
        pillion
    };
    let mut running: Vec<Option<Pillion>> = places.iter().map(|place| Some(start(*place))).collect();
    let balancer = free_address();
    let servers: String = places
        .iter()
        .enumerate()
        .map(|(at, (http, probes))| {
            format!("  server s{at} {http} check port {} inter 100ms fall 1 rise 1\n", probes.port())
        })
        .collect();
    let folder = Folder::new();
    let config = folder.write(
        "haproxy.cfg",
        format!(
            "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 30s\n  timeout server 30s\n\
             frontend in\n  bind {balancer}\n  default_backend pillions\n\
             backend pillions\n  balance roundrobin\n  option httpchk GET /ready\n{servers}"
        ),
    );
    let child = Command::new("haproxy").arg("-f").arg(config).stderr(Stdio::null()).spawn().unwrap();
    let _balancer = Process(child);
    eventually("the balancer listens", || TcpStream::connect(balancer).ok());

    under_load(keeping(balancer), |go_on| {
        for (place, old) in places.iter().zip(&mut running) {
            assert_eq!(old.take().unwrap().stop().code(), Some(0));
            let new = old.insert(start(*place));
            assert_eq!(new.admin_get("/ready").status, 200);
            go_on(200);
        }
    });
}

#[test]
fn a_config_map_is_replaced() {
    let app = Script::answering(|_| ok("served"));
    let config = |generation: usize| {
        let route = format!("[[routes]]\nmatch = \"* /generation\"\ndeny = {}\n", 400 + generation);
        complete(&format!("[upstream]\nurl = \"http://{}\"\n{route}", app.address))
    };
    let folder = Arc::new(Folder::new());
    mount(&folder, 0, &[("pillion.toml", config(0))]);
    let pillion = Pillion::from_file(folder.clone(), &folder.path("pillion.toml"));
    under_load(keeping(pillion.http), |go_on| {
        for generation in 1..4 {
            mount(&folder, generation, &[("pillion.toml", config(generation))]);
            let wanted = u16::try_from(400 + generation).unwrap();
            eventually("it is in force", || (pillion.get("/generation").status == wanted).then_some(()));
            go_on(50);
        }
    });
}

/// Each request uses a new connection, and the clients trust both certificates.
#[test]
fn certificates_are_replaced() {
    let app = Script::answering(|_| ok("served"));
    let issue = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (old, new) = (issue(), issue());
    let folder = Arc::new(Folder::new());
    let files = |issued: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        [("tls.crt", issued.cert.pem()), ("tls.key", issued.signing_key.serialize_pem())]
    };
    mount(&folder, 0, &files(&old));
    let both = folder.write("both.pem", old.cert.pem() + &new.cert.pem());
    let only_new = folder.write("new.pem", new.cert.pem());
    let pillion = Pillion::in_folder(
        folder.clone(),
        &format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
             certificates = [{{ cert = \"tls.crt\", key = \"tls.key\" }}]\n[upstream]\nurl = \"http://{}\"\n",
            app.address
        ),
    );
    let port = pillion.https.unwrap().port();
    let ask = |trusted: &std::path::Path| {
        let output = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(["--resolve", &format!("localhost:{port}:127.0.0.1"), "--cacert"])
            .arg(trusted)
            .arg(format!("https://localhost:{port}/"))
            .output()
            .unwrap();
        if output.stdout == b"200" { Ok(()) } else { Err(format!("{output:?}")) }
    };
    under_load(
        |_: &mut Option<()>| ask(&both),
        |go_on| {
            go_on(20);
            mount(&folder, 1, &files(&new));
            eventually("the new one is shown", || ask(&only_new).ok());
            go_on(20);
        },
    );
}

/// The containers of a pod start in any order. Until the app responds, Pillion is alive but not ready, and says why.
#[test]
fn an_app_comes_later_than_its_sidecar() {
    let address = absent_app();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{address}\"\n[upstream.health]\npath = \"/\"\ninterval = \"100ms\"\n"
    ));
    assert_eq!(pillion.admin_get("/live").status, 200);
    eventually("it is not ready", || (pillion.admin_get("/ready").status == 503).then_some(()));
    let refused = pillion.get("/");
    assert_eq!(
        (refused.status / 100, refused.field("content-type").as_deref()),
        (5, Some("application/problem+json"))
    );
    let listener = std::net::TcpListener::bind(address).unwrap();
    let _app = Script::on(listener, |mut tcp| {
        while Request::read(&mut tcp).is_some() && tcp.write_all(&ok("served")).is_ok() {}
    });
    eventually("it is ready", || (pillion.admin_get("/ready").status == 200).then_some(()));
    assert_eq!(pillion.get("/").text(), "served");
}

/// Both are stopped at the same time, while a real app still needs a second for a request.
#[test]
fn an_app_stops_later_than_its_sidecar() {
    let (app, address) = httpbin();
    let pillion = Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n[upstream]\nurl = \"http://{address}\"\n"
    ));
    // Ten bytes within a second; the first one shows that the app has started to respond.
    let mut tcp = connect(pillion.http);
    tcp.write_all(
        b"GET /drip?numbytes=10&duration=1&delay=0 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"*") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).unwrap();
        seen.extend(byte);
    }
    app.signal("TERM");
    pillion.process.signal("TERM");
    tcp.read_to_end(&mut seen).unwrap();
    let answer = Answer::parse(&seen);
    assert_eq!((answer.status, answer.text().as_str()), (200, "**********"));
    assert_eq!(pillion.stop().code(), Some(0));
}
