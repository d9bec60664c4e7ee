//! Addresses of listeners and upstreams, as people write them.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;

use crate::harness::{Folder, Pillion, Script, binary, eventually, exchange, free_address, ok};

/// An app on one loopback address alone.
fn app_on(address: &str) -> Script {
    Script::on(TcpListener::bind(address).unwrap(), |mut tcp| {
        use std::io::Write as _;
        while crate::harness::head(&mut tcp).is_some() {
            if tcp.write_all(&ok("here")).is_err() {
                return;
            }
        }
    })
}

#[test]
fn upstream_on_one_loopback_is_reached_by_its_port_alone() {
    for loopback in ["127.0.0.1:0", "[::1]:0"] {
        let app = app_on(loopback);
        let port = app.address.port();
        for url in [
            format!("{port}"),
            format!("\"{port}\""),
            format!("\":{port}\""),
            format!("\"localhost:{port}\""),
        ] {
            // Without a retry, the first connection has to succeed.
            let pillion = Pillion::with(&format!("[upstream]\nurl = {url}\nretries = 0\n"));
            for _ in 0..5 {
                assert_eq!(pillion.get("/").text(), "here", "{url} at {loopback}");
            }
            let line = pillion.access("the request", |line| line["status"] == 200);
            assert_eq!(line["upstream"], format!("localhost:{port}"), "{line}");
            assert_eq!(pillion.metric("pillion_upstream_failures_total"), 0.0, "{url} at {loopback}");
        }
    }
}

#[test]
fn upstream_that_moves_to_the_other_loopback_is_reached() {
    let port = free_address().port();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"localhost:{port}\"\n[upstream.health]\ninterval = \"1h\"\n"
    ));
    assert_eq!(pillion.get("/").status, 502);
    for loopback in ["[::1]", "127.0.0.1"] {
        let app = app_on(&format!("{loopback}:{port}"));
        eventually("it is reached", || (pillion.get("/").status == 200).then_some(()));
        drop(app);
    }
}

fn started(server: &str) -> Pillion {
    Pillion::with(&format!(
        "[server]\n{server}\nadmin = \"127.0.0.1:0\"\n[upstream]\nurl = \"http://127.0.0.1:9\"\n"
    ))
}

fn answers(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

#[test]
fn listener_of_a_port_alone_serves_all_interfaces() {
    for form in ["{port}", "\"{port}\"", "\":{port}\"", "[\"{port}\"]"] {
        let port = free_address().port();
        let _pillion = started(&format!("listen = {}", form.replace("{port}", &port.to_string())));
        let others = SocketAddr::from(([127, 0, 0, 3], port));
        assert!(answers(others) && answers((Ipv6Addr::LOCALHOST, port).into()), "{form}");
    }
}

#[test]
fn listener_of_localhost_serves_both_loopbacks_and_nothing_else() {
    let port = free_address().port();
    let _pillion = started(&format!("listen = \"localhost:{port}\""));
    assert!(answers(([127, 0, 0, 1], port).into()) && answers((Ipv6Addr::LOCALHOST, port).into()));
    assert!(!answers(([127, 0, 0, 3], port).into()));
}

#[test]
fn admin_listener_of_localhost_serves_both_loopbacks() {
    let (port, folder) = (free_address().port(), Arc::new(Folder::new()));
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"localhost:{port}\"\n[upstream]\nurl = \"http://127.0.0.1:9\"\n"
    );
    let _pillion = Pillion::in_folder(folder.clone(), &config);
    for address in [SocketAddr::from(([127, 0, 0, 1], port)), (Ipv6Addr::LOCALHOST, port).into()] {
        let live = exchange(address, "GET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(live.status, 200, "{address}");
    }
    let reload = |args: &[&str]| {
        let output = Command::new(binary()).arg("reload").args(args).current_dir(&folder.0).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    };
    reload(&["--config", "pillion.toml"]);
    reload(&["--admin", &format!("localhost:{port}")]);
    reload(&["--admin", &port.to_string()]);
}

#[test]
fn options_and_variables_take_the_same_forms() {
    let app = app_on("127.0.0.1:0");
    let upstream = app.address.port().to_string();
    let folder = Arc::new(Folder::new());
    let mut command = Command::new(binary());
    command.args(["run", "--listen", "localhost:0"]).current_dir(&folder.0);
    command.env("PILLION_UPSTREAM", &upstream).env("PILLION_ADMIN", "127.0.0.1:0").env("PILLION_CONFIG", "");
    let pillion = Pillion::start(folder, command);
    assert_eq!(pillion.get("/").text(), "here");
}
