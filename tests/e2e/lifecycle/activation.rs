//! Tests of sockets that a service manager passes (LISTEN_FDS). The test holds them as systemd does; a small parent puts
//! them in their places and becomes Pillion.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::tools::upstream;
use crate::harness::{
    Folder, PATIENCE, Pillion, Script, binary, complete, eventually, free_address, ok, printed,
};

/// Moves the descriptors of the first argument to 3 and after, sets the variables of the second one for this process, and
/// becomes the command.
const PARENT: &str = "
import fcntl, os, sys
given = [int(number) for number in sys.argv[1].split(',')]
moved = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 100) for number in given]
for number in given:
    os.close(number)
for place, number in enumerate(moved):
    os.dup2(number, 3 + place, inheritable=True)
os.environ['LISTEN_PID'] = str(os.getpid())
os.environ['LISTEN_FDS'] = str(len(given))
for setting in sys.argv[2].split():
    name, value = setting.split('=')
    os.environ[name] = value
os.execv(sys.argv[3], sys.argv[3:])
";

/// Lets children inherit a descriptor, and returns its number.
fn inheritable(descriptor: &impl AsFd) -> RawFd {
    let descriptor = descriptor.as_fd();
    rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty()).unwrap();
    descriptor.as_raw_fd()
}

/// The command of `pillion run` with these descriptors. `variables` are further ones, parted by spaces.
fn activated(folder: &Folder, passed: &[RawFd], variables: &str) -> Command {
    let numbers: Vec<String> = passed.iter().map(RawFd::to_string).collect();
    let mut command = Command::new("python3");
    command.args(["-c", PARENT, &numbers.join(","), variables]).arg(binary());
    command.args(["run", "--config"]).arg(folder.path("pillion.toml")).current_dir(&folder.0);
    command
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn server(listen: SocketAddr, admin: impl std::fmt::Display) -> String {
    format!("[server]\nlisten = [\"{listen}\"]\nadmin = \"{admin}\"\n")
}

#[test]
fn sockets_of_the_service_manager_are_served_and_the_others_are_bound() {
    let app = Script::answering(|_| ok("here"));
    let (http, listen) = listener();
    let (admin, admin_address) = listener();
    let own = free_address();
    let config = format!(
        "[server]\nlisten = [\"{listen}\", \"{own}\"]\nadmin = \"{admin_address}\"\n{}",
        upstream(&app)
    );
    // In another order than that of the keys, one by its name and one by its address.
    for names in ["admin:http", "pillion.socket:pillion.socket", ""] {
        let folder = Arc::new(Folder::new());
        folder.write("pillion.toml", complete(&config));
        let passed = [inheritable(&admin), inheritable(&http)];
        let names = if names.is_empty() { String::new() } else { format!("LISTEN_FDNAMES={names}") };
        let pillion = Pillion::start(folder.clone(), activated(&folder, &passed, &names));
        assert_eq!((pillion.http, pillion.admin), (listen, admin_address), "{names}");
        assert_eq!(pillion.get("/").text(), "here", "{names}");
        assert_eq!(crate::harness::wire::ask(own, "GET /", "").text(), "here", "{names}");
        let log = pillion.log();
        let inherited = |line: &&str| line.contains("listening on a socket of the service manager");
        assert_eq!(log.lines().filter(inherited).count(), 2, "{names}: {log}");
        assert!(log.contains("\"key\":\"server.admin\""), "{log}");
        assert_eq!(pillion.stop().code(), Some(0));
    }
}

/// Connects and asks once after another until it is told to stop.
fn client(address: SocketAddr, stop: &AtomicBool, served: &AtomicUsize, failures: &Mutex<Vec<String>>) {
    while !stop.load(Ordering::Relaxed) {
        let asked = || -> std::io::Result<String> {
            let mut tcp = TcpStream::connect(address)?;
            tcp.set_read_timeout(Some(PATIENCE))?;
            tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
            let mut text = String::new();
            tcp.read_to_string(&mut text)?;
            Ok(text)
        };
        match asked() {
            Ok(text) if text.starts_with("HTTP/1.1 200") && text.ends_with("here") => {
                served.fetch_add(1, Ordering::Relaxed);
            }
            Ok(text) => failures.lock().unwrap().push(format!("{text:?}")),
            Err(error) => failures.lock().unwrap().push(error.to_string()),
        }
    }
}

#[test]
fn restart_under_load_refuses_no_connection() {
    let app = Script::answering(|_| ok("here"));
    let (http, listen) = listener();
    let folder = Arc::new(Folder::new());
    folder.write("pillion.toml", complete(&format!("{}{}", server(listen, "127.0.0.1:0"), upstream(&app))));
    let start =
        || Pillion::start(folder.clone(), activated(&folder, &[inheritable(&http)], "LISTEN_FDNAMES=http"));
    let (stop, served, failures) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let mut pillion = start();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| client(listen, &stop, &served, &failures));
        }
        let more = |count: usize| {
            let before = served.load(Ordering::Relaxed);
            let enough = || served.load(Ordering::Relaxed) >= before + count;
            eventually("clients are served", || {
                (enough() || !failures.lock().unwrap().is_empty()).then_some(())
            });
        };
        for _ in 0..3 {
            more(50);
            // As systemd does it: the old process ends before the new one begins.
            pillion.process.signal("TERM");
            pillion.process.wait();
            pillion = start();
        }
        more(50);
        stop.store(true, Ordering::Relaxed);
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {}: {failures:#?}", failures.len(), served.into_inner());
}

#[test]
fn socket_that_no_listener_can_take_is_an_error_that_names_it() {
    let folder = Folder::new();
    let (http, listen) = listener();
    let (other, other_address) = listener();
    let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = UnixListener::bind(folder.path("socket")).unwrap();
    let connected = TcpStream::connect(other_address).unwrap();
    let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    folder.write(
        "pillion.toml",
        complete(&format!("{}[upstream]\nurl = \"http://127.0.0.1:1\"\n", server(listen, "127.0.0.1:0"))),
    );
    let no_listener = "\"unknown\") is no listening TCP socket";
    let copy = http.try_clone().unwrap();
    let (second, http) = (inheritable(&copy), inheritable(&http));
    let cases: [(&[RawFd], &str, &[&str]); 10] = [
        (
            &[inheritable(&other)],
            "LISTEN_FDNAMES=http",
            &[
                "descriptor 3",
                &other_address.to_string(),
                &format!("server.listen ({listen})"),
                "ListenStream=",
            ],
        ),
        (&[http], "LISTEN_FDNAMES=admin", &["server.admin (127.0.0.1:0)"]),
        (&[http], "LISTEN_FDNAMES=https", &["server.tls.listen (off)"]),
        (&[inheritable(&datagram)], "", &[no_listener, "Accept=no"]),
        (&[inheritable(&local)], "", &[no_listener]),
        (&[inheritable(&connected)], "", &[no_listener, "it does not listen"]),
        (&[inheritable(&file)], "", &[no_listener]),
        (&[http, second], "", &["(descriptor 4)", "is the second one for an address of server.listen"]),
        (&[http], "LISTEN_FDNAMES=a:b", &["LISTEN_FDNAMES has 2 names for 1 sockets"]),
        (&[http], "LISTEN_FDS=65", &["LISTEN_FDS is \"65\"", "from 0 to 64"]),
    ];
    for (passed, variables, parts) in cases {
        let output = activated(&folder, passed, variables).output().unwrap();
        let said = printed(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{variables}: {said}");
        for part in parts {
            assert!(said.contains(part), "{variables}: {part:?} is missing in: {said}");
        }
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn sockets_for_another_process_are_left_alone_and_told() {
    let app = Script::answering(|_| ok("here"));
    let (other, _) = listener();
    let folder = Arc::new(Folder::new());
    let config = format!("{}{}", server(free_address(), "127.0.0.1:0"), upstream(&app));
    folder.write("pillion.toml", complete(&config));
    let pillion = Pillion::start(folder.clone(), activated(&folder, &[inheritable(&other)], "LISTEN_PID=1"));
    assert_eq!(pillion.get("/").text(), "here");
    eventually("the reason is logged", || {
        pillion.log().contains("passed sockets to another process (LISTEN_PID)").then_some(())
    });
}
