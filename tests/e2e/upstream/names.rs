//! Tests of upstreams whose name resolves to other addresses during use.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::{
    Folder, Pillion, Request, Script, binary, complete, connect, eventually, ok, read_answer,
};

/// An app that counts its requests, and drops connections with a request on them while it is `ill`.
struct App {
    script: Script,
    count: Arc<AtomicUsize>,
    ill: Arc<AtomicBool>,
}

impl App {
    fn on(address: SocketAddr) -> App {
        let (count, ill): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
        let (counted, is_ill) = (count.clone(), ill.clone());
        let script = Script::on(TcpListener::bind(address).unwrap(), move |mut tcp| {
            while Request::read(&mut tcp).is_some() {
                counted.fetch_add(1, Ordering::SeqCst);
                if is_ill.load(Ordering::SeqCst) || tcp.write_all(&ok("{}")).is_err() {
                    return;
                }
            }
        });
        App { script, count, ill }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// Returns the library that replaces the resolver, with names from a hosts file.
fn resolver() -> String {
    let found = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok).find_map(|folder| {
        let path = folder.path().join("libnss_wrapper.so");
        path.exists().then_some(path)
    });
    found.expect("tests/run installs libnss-wrapper").display().to_string()
}

#[test]
fn n4_5_names_are_asked_while_there_is_traffic() {
    let first = App::on("127.0.1.2:0".parse().unwrap());
    let port = first.script.address.port();
    let second = App::on(SocketAddr::new("127.0.1.3".parse().unwrap(), port));
    let folder = Arc::new(Folder::new());
    let hosts = folder.path("hosts");
    let written = AtomicUsize::new(0);
    let lead_to = |addresses: &[&str]| {
        let lines: String = addresses.iter().map(|address| format!("{address} app.test\n")).collect();
        std::fs::write(&hosts, lines).unwrap();
        // The library detects a change by the file's time, in seconds.
        let file = std::fs::File::options().write(true).open(&hosts).unwrap();
        let number = written.fetch_add(1, Ordering::SeqCst) as u64;
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + number))
            .unwrap();
    };
    lead_to(&["127.0.1.2"]);
    let config = complete(&format!(
        "[upstream]\nurl = \"http://app.test:{port}\"\nkeep_alive = \"60s\"\n[cache]\nenabled = false\n"
    ))
    .replace("[server]", "[server]\nworkers = 1");
    let path = folder.write("pillion.toml", config);
    let mut command = Command::new(binary());
    command
        .args(["run", "--config"])
        .arg(path)
        .env("LD_PRELOAD", resolver())
        .env("NSS_WRAPPER_HOSTS", &hosts);
    let pillion = Pillion::start(folder.clone(), command);
    let mut tcp = connect(pillion.http);
    let mut get = || {
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        assert_eq!(read_answer(&mut tcp).status, 200);
        // A request now and then, always on an existing connection.
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    (0..10).for_each(|_| get());
    assert_eq!((first.count(), second.count()), (10, 0));

    // An added address gets its share.
    lead_to(&["127.0.1.2", "127.0.1.3"]);
    eventually("the second is asked", || {
        get();
        (second.count() > 0).then_some(())
    });
    let before = (first.count(), second.count());
    (0..20).for_each(|_| get());
    assert_eq!((first.count() - before.0, second.count() - before.1), (10, 10));

    // A removed address is used while its connection works, but not after it fails.
    lead_to(&["127.0.1.3"]);
    first.ill.store(true, Ordering::SeqCst);
    let since = crate::harness::now();
    let mut last = first.count();
    eventually("the first is left alone", || {
        let before = first.count();
        (0..20).for_each(|_| get());
        let quiet = first.count() == before;
        last = first.count();
        quiet.then_some(())
    });
    (0..20).for_each(|_| get());
    assert_eq!(first.count(), last);
    assert!(since.elapsed() < std::time::Duration::from_secs(15), "{:?}", since.elapsed());
}
