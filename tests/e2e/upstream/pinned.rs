//! Tests of apps that authenticate whole connections.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::tools::ONE_WORKER;
use crate::harness::{Answer, Pillion, Request, Script, connect, eventually, printed, read_answer};

/// Starts an app that challenges the first message, accepts the second of the same user, and then gives the user's page
/// to any request on the connection. `open` counts its connections.
fn app(open: Arc<AtomicUsize>) -> Script {
    Script::new(move |mut tcp| {
        open.fetch_add(1, Ordering::SeqCst);
        let (mut challenged, mut user) = (None, None);
        while let Some(request) = Request::read(&mut tcp) {
            let credential = request.field("authorization").and_then(|value| value.split_once(' '));
            let message = credential.and_then(|(_, message)| message.split_once('-'));
            match message {
                Some((name, "1")) => (challenged, user) = (Some(name.to_owned()), None),
                Some((name, "3")) if challenged.as_deref() == Some(name) => user = Some(name.to_owned()),
                Some(_) => user = None,
                None => {}
            }
            let answer = match &user {
                Some(user) => format!(
                    "HTTP/1.1 200 OK\r\ncache-control: public, max-age=60\r\ncontent-length: {}\r\n\r\npage of {user}",
                    "page of ".len() + user.len()
                ),
                None => "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: NTLM c2VydmVy\r\ncontent-length: 0\r\n\r\n".to_owned(),
            };
            if tcp.write_all(answer.as_bytes()).is_err() {
                break;
            }
        }
        open.fetch_sub(1, Ordering::SeqCst);
    })
}

fn get(tcp: &mut TcpStream, credential: &str) -> Answer {
    let field =
        if credential.is_empty() { String::new() } else { format!("authorization: {credential}\r\n") };
    write!(tcp, "GET /page HTTP/1.1\r\nhost: a\r\n{field}\r\n").unwrap();
    read_answer(tcp)
}

fn log_in(pillion: &Pillion, scheme: &str, name: &str) -> TcpStream {
    let mut tcp = connect(pillion.http);
    assert_eq!(get(&mut tcp, &format!("{scheme} {name}-1")).status, 401);
    let answer = get(&mut tcp, &format!("{scheme} {name}-3"));
    assert_eq!((answer.status, answer.text()), (200, format!("page of {name}")));
    tcp
}

#[test]
fn n1_7_a_connection_that_was_authenticated_belongs_to_one_client_connection() {
    for scheme in ["NTLM", "Negotiate", "negotiate"] {
        let open: Arc<AtomicUsize> = Arc::default();
        let app = app(open.clone());
        let pillion = Pillion::with(&format!(
            "{ONE_WORKER}[upstream]\nurl = \"http://{}\"\nmax_connections = 1\nqueue_timeout = \"100ms\"\nkeep_alive = \"60s\"\n",
            app.address
        ));
        let mut alice = log_in(&pillion, scheme, "alice");
        // Nothing is held without a request, so other clients get the slot.
        let mut stranger = connect(pillion.http);
        assert_eq!(get(&mut stranger, "").status, 401, "{scheme}: a stranger is not alice");
        let mut bob = log_in(&pillion, scheme, "bob");
        for _ in 0..3 {
            for (tcp, name) in [(&mut alice, "alice"), (&mut bob, "bob")] {
                let answer = get(tcp, "");
                assert_eq!((answer.status, answer.text()), (200, format!("page of {name}")), "{scheme}");
                let said = answer.field("cache-status").unwrap();
                assert!(said.contains("fwd=bypass"), "{scheme}: {said}");
            }
            assert_eq!(get(&mut stranger, "").status, 401, "{scheme}");
        }
        let before = open.load(Ordering::SeqCst);
        drop(alice);
        eventually("alice's connection to the app ends with hers", || {
            (open.load(Ordering::SeqCst) == before - 1).then_some(())
        });
        assert_eq!(get(&mut bob, "").text(), "page of bob");
    }
}

#[test]
fn n1_7_a_stored_response_is_not_given_to_an_authenticated_connection() {
    let app = Script::answering(|request| {
        let who = request.field("authorization").unwrap_or("nobody").to_owned();
        format!(
            "HTTP/1.1 200 OK\r\ncache-control: public, max-age=60\r\ncontent-length: {}\r\n\r\n{who}",
            who.len()
        )
        .into_bytes()
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut stranger = connect(pillion.http);
    assert_eq!(get(&mut stranger, "").text(), "nobody");
    assert!(get(&mut stranger, "").field("cache-status").unwrap().contains("hit"));
    let mut alice = connect(pillion.http);
    assert_eq!(get(&mut alice, "NTLM alice-1").text(), "NTLM alice-1", "not what is stored");
    assert!(get(&mut alice, "").field("cache-status").unwrap().contains("fwd=bypass"));
    assert_eq!(get(&mut stranger, "").text(), "nobody");
    let explained = std::process::Command::new(crate::harness::binary())
        .args(["explain", "GET", "/page", "-H", "Authorization: Negotiate YII", "--config"])
        .arg(pillion.folder.path("pillion.toml"))
        .output()
        .unwrap();
    let said = printed(&explained.stdout);
    assert!(said.contains("authenticated as a whole"), "{said}");
}

fn first_of(pillion: &Pillion, client: usize, number: usize) -> TcpStream {
    let mut tcp = connect(pillion.http);
    let credential = format!("NTLM user{number}-1\r\nx-forwarded-for: 192.0.2.{client}");
    assert_eq!(get(&mut tcp, &credential).status, 401);
    tcp
}

/// With N = 100 connections, the idle connections at the app are bounded, and one client's share leaves room for
/// others.
#[test]
fn n3_4_connections_that_wait_are_bounded_for_all_and_for_one_client() {
    let open: Arc<AtomicUsize> = Arc::default();
    let app = app(open.clone());
    let pillion = Pillion::with(&format!(
        "{ONE_WORKER}trusted_proxies = [\"127.0.0.1/32\"]\n[upstream]\nurl = \"http://{}\"\nmax_connections = 1\nkeep_alive = \"0s\"\n",
        app.address
    ));
    let waiting = || open.load(Ordering::SeqCst);
    let greedy: Vec<TcpStream> = (0..100).map(|number| first_of(&pillion, 1, number)).collect();
    eventually("seven eighths of 64 are kept", || (waiting() == 56).then_some(()));
    // Clients may share a slot by chance; of eight, only a few do.
    let others: Vec<TcpStream> = (0..8).map(|number| first_of(&pillion, 2 + number, number)).collect();
    eventually("those of others are kept too", || (waiting() > 56 + 4).then_some(()));
    let many: Vec<TcpStream> = (0..40).map(|number| first_of(&pillion, 20 + number, number)).collect();
    eventually("64 of all", || (waiting() == 64).then_some(()));
    drop((greedy, others, many));
    eventually("none is kept", || (waiting() == 0).then_some(()));
    // Their slots are free again.
    let mut alice = log_in(&pillion, "NTLM", "alice");
    assert_eq!(get(&mut alice, "").text(), "page of alice");
}
