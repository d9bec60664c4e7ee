//! Tests of what deployments rely on: commands for probes and packagers, and notifications to supervisors.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use crate::harness::*;

fn pillion(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", printed(&output.stdout), printed(&output.stderr))
}

#[test]
fn health_tells_probes_by_its_exit_status() {
    let app = Script::echo();
    let running = Pillion::in_front_of(app.address);
    let admin = running.admin.to_string();
    running.wait_until_ready();
    for arguments in [&[][..], &["--live"], &["--ready"], &["memory"]] {
        let output = pillion(&[&["health", "--admin", &admin], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    }
    let output = pillion(&["health", "--admin", &admin, "workers"]);
    assert!(said(&output).starts_with("healthy"), "{}", said(&output));
    let output = pillion(&["health", "--admin", &admin, "wrokers"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(pillion(&["drain", "--admin", &admin]).status.code(), Some(0));
    assert_eq!(pillion(&["health", "--admin", &admin, "--ready"]).status.code(), Some(1));
    assert_eq!(pillion(&["health", "--admin", &admin, "--live"]).status.code(), Some(0));

    let sick = Pillion::with(&format!("[upstream]\nurl = \"http://{}\"\n", absent_app()));
    let admin = sick.admin.to_string();
    let output = eventually("its app is found to be down", || {
        sick.get("/");
        let output = pillion(&["health", "--admin", &admin]);
        (output.status.code() == Some(1)).then_some(output)
    });
    assert!(said(&output).contains("upstream unhealthy"), "{}", said(&output));
    assert_eq!(sick.stop().code(), Some(0));
    let output = pillion(&["health", "--admin", &admin]);
    assert_eq!(output.status.code(), Some(1), "nobody is there");
    assert!(said(&output).contains(&admin), "{}", said(&output));
}

#[test]
fn health_asks_where_probes_ask_if_there_is_no_admin_listener() {
    let app = Script::echo();
    let probes = free_address();
    let folder = Arc::new(Folder::new());
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"\"\nprobes = \"{probes}\"\n[upstream]\nurl = \"http://{}\"\n",
        app.address
    );
    let file = folder.write("pillion.toml", text);
    let file = file.to_str().unwrap();
    let child = Command::new(binary())
        .args(["run", "--config", file])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _process = Process(child);
    eventually("it is well", || {
        (pillion(&["health", "--config", file]).status.code() == Some(0)).then_some(())
    });
    let output = pillion(&["drain", "--config", file]);
    assert_eq!(output.status.code(), Some(1), "probes take no orders: {}", said(&output));
}

#[test]
fn quit_ends_it_as_sigterm_does() {
    let app = Script::echo();
    let mut running = Pillion::in_front_of(app.address);
    let admin = running.admin.to_string();
    let output = pillion(&["quit", "--admin", &admin]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(running.process.wait().code(), Some(0));
}

#[test]
fn packagers_get_completions_and_a_man_page() {
    for shell in ["bash", "zsh", "fish"] {
        let output = pillion(&["completions", shell]);
        assert!(output.status.success() && said(&output).contains("explain"), "{shell}");
    }
    let page = said(&pillion(&["man"]));
    for part in [".TH PILLION 1", "pillion keys add", "\\-\\-upstream"] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

#[test]
fn systemd_is_told() {
    let app = Script::echo();
    let folder = Arc::new(Folder::new());
    let socket = folder.path("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut message = [0u8; 4096];
        let length = systemd.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let wait_for = |word: &str| loop {
        let message = hear();
        if message.lines().any(|line| line.starts_with(word)) {
            return message;
        }
        assert_eq!(message.trim(), "WATCHDOG=1", "{word}");
    };
    let text = format!("[upstream]\nurl = \"http://{}\"\n", app.address);
    let path = folder.write("pillion.toml", complete(&text));
    let mut command = Command::new(binary());
    command.args(["run", "--config"]).arg(&path);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "3000000");
    let running = Pillion::start(folder.clone(), command);
    assert!(wait_for("READY=1").contains("STATUS=serving by configuration 1"));
    wait_for("WATCHDOG=1");

    running.process.signal("HUP");
    assert!(wait_for("RELOADING=1").contains("MONOTONIC_USEC="));
    assert!(wait_for("READY=1").contains("configuration 2"));
    folder.write("pillion.toml", "[upstream]\nulr = \"\"\n");
    running.process.signal("HUP");
    wait_for("RELOADING=1");
    assert!(wait_for("READY=1").contains("rejected"));
    assert_eq!(running.stop().code(), Some(0));
    wait_for("STOPPING=1");
}
