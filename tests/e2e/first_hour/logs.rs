//! Lines for people and for machines, and files that are rotated.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::harness::{Folder, Pillion, Process, Script, binary, eventually, exchange, free_address};

/// Starts a process whose standard output and standard error are files in `folder`.
fn into_files(
    folder: &Folder,
    app: &Script,
    args: &[&str],
    log: &str,
    environment: &[(&str, &str)],
) -> (Process, std::net::SocketAddr) {
    let address = free_address();
    let config = format!(
        "[server]\nlisten = \"{address}\"\nadmin = \"\"\n[upstream]\nurl = \"http://{}\"\n[log]\n{log}\n",
        app.address
    );
    let file = folder.write("pillion.toml", config);
    let mut command = Command::new(binary());
    command
        .args(["run", "--config"])
        .arg(file)
        .args(args)
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    command.stdout(File::create(folder.path("access.log")).unwrap());
    command.stderr(File::create(folder.path("error.log")).unwrap());
    let process = Process(command.spawn().unwrap());
    eventually("it listens", || TcpStream::connect(address).is_ok().then_some(()));
    (process, address)
}

fn get(address: std::net::SocketAddr, path: &str) {
    let answer = exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    assert_eq!(answer.status, 200);
}

fn text(folder: &Folder, name: &str) -> String {
    std::fs::read_to_string(folder.path(name)).unwrap_or_default()
}

#[test]
fn line_for_people_has_a_hundred_columns_in_local_time() {
    let (app, folder) = (Script::echo(), Folder::new());
    // Half an hour and more off: a zone that no machine of a test has.
    let zone = [("TZ", "XXX-7:33")];
    let (_process, address) = into_files(&folder, &app, &[], "format = \"pretty\"", &zone);
    let long = format!("/long{}", "/a".repeat(200));
    get(address, "/short?token=S3CRET");
    get(address, &long);
    let log =
        eventually("two lines", || Some(text(&folder, "access.log")).filter(|log| log.lines().count() == 2));
    let line = |part: &str| log.lines().find(|line| line.contains(part)).unwrap();
    // Two workers may write them in either order.
    let (short, long) = (line(" /short"), line(" /long"));
    assert!(short.contains(" 200 ") && short.contains(" GET    /short?token=*** "), "{short}");
    assert!(long.contains(" GET    /long/a/a") && long.contains('\u{2026}'), "{long}");
    assert!(log.lines().all(|line| line.chars().count() <= 100), "{log}");
    let shown = Command::new("date").env("TZ", "XXX-7:33").arg("+%H:%M").output().unwrap();
    let now = String::from_utf8(shown.stdout).unwrap();
    let minutes = |time: &str| time[..2].parse::<i32>().unwrap() * 60 + time[3..5].parse::<i32>().unwrap();
    let late = (minutes(&now) - minutes(short)).rem_euclid(24 * 60);
    assert!(late <= 2, "{short}, and it is {now}");
}

#[test]
fn verbose_line_for_people_has_all_values() {
    let (app, folder) = (Script::echo(), Folder::new());
    for (args, environment) in
        [(&["--verbose"][..], &[][..]), (&["-v"], &[]), (&[], &[("PILLION_VERBOSE", "1")])]
    {
        let (_process, address) = into_files(&folder, &app, args, "format = \"pretty\"", environment);
        get(address, "/a");
        let log = eventually("a line", || Some(text(&folder, "access.log")).filter(|log| !log.is_empty()));
        assert!(
            log.contains(" protocol=HTTP/1.1 request_id=") && log.contains(" upstream_ms="),
            "{args:?}: {log}"
        );
    }
}

#[test]
fn json_lines_of_both_kinds_begin_alike() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    assert_eq!(pillion.get("/a").status, 200);
    let line = pillion.access("the request", |line| line["path"] == "/a");
    assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"GET unmatched 200".into()), "{line}");
    let lines = pillion.access_log() + &pillion.log();
    let begin = |line: &str| {
        let names: Vec<&str> = line.split('"').skip(1).step_by(2).step_by(2).take(3).collect();
        names.join(" ")
    };
    let begins: BTreeSet<String> = lines.lines().map(begin).collect();
    assert_eq!(begins, BTreeSet::from(["time level message".to_owned()]), "{lines}");
}

#[test]
fn log_file_that_was_renamed_is_opened_again_on_sigusr1() {
    let (app, folder) = (Script::echo(), Folder::new());
    let (process, address) = into_files(&folder, &app, &[], "format = \"json\"", &[]);
    get(address, "/before");
    eventually("the first line", || text(&folder, "access.log").contains("/before").then_some(()));
    for name in ["access.log", "error.log"] {
        std::fs::rename(folder.path(name), folder.path(&format!("{name}.1"))).unwrap();
    }
    get(address, "/renamed");
    eventually("it goes where the file went", || {
        text(&folder, "access.log.1").contains("/renamed").then_some(())
    });
    process.signal("USR1");
    eventually("both are there", || {
        text(&folder, "error.log").contains("log file opened again").then_some(())
    });
    get(address, "/after");
    eventually("the next line", || text(&folder, "access.log").contains("/after").then_some(()));
    assert!(!text(&folder, "access.log.1").contains("/after"));
    assert!(!text(&folder, "access.log").contains("/before"));
}

#[test]
fn requests_that_name_no_user_are_told_once_with_what_they_carry() {
    let app = Script::echo();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"GET /mine\"\ncache = {{ ttl = \"1m\", scope = \"user\" }}\n",
        app.address
    ));
    let ask = || {
        let fields = "Host: a\r\nCookie: theme=S3CRET\r\nX-Visitor: S3CRET\r\nConnection: close";
        exchange(pillion.http, &format!("GET /mine HTTP/1.1\r\n{fields}\r\n\r\n"))
    };
    let told = || pillion.log().lines().filter(|line| line.contains("named no user")).count();
    for _ in 0..99 {
        assert_eq!(ask().status, 200);
    }
    assert_eq!(told(), 0);
    for _ in 0..20 {
        assert_eq!(ask().status, 200);
    }
    eventually("it is told", || (told() == 1).then_some(()));
    let log = pillion.log();
    let line = log.lines().find(|line| line.contains("named no user")).unwrap();
    for part in
        ["\"route\":\"/mine\"", "\"cookies\":\"theme\"", "\"fields\":\"x-visitor\"", "identity.principal"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!log.contains("S3CRET"), "{log}");
}
