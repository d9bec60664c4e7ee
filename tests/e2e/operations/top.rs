//! Tests of `pillion top` on the real binary: the table of `--once`, and the repainted screen on a pseudo-terminal.

use std::process::{Command, Stdio};

use crate::harness::*;

/// Runs the command on a pseudo-terminal of 80 columns and 24 rows. It sends each key when the text before it is on
/// the screen, prints everything the command wrote, then the exit status, and whether the mode of the terminal is the
/// former one. A key `TERM` is the signal.
const ON_TERMINAL: &str = r#"
import fcntl, os, select, signal, struct, subprocess, sys, termios, time
steps, command = sys.argv[1].split("|"), sys.argv[2:]
leader, follower = os.openpty()
fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
before = termios.tcgetattr(follower)
child = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, start_new_session=True)
written, seen, end = b"", 0, time.monotonic() + 30
def more():
    global written
    if select.select([leader], [], [], 0.1)[0]:
        written += os.read(leader, 65536)
    assert time.monotonic() < end, written.decode()
for step in steps:
    text, key = step.split("=>")
    while text.encode() not in written[seen:]:
        more()
    seen = len(written)
    if key == "TERM":
        child.send_signal(signal.SIGTERM)
    else:
        os.write(leader, key.encode())
while child.poll() is None:
    more()
while select.select([leader], [], [], 0.2)[0]:
    more()
print(written.decode())
print("exit", child.returncode, "restored", termios.tcgetattr(follower) == before)
"#;

fn started() -> (Pillion, Script) {
    let app = Script::answering(|request| match request.line.contains("/broken") {
        true => b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n".to_vec(),
        false => ok("fine"),
    });
    let config = Config::new(app.address)
        .route("GET /stored/{id}", "cache = { ttl = \"1h\", scope = \"shared\" }")
        .route("GET /broken", "");
    let pillion = config.start();
    for path in ["/stored/1", "/stored/1", "/stored/1", "/stored/1", "/broken"] {
        pillion.get(path);
    }
    eventually("the requests are counted", || {
        let routes = pillion.admin_get("/performance/routes?window=1m").json();
        (routes["total"]["count"] == 5).then_some(())
    });
    (pillion, app)
}

fn once(admin: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.args(["top", "--admin", admin]).args(args).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn once_prints_state_routes_and_sections() {
    let (pillion, app) = started();
    let (code, table, errors) = once(&pillion.admin.to_string(), &["--once", "--sort", "errors"]);
    assert_eq!((code, &*errors), (Some(0), ""), "{table}");
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with(&format!("pillion {}: ready, healthy; up ", env!("CARGO_PKG_VERSION"))),
        "{table}"
    );
    assert!(lines[1].contains("errors 20.0 %") && lines[1].contains("hits 60.0 %"), "{table}");
    let at = |begin: &str| {
        lines.iter().position(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{begin}: {table}"))
    };
    assert!(at("/broken") < at("/stored/{id}"), "{table}");
    assert!(
        lines[at("/broken")].contains("100.0 %") && lines[at("/stored/{id}")].contains("75.0 %"),
        "{table}"
    );
    assert!(table.contains(&app.address.to_string()) && table.contains("hit 3"), "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
    let (_, table, _) = once(&pillion.admin.to_string(), &["--once", "--filter", "stored"]);
    assert!(table.contains("/stored/{id}") && !table.contains("/broken"), "{table}");
}

#[test]
fn process_that_cannot_be_reached_is_an_error() {
    let (code, table, errors) = once("127.0.0.1:1", &["--once"]);
    assert_eq!((code, &*table), (Some(1), ""));
    assert!(errors.starts_with("pillion: cannot reach the admin listener at 127.0.0.1:1: "), "{errors}");
}

#[test]
fn screen_without_a_terminal_is_an_error() {
    let (pillion, _app) = started();
    let (code, _, errors) = once(&pillion.admin.to_string(), &[]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("pillion top --once prints a table"), "{errors}");
}

#[track_caller]
fn ends_restored(steps: &str) {
    let (pillion, _app) = started();
    let admin = pillion.admin.to_string();
    let shown = run(
        "python3",
        &["-c", ON_TERMINAL, steps, binary(), "top", "--admin", &admin, "--interval", "200ms"],
    );
    assert!(shown.trim_end().ends_with("exit 0 restored True"), "{shown}");
    assert!(shown.contains("\u{1b}[?1049h") && shown.contains("\u{1b}[?1049l"), "{shown}");
}

cases! { ends_restored:
    keys_sort_filter_pause_and_quit => "by load=>s|by time=>/|filter: =>brok\r|filter brok=>p|paused=>h|q quit=>q";
    ctrl_c_quits => "/stored/{id}=>\u{3}";
    terminate_restores_the_terminal => "/broken=>TERM";
}
