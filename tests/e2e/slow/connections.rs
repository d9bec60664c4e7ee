//! Tests of connections without requests, and of more connections than there is room for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::seats;
use super::tools::{h2_client, pillion};
use crate::harness::holding::holding;
use crate::harness::{
    self, Folder, PATIENCE, Pillion, Script, complete, connect, eventually, now, read_answer,
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Returns how long the connection stays open while `pieces` are sent repeatedly. Nothing may be received.
fn open_for(mut tcp: TcpStream, pieces: &'static [&'static str]) -> std::thread::JoinHandle<Duration> {
    std::thread::spawn(move || {
        let since = now();
        tcp.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
        for piece in pieces.iter().cycle() {
            let _ = tcp.write_all(piece.as_bytes());
            match tcp.read(&mut [0u8; 100]) {
                Ok(0) => break,
                Ok(count) => panic!("{count} bytes came"),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(_) => assert!(since.elapsed() < PATIENCE, "it stays open"),
            }
        }
        since.elapsed()
    })
}

#[test]
fn n3_6_a_connection_that_asks_for_nothing_is_closed_without_an_answer() {
    let app = Script::echo();
    let times = "header_timeout = \"400ms\"\nidle_timeout = \"3s\"\n";
    let untrusted = pillion(app.address, times, "");
    let trusted = pillion(app.address, &format!("{times}trusted_proxies = [\"127.0.0.1\"]\n"), "");
    let asked = |pillion: &Pillion| {
        let mut tcp = connect(pillion.http);
        tcp.write_all(GET).unwrap();
        assert_eq!(read_answer(&mut tcp).status, 200);
        tcp
    };
    let header = Duration::from_millis(350)..Duration::from_millis(2500);
    let idle = Duration::from_millis(2900)..Duration::from_secs(8);
    let cases = [
        ("no byte", open_for(connect(untrusted.http), &[""]), &header),
        ("empty lines", open_for(connect(untrusted.http), &["\r\n"]), &header),
        ("halves of empty lines", open_for(connect(untrusted.http), &["\r", "\n", "\r\n\r", "\n"]), &header),
        ("after a request", open_for(asked(&untrusted), &[""]), &idle),
        ("after a request, empty lines", open_for(asked(&untrusted), &["\r\n"]), &idle),
        ("a proxy, no byte", open_for(connect(trusted.http), &[""]), &idle),
        ("a proxy, empty lines", open_for(connect(trusted.http), &["\r", "\n"]), &idle),
    ];
    for (what, open, expected) in cases {
        let open = open.join().unwrap();
        assert!(expected.contains(&open), "{what}: {open:?}");
    }
    // The same before a TLS handshake.
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    for (trusted, expected) in [("", &header), ("trusted_proxies = [\"127.0.0.1\"]\n", &idle)] {
        let folder = Arc::new(Folder::new());
        folder.write("tls.crt", key.cert.pem());
        folder.write("tls.key", key.signing_key.serialize_pem());
        let tls = Pillion::in_folder(
            folder,
            &format!(
                "[server]\nlisten = []\nadmin = \"127.0.0.1:0\"\n{times}{trusted}[server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
                 certificates = [{{ cert = \"tls.crt\", key = \"tls.key\" }}]\n[upstream]\nurl = \"http://{}\"\n",
                app.address
            ),
        );
        let open = open_for(connect(tls.http), &[""]).join().unwrap();
        assert!(expected.contains(&open), "TLS, {trusted:?}: {open:?}");
    }
    // A request that has begun gets a 408.
    let mut tcp = connect(untrusted.http);
    tcp.write_all(b"\r\nGET / HTTP/1.1\r\nHost").unwrap();
    assert_eq!(read_answer(&mut tcp).status, 408);
}

pub(crate) fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&format!("{source}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let tcp: TcpStream = socket.into();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp
}

fn is_open(tcp: &mut TcpStream) -> bool {
    tcp.set_nonblocking(true).unwrap();
    let open =
        matches!(tcp.read(&mut [0u8; 10]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    tcp.set_nonblocking(false).unwrap();
    open
}

#[test]
fn n3_6_at_max_connections_the_longest_idle_of_the_client_with_the_most_goes_first() {
    let app = Script::echo();
    for workers in [1, 3] {
        let server = format!("max_connections = 8\nworkers = {workers}\n");
        let pillion = pillion(app.address, &server, "");
        let pause = || std::thread::sleep(Duration::from_millis(30));
        let mut lone = connect_from("127.0.0.3", pillion.http);
        lone.write_all(GET).unwrap();
        assert_eq!(read_answer(&mut lone).status, 200);
        pause();
        // Some connections have sent a request, and some have not.
        let mut many: Vec<TcpStream> = (0..7)
            .map(|at| {
                let mut tcp = connect_from("127.0.0.2", pillion.http);
                if at % 2 == 0 {
                    tcp.write_all(GET).unwrap();
                    assert_eq!(read_answer(&mut tcp).status, 200);
                }
                pause();
                tcp
            })
            .collect();
        pause();
        for gone in 0..4 {
            let mut new = connect_from("127.0.0.4", pillion.http);
            new.write_all(GET).unwrap();
            assert_eq!(read_answer(&mut new).status, 200, "one more is served");
            eventually("the oldest of the many is closed", || (!is_open(&mut many[gone])).then_some(()));
            assert!(many[gone + 1..].iter_mut().all(is_open), "only {gone} of the many made room");
            assert!(is_open(&mut lone), "the only one of its client stays, idle longest of all");
            drop(new);
            eventually("its seat is free", || {
                (pillion.metric("pillion_client_connections") <= 7.0).then_some(())
            });
            many.push(connect_from("127.0.0.2", pillion.http));
            pause();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn n3_6_so_do_idle_connections_of_http_2_and_those_without_a_handshake() {
    let app = Script::echo();
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = Arc::new(Folder::new());
    folder.write("tls.crt", key.cert.pem());
    folder.write("tls.key", key.signing_key.serialize_pem());
    let pillion = Pillion::in_folder(
        folder,
        &format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nmax_connections = 2\nheader_timeout = \"60s\"\n\
             [server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{{ cert = \"tls.crt\", key = \"tls.key\" }}]\n\
             [upstream]\nurl = \"http://{}\"\n",
            app.address
        ),
    );
    let get = || {
        let mut tcp = connect(pillion.http);
        tcp.write_all(GET).unwrap();
        assert_eq!(read_answer(&mut tcp).status, 200);
    };
    // Both slots are taken by connections without a request, finished or never sent.
    let mut client = h2_client(pillion.http, 65_535).await;
    let request = http::Request::get("http://a.test/").body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    let mut answer = answer.await.unwrap();
    super::tools::h2_body(answer.body_mut()).await;
    let _other = h2_client(pillion.http, 65_535).await;
    tokio::task::block_in_place(get);
    let silent: Vec<TcpStream> = (0..2).map(|_| connect(pillion.https.unwrap())).collect();
    tokio::task::block_in_place(get);
    drop(silent);
}

/// A busy connection is never closed for others, which wait until it has ended.
#[test]
fn n3_6_busy_connections_stay() {
    let (app, seen, release) = holding();
    let pillion = pillion(app.address, "max_connections = 4\n", "");
    let mut busy: Vec<TcpStream> = (0..4)
        .map(|at| {
            // Within the share of each client.
            let client = if at == 0 { "127.0.0.3" } else { "127.0.0.2" };
            let mut tcp = connect_from(client, pillion.http);
            tcp.write_all(format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
            seen.recv_timeout(PATIENCE).unwrap();
            tcp
        })
        .collect();
    let mut waits = connect(pillion.http);
    waits.write_all(b"GET /waits HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(seen.recv_timeout(Duration::from_millis(300)).is_err(), "it waits for a seat");
    assert!(busy.iter_mut().all(is_open));
    (0..5).for_each(|_| release.send(()).unwrap());
    for tcp in &mut busy {
        assert_eq!(read_answer(tcp).status, 200);
    }
    // A connection that became idle in the meantime makes room.
    assert_eq!(read_answer(&mut waits).status, 200);
}

#[test]
fn n3_7_live_answers_under_a_flood_with_128_descriptors() {
    let app = Script::echo();
    let folder = Arc::new(Folder::new());
    let config = complete(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nprobes = \"127.0.0.1:0\"\nworkers = 4\n[upstream]\nurl = \"http://{}\"\n",
        app.address
    ));
    let path = folder.write("pillion.toml", config);
    let mut command = Command::new("sh");
    let run = "ulimit -n 128; exec \"$0\" run --config \"$1\"";
    command.args(["-c", run, harness::binary()]).arg(&path).current_dir(&folder.0);
    let pillion = Pillion::start(folder, command);
    let said = eventually("it says what fits", || {
        pillion.log().lines().find(|line| line.contains("limit of open files")).map(str::to_owned)
    });
    assert!(said.contains("server.max_connections is 19") && said.contains("upstream 10"), "{said}");
    assert_eq!(pillion.log().matches("limit of open files").count(), 1, "one line");
    let live = |when: &str| {
        for address in [pillion.admin, pillion.probes.unwrap()] {
            let answer = harness::exchange(
                address,
                "GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            );
            assert_eq!(answer.status, 200, "{when}");
        }
    };
    live("at first");
    // Silent connections, connections with an incomplete request, and busy ones.
    let flood: Vec<TcpStream> = (0..300)
        .map(|at| {
            let mut tcp = connect_from("127.0.0.2", pillion.http);
            let parts: [&[u8]; 3] = [b"", b"GET / HTTP/1.1\r\nHo", GET];
            let _ = tcp.write_all(parts[at % 3]);
            if at % 50 == 0 {
                live("while it comes");
            }
            tcp
        })
        .collect();
    for _ in 0..5 {
        live("under the flood");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!pillion.log().contains("accept failed"), "{}", pillion.log());
    drop(flood);
    eventually("requests are served again", || {
        let mut tcp = connect(pillion.http);
        tcp.write_all(GET).unwrap();
        (read_answer(&mut tcp).status == 200).then_some(())
    });
    // A reload adapts the limits again.
    pillion.process.signal("HUP");
    eventually("it is reloaded", || pillion.log().contains("configuration reloaded").then_some(()));
    live("after a reload");
}

/// One client floods with anything. Two flooding clients at the same time are the worst case.
#[test]
fn n3_7_live_answers_whatever_is_flooded() {
    let app = Script::new(|mut tcp| {
        while let Some(head) = harness::head(&mut tcp) {
            let stream = head.contains("/events");
            let answer = if stream {
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: x\n\n".to_vec()
            } else {
                harness::ok("here")
            };
            if tcp.write_all(&answer).is_err() || stream {
                // The connection lives until it is closed.
                let _ = tcp.read(&mut [0]);
                return;
            }
        }
    });
    let folder = Arc::new(Folder::new());
    let config = complete(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nprobes = \"127.0.0.1:0\"\nworkers = 2\n[upstream]\nurl = \"http://{}\"\n",
        app.address
    ));
    let path = folder.write("pillion.toml", config);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 128; exec \"$0\" run --config \"$1\"", harness::binary()]);
    command.arg(&path).current_dir(&folder.0);
    let pillion = Pillion::start(folder, command);
    let probes = pillion.probes.unwrap();
    let mut failures = Vec::new();
    let mut check = |when: &str| {
        for (name, address) in [("admin", pillion.admin), ("probes", probes), ("service", pillion.http)] {
            let mut tcp = connect_from("127.0.0.1", address);
            tcp.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let ask = "GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let mut answer = Vec::new();
            let read = tcp.write_all(ask.as_bytes()).and_then(|()| tcp.read_to_end(&mut answer));
            if !answer.starts_with(b"HTTP/1.1 200") {
                failures.push(format!("{name} while {when} is flooded: {read:?}"));
            }
        }
    };
    let mut floods = Vec::new();
    for _ in 0..8 {
        let mut tcp = connect_from("127.0.0.2", pillion.http);
        let _ = tcp.write_all(&seats::preface(65_535));
        for stream in (1..=255).step_by(2) {
            let _ = tcp.write_all(&seats::request(stream, seats::GET_METHOD, seats::ENDS, "/events"));
        }
        floods.push(tcp);
    }
    eventually("streams beyond the limit are refused", || {
        pillion.access_log().contains("\"status\":503").then_some(())
    });
    check("the service");
    for (name, address) in [("admin", pillion.admin), ("probes", probes)] {
        for at in 0..300 {
            let mut tcp = connect_from("127.0.0.2", address);
            let parts: [&[u8]; 2] = [b"", b"GET / HTTP/1.1\r\nHo"];
            let _ = tcp.write_all(parts[at % 2]);
            floods.push(tcp);
        }
        check(name);
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(!pillion.log().contains("accept failed"), "{}", pillion.log());
}
