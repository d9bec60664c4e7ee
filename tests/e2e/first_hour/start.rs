//! Tests of a start: its one line, and its message if it fails.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::pillion;
use crate::harness::{
    Folder, Pillion, Process, Script, binary, connect, eventually, free_address, head, printed,
};

#[test]
fn start_without_a_file_says_where_it_looked() {
    let output = pillion(&Folder::new(), &["run"], &[], "");
    assert_eq!(output.status.code(), Some(1));
    let said = printed(&output.stderr);
    for part in ["./pillion.toml", "/etc/pillion/pillion.toml", "--upstream URL", "`pillion init`"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn start_says_all_parts_in_one_event() {
    let app = Script::echo();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"GET /a\"\ntimeout = \"1s\"\n",
        app.address
    ));
    let started = eventually("the event", || {
        let log = pillion.log();
        let mut events = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        events.find(|event| event["message"] == "started")
    });
    assert_eq!(started["upstreams"], format!("http://{}", app.address), "{started}");
    assert_eq!(started["listeners"], format!("http://localhost:{}", pillion.http.port()), "{started}");
    assert_eq!(started["page"], format!("http://localhost:{}/", pillion.admin.port()), "{started}");
    assert_eq!(started["routes"], 1, "{started}");
    assert!(started["file"].as_str().unwrap().ends_with("/pillion.toml"), "{started}");
    assert!(started["version"].is_string() && started["time"].is_string(), "{started}");
}

/// Starts a process with lines for people.
fn for_people(
    folder: &Folder,
    config: &str,
    environment: &[(&str, &str)],
) -> (Process, std::net::SocketAddr) {
    let address = free_address();
    let server = format!("[server]\nlisten = \"{address}\"\nadmin = \"\"\n[log]\nformat = \"pretty\"\n");
    let file = folder.write("pillion.toml", server + config);
    let mut command = Command::new(binary());
    command.args(["run", "--config"]).arg(file).envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let process = Process(command.spawn().unwrap());
    eventually("it listens", || TcpStream::connect(address).is_ok().then_some(()));
    (process, address)
}

fn ended(mut process: Process) -> (String, String) {
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
    let (mut out, mut err) = (String::new(), String::new());
    process.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    process.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (out, err)
}

#[test]
fn start_says_one_line_to_people() {
    let folder = Folder::new();
    let (process, address) = for_people(&folder, "[upstream]\nurl = \"http://10.0.0.1:9\"\n", &[]);
    let (_, said) = ended(process);
    let first = said.lines().find(|line| line.starts_with("Pillion ")).unwrap();
    assert!(said.find("Pillion ") < said.find("draining"), "{said}");
    let begin = format!(
        "Pillion {} on http://localhost:{} -> http://10.0.0.1:9, 0 routes (",
        env!("CARGO_PKG_VERSION"),
        address.port()
    );
    assert!(first.starts_with(&begin) && first.ends_with("/pillion.toml), no admin listener"), "{said}");
    assert!(!said.contains("listening"), "{said}");
    assert!(!said.contains('\u{1b}'), "no terminal, no color: {said}");
}

#[test]
fn variable_that_is_no_option_is_told_once() {
    let folder = Folder::new();
    let variables = [
        ("PILLION_UPSTRAEM", "x"),
        ("PILLION_PORT", "tcp://10.0.0.7:8080"),
        ("PILLION_PORT_8080_TCP_ADDR", "10.0.0.7"),
        ("PILLION_SERVICE_HOST", "10.0.0.7"),
        ("PILLION_ZONE", "b"),
    ];
    let config = "[upstream]\nurl = \"http://10.0.0.1:9\"\n[[routes]]\nmatch = \"GET /\"\nset_response = { x-zone = \"${PILLION_ZONE}\" }\n";
    let (process, _) = for_people(&folder, config, &variables);
    process.signal("HUP");
    eventually("it is applied", || {
        let output = Command::new(binary()).args(["--version"]).output().unwrap();
        output.status.success().then_some(())
    });
    let (_, said) = ended(process);
    assert_eq!(said.matches("PILLION_UPSTRAEM is no option").count(), 1, "{said}");
    assert!(
        !said.contains("PILLION_PORT") && !said.contains("PILLION_SERVICE") && !said.contains("PILLION_ZONE"),
        "{said}"
    );
}

#[test]
fn stop_says_how_many_requests_it_waits_for() {
    let app = Script::new(|mut tcp| {
        if head(&mut tcp).is_some() {
            // Until Pillion closes the connection.
            let _ = tcp.read(&mut [0]);
        }
    });
    let folder = Arc::new(Folder::new());
    let pillion = Pillion::in_folder(folder, &format!("[upstream]\nurl = \"http://{}\"\n", app.address));
    let mut waits: Vec<TcpStream> = (0..2).map(|_| connect(pillion.http)).collect();
    for tcp in &mut waits {
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    }
    eventually("both wait", || (pillion.metric("pillion_http_requests_in_flight") == 2.0).then_some(()));
    pillion.process.signal("INT");
    let said = "stopping: waiting for 2 requests in flight; a second signal (Ctrl-C) stops at once";
    eventually("it says so", || pillion.log().contains(said).then_some(()));
    let mut pillion = pillion;
    pillion.process.signal("INT");
    assert_eq!(pillion.process.wait().code(), Some(0));
}
