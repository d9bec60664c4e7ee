//! Tests with all connection slots taken by clients that keep Pillion waiting: a client without a connection is still
//! served.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::connections::connect_from;
use crate::harness::holding::holding;
use crate::harness::{Folder, PATIENCE, Pillion, Script, complete, eventually, head, ok, read_answer};

const SEATS: usize = 8;
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// Time limit within which a client without other connections must be served.
const PROMPT: Duration = Duration::from_secs(2);

/// Starts an app with a long response under `/long`, which reads what it is sent.
fn app() -> Script {
    Script::new(|mut tcp| {
        while let Some(head) = head(&mut tcp) {
            if let Some(answer) = endless(&head) {
                let _ = tcp.write_all(answer);
                // The connection lives until it is closed.
                let _ = tcp.read(&mut [0]);
                return;
            }
            if head.contains("/long") {
                let size = 16 << 20;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
                let piece = vec![b'x'; 1 << 16];
                if tcp.write_all(head.as_bytes()).is_err() || !(0..256).all(|_| tcp.write_all(&piece).is_ok())
                {
                    return;
                }
                continue;
            }
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
            });
            if tcp.read_exact(&mut vec![0; length.unwrap_or(0)]).is_err()
                || tcp.write_all(&ok("here")).is_err()
            {
                return;
            }
        }
    })
}

/// Returns the content that an endless response repeats.
fn endless(head: &str) -> Option<&'static [u8]> {
    let answers: [(&str, &[u8]); 4] = [
        ("/poll", b""),
        ("/slow", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"),
        ("/events", b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: x\n\n"),
        ("/socket", b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
    ];
    answers.into_iter().find(|(path, _)| head.contains(path)).map(|(_, answer)| answer)
}

fn pillion(app: &Script, server: &str) -> Pillion {
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = Arc::new(Folder::new());
    folder.write("tls.crt", key.cert.pem());
    folder.write("tls.key", key.signing_key.serialize_pem());
    let config = complete(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nmax_connections = {SEATS}\nworkers = 2\nheader_timeout = \"60s\"\n{server}\
         [server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{{ cert = \"tls.crt\", key = \"tls.key\" }}]\n\
         [upstream]\nurl = \"http://{}\"\n[cache]\nenabled = false\n",
        app.address
    ));
    Pillion::in_folder(folder, &config)
}

/// Opens a connection with small kernel buffers, so that the kernel takes little of what is sent to it.
fn narrow(source: &str, address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(&format!("{source}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let tcp: TcpStream = socket.into();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp
}

/// Returns one of two clients whose connections take all slots, within their shares.
fn client(at: usize) -> &'static str {
    if at == 0 { "127.0.0.3" } else { "127.0.0.1" }
}

/// A way to keep a connection slot. Its second part is sent repeatedly.
struct Way {
    name: &'static str,
    tls: bool,
    sends: Vec<u8>,
    drips: &'static [u8],
}

/// Indexes of `:method: GET` and `POST` (RFC 7541 A), encoded as fields.
pub(crate) const GET_METHOD: u8 = 0x82;
const POST_METHOD: u8 = 0x83;
/// The flags of HEADERS for a complete head; the request may be complete too.
const CONTINUES: u8 = 4;
pub(crate) const ENDS: u8 = 5;

/// Encodes one HTTP/2 frame (RFC 9113 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Returns a client preface whose streams have this initial window.
pub(crate) fn preface(window: u32) -> Vec<u8> {
    let settings = frame(4, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat()
}

/// Encodes the head of a request: the scheme by its index, authority and path as literals.
pub(crate) fn request(stream: u8, method: u8, flags: u8, path: &str) -> Vec<u8> {
    request_with(stream, method, flags, path, b"")
}

fn request_with(stream: u8, method: u8, flags: u8, path: &str, more: &[u8]) -> Vec<u8> {
    let block = [&[method, 0x86, 0x01, 1, b'a', 0x04, path.len() as u8], path.as_bytes(), more].concat();
    frame(1, flags, stream, &block)
}

fn ways() -> Vec<Way> {
    let way = |name, sends: &[u8], drips| Way { name, tls: false, sends: sends.to_vec(), drips };
    let upload = |line: &str| {
        format!("{line} HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\nbegin").into_bytes()
    };
    let h2 = |window, path| [preface(window), request(1, GET_METHOD, ENDS, path)].concat();
    // Content-Length is a literal too (RFC 7541 A, 28).
    let length = [&[0x0f, 13, 6][..], b"900000"].concat();
    let h2_upload = [preface(65_535), request_with(1, POST_METHOD, CONTINUES, "/", &length)].concat();
    vec![
        way("half a head", b"GET / HTTP/1.1\r\nHo", b""),
        way("half a head that drips", b"GET / HTTP/1.1\r\nX: ", b"x"),
        Way { tls: true, ..way("half a TLS handshake", b"\x16\x03\x01\x02\x00\x01", b"") },
        way("half a preface of HTTP/2", b"PRI * HTTP/2.0\r\n", b""),
        way("an upload that stops", &upload("POST /"), b""),
        way("an upload that drips", &upload("POST /"), b"x"),
        way("a response that is not read", b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n", b""),
        way("HTTP/2 with a window of 0", &h2(0, "/long"), b""),
        way("HTTP/2 that is not read", &h2(65_535, "/long"), b""),
        way("an upload of HTTP/2 that stops", &h2_upload, b""),
        way("an upload of HTTP/2 that drips", &h2_upload, b"\x00\x00\x01\x00\x00\x00\x00\x00\x01x"),
    ]
}

/// Sends the repeated part to all connections until it is dropped.
struct Dripping(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Dripping {
    fn new(held: Vec<TcpStream>, drips: &'static [u8]) -> Dripping {
        let done = Arc::new(AtomicBool::new(false));
        let over = done.clone();
        let thread = std::thread::spawn(move || {
            let mut held = held;
            while !over.load(Ordering::SeqCst) {
                held.iter_mut().for_each(|tcp| drop(tcp.write_all(drips)));
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Dripping(done, Some(thread))
    }
}

impl Drop for Dripping {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
        self.1.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn n3_6_connections_that_wait_for_their_client_make_room_for_others() {
    let app = app();
    let mut unserved = Vec::new();
    let hold = |client, address, sends: &[u8]| {
        let mut tcp = narrow(client, address);
        // The connection may be closed as surplus.
        let _ = tcp.write_all(sends);
        tcp
    };
    // Once with the number of connections that there is room for, and once with more, which wait.
    for count in [SEATS, SEATS + 6] {
        for Way { name, tls, sends, drips } in ways() {
            let pillion = pillion(&app, "");
            let address = if tls { pillion.https.unwrap() } else { pillion.http };
            // Another client has the last slot, which is beyond the share of one client.
            let mut held = vec![hold("127.0.0.3", address, &sends)];
            held.extend((1..count).map(|_| hold("127.0.0.1", address, &sends)));
            let _dripping = Dripping::new(held, drips);
            let mut tcp = connect_from("127.0.0.2", pillion.http);
            tcp.set_read_timeout(Some(PROMPT)).unwrap();
            tcp.write_all(GET).unwrap();
            if !tcp.read(&mut [0]).is_ok_and(|count| count == 1) {
                unserved.push((name, count));
            }
        }
    }
    assert!(unserved.is_empty(), "no response in {PROMPT:?} beside these connections: {unserved:?}");
}

/// A connection that is busy with one request is not closed for another client.
#[test]
fn n3_6_a_connection_of_http_2_with_one_request_at_work_stays() {
    let (holding, seen, release) = holding();
    let app = app();
    let pillion = Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nmax_connections = {SEATS}\n[upstream]\nurl = \"http://{}\"\n\
         [upstreams.holding]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"GET /held\"\nupstream = \"holding\"\n[cache]\nenabled = false\n",
        app.address, holding.address
    ));
    let _held: Vec<TcpStream> = (0..SEATS)
        .map(|at| {
            let mut tcp = narrow(client(at), pillion.http);
            tcp.write_all(&preface(0)).unwrap();
            tcp.write_all(&request(1, GET_METHOD, ENDS, "/long")).unwrap();
            tcp.write_all(&request(3, GET_METHOD, ENDS, "/held")).unwrap();
            seen.recv_timeout(PATIENCE).unwrap();
            tcp
        })
        .collect();
    let mut tcp = connect_from("127.0.0.2", pillion.http);
    tcp.write_all(GET).unwrap();
    tcp.set_read_timeout(Some(PROMPT)).unwrap();
    assert!(tcp.read(&mut [0]).is_err(), "it waits for a seat");
    // A connection that is no longer busy makes room.
    release.send(()).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read_answer(&mut tcp).status, 200);
    (1..SEATS).for_each(|_| release.send(()).unwrap());
}

/// A client that reads slowly but steadily keeps its connections.
#[test]
fn n3_6_connections_whose_clients_keep_up_stay() {
    let app = app();
    let pillion = pillion(&app, "");
    let readers: Vec<_> = (0..SEATS)
        .map(|at| {
            let mut tcp = connect_from(client(at), pillion.http);
            tcp.write_all(b"GET /long HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
            std::thread::spawn(move || {
                let (mut size, mut buffer) = (0, vec![0; 1 << 16]);
                loop {
                    match tcp.read(&mut buffer).unwrap() {
                        0 => return size,
                        count => size += count,
                    }
                    // This pause sets the client's rate.
                    std::thread::sleep(Duration::from_millis(8));
                }
            })
        })
        .collect();
    let mut tcp = connect_from("127.0.0.2", pillion.http);
    tcp.write_all(GET).unwrap();
    for reader in readers {
        assert!(reader.join().unwrap() > 16 << 20, "its response is whole");
    }
    assert_eq!(read_answer(&mut tcp).status, 200);
}

/// Connections of trusted proxies carry the requests of many clients, so they are not to blame.
#[test]
fn n3_6_connections_of_trusted_proxies_stay() {
    let app = app();
    let pillion = pillion(&app, "trusted_proxies = [\"127.0.0.1\"]\n");
    let held: Vec<TcpStream> = (0..SEATS)
        .map(|_| {
            let mut tcp = narrow("127.0.0.1", pillion.http);
            tcp.write_all(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            tcp
        })
        .collect();
    let mut tcp = connect_from("127.0.0.2", pillion.http);
    tcp.write_all(GET).unwrap();
    tcp.set_read_timeout(Some(PROMPT)).unwrap();
    assert!(tcp.read(&mut [0]).is_err(), "it waits for a seat");
    for mut tcp in held {
        assert_eq!(read_answer(&mut tcp).body.len(), 16 << 20);
    }
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read_answer(&mut tcp).status, 200);
}

/// A busy connection is never closed, so one client must not get all slots in this way.
#[test]
fn n3_6_one_client_leaves_seats_for_others_whatever_is_at_work_for_it() {
    let app = app();
    let mut unserved = Vec::new();
    for path in ["/poll", "/slow", "/events", "/socket"] {
        let pillion = pillion(&app, "");
        let upgrade = if path == "/socket" { "Connection: upgrade\r\nUpgrade: x\r\n" } else { "" };
        let ask = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n");
        let mut held: Vec<TcpStream> = (0..3 * SEATS)
            .map(|_| {
                let mut tcp = narrow("127.0.0.1", pillion.http);
                // The connection may be closed as surplus.
                let _ = tcp.write_all(ask.as_bytes());
                tcp
            })
            .collect();
        for client in ["127.0.0.2", "127.0.0.4"] {
            let mut tcp = connect_from(client, pillion.http);
            tcp.set_read_timeout(Some(PROMPT)).unwrap();
            tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            let _ = tcp.read_to_end(&mut answer);
            if !answer.starts_with(b"HTTP/1.1 200") {
                unserved.push((path, client));
            }
        }
        let stays = |tcp: &mut TcpStream| {
            tcp.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
            loop {
                match tcp.read(&mut [0; 100]) {
                    Ok(0) => return false,
                    Ok(_) => {}
                    Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
                }
            }
        };
        eventually("seven of eight stay", || {
            let open = held.iter_mut().map(stays).filter(|stays| *stays).count();
            (open == SEATS - 1).then_some(())
        });
        let told = pillion.log().matches("its share of max_connections").count();
        if told != 1 {
            unserved.push((path, "not told once"));
        }
    }
    assert!(unserved.is_empty(), "no response in {PROMPT:?}: {unserved:?}");
}

/// A client that used up its share is served in place of its own idle connections.
#[test]
fn n3_6_a_client_with_its_share_replaces_its_own_idle_connections() {
    let app = app();
    let pillion = pillion(&app, "");
    let mut held = Vec::new();
    for at in 0..4 * SEATS {
        let mut tcp = connect_from("127.0.0.1", pillion.http);
        tcp.write_all(GET).unwrap();
        assert_eq!(read_answer(&mut tcp).status, 200, "{at}");
        held.push(tcp);
        // The connection to be replaced is idle.
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut tcp = connect_from("127.0.0.2", pillion.http);
    tcp.write_all(GET).unwrap();
    assert_eq!(read_answer(&mut tcp).status, 200);
}

/// Small requests that begin and end, without content being read, do not make a connection busy.
#[test]
fn n3_6_small_requests_do_not_hide_that_a_client_does_not_read() {
    let app = app();
    let pillion = pillion(&app, "");
    let mut held: Vec<TcpStream> = (0..SEATS)
        .map(|at| {
            let mut tcp = narrow(client(at), pillion.http);
            tcp.write_all(&preface(0)).unwrap();
            tcp.write_all(&request(1, GET_METHOD, ENDS, "/long")).unwrap();
            tcp
        })
        .collect();
    let done = Arc::new(AtomicBool::new(false));
    let over = done.clone();
    let asking = std::thread::spawn(move || {
        for stream in (3..=255).step_by(2) {
            for tcp in &mut held {
                let _ = tcp.write_all(&request(stream, GET_METHOD, ENDS, "/%zz"));
            }
            if over.load(Ordering::SeqCst) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    // By then they have sent small requests for a while.
    std::thread::sleep(Duration::from_secs(1));
    let mut tcp = connect_from("127.0.0.2", pillion.http);
    tcp.set_read_timeout(Some(2 * PROMPT)).unwrap();
    tcp.write_all(GET).unwrap();
    let served = tcp.read(&mut [0]).is_ok_and(|count| count == 1);
    done.store(true, Ordering::SeqCst);
    asking.join().unwrap();
    assert!(served, "no response beside connections that ask for small things and read nothing");
}
