//! The tasks of `docs/tasks`: each is done by its commands, as they stand but for addresses, and its transcript is
//! played against the process that they start.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::*;

/// Where the certificate of the domain is, which certbot would write.
const LETSENCRYPT: &str = "/etc/letsencrypt/live/app.example.com";
/// Maximum seconds of one command of a transcript. An upstream is unhealthy after three checks, 5 s apart, or later on a
/// busy machine.
const COMMAND_TIMEOUT: &str = "60";
/// The exit status of `timeout` for a command that took longer.
const TIMED_OUT: i32 = 124;
/// Commands that ask the admin listener.
const ADMIN_COMMANDS: [&str; 3] = ["pillion reload", "pillion maintenance", "pillion health"];

fn tasks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tasks")
}

/// An app that says what it was asked for and counts. `/report` is worth compressing, `/slow` takes its time, and
/// `POST /fail` fails the health check from then on.
fn app(name: &'static str) -> Script {
    let (count, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    Script::answering(move |request| {
        let mut words = request.line.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let mut status = "200 OK";
        let mut content = match (method, target) {
            ("GET", "/healthz") => {
                if failed.load(Ordering::SeqCst) {
                    status = "503 Service Unavailable";
                }
                String::new()
            }
            ("POST", "/fail") => {
                failed.store(true, Ordering::SeqCst);
                format!("POST /fail: /healthz of app {name} fails from now on\n")
            }
            _ => {
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                format!("{method} {target}: response {number} of app {name}\n")
            }
        };
        match target {
            "/report" => content.push_str(&"a line of the report\n".repeat(200)),
            // The reload comes meanwhile.
            "/slow" => std::thread::sleep(Duration::from_millis(300)),
            _ => {}
        }
        let length = content.len();
        let body = if method == "HEAD" { "" } else { &content };
        format!("HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{body}")
            .into()
    })
}

/// A task that is under way: two apps, and Pillion once its command was given.
struct Scene {
    folder: Arc<Folder>,
    apps: [Script; 2],
    pillion: Option<Pillion>,
}

impl Scene {
    /// Puts the files of a task into a folder, with free ports for its own.
    fn new(task: &Path) -> Scene {
        let scene =
            Scene { folder: Arc::new(Folder::new()), apps: [app("3000"), app("3001")], pillion: None };
        let folder = &scene.folder;
        // The command `pillion`, whatever the binary under test is called.
        std::fs::create_dir(folder.path("bin")).unwrap();
        std::os::unix::fs::symlink(binary(), folder.path("bin/pillion")).unwrap();
        if let Ok(config) = std::fs::read_to_string(task.join("pillion.toml")) {
            let mut text =
                String::from("server.listen = [\"127.0.0.1:0\"]\nserver.admin = \"127.0.0.1:0\"\n");
            if config.contains("server.tls.") {
                let (key, cert) = (folder.path("key.pem"), folder.path("cert.pem"));
                let names =
                    ["-subj", "/CN=app", "-addext", "subjectAltName=DNS:app.example.com", "-days", "60"];
                let kind =
                    ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
                let files = ["-keyout", key.to_str().unwrap(), "-out", cert.to_str().unwrap()];
                run("openssl", &[&kind[..], &names, &files].concat());
                std::fs::copy(&key, folder.path("privkey.pem")).unwrap();
                std::fs::copy(&cert, folder.path("fullchain.pem")).unwrap();
                if !config.contains("server.tls.listen") {
                    text.push_str("server.tls.listen = [\"127.0.0.1:0\"]\n");
                }
            }
            text.push_str(&scene.in_reach(&config));
            folder.write("pillion.toml", text);
        }
        scene
    }

    /// Replaces addresses and paths by those of this scene.
    fn in_reach(&self, text: &str) -> String {
        let mut text = text
            .replace("[::]:443", "127.0.0.1:0")
            .replace(LETSENCRYPT, self.folder.0.to_str().unwrap())
            .replace("--upstream 3000", &format!("--upstream {}", self.apps[0].address));
        for (port, app) in ["3000", "3001"].iter().zip(&self.apps) {
            for host in ["localhost", "127.0.0.1"] {
                text = text.replace(&format!("{host}:{port}"), &app.address.to_string());
            }
        }
        let Some(pillion) = &self.pillion else { return text };
        for command in ADMIN_COMMANDS {
            text = text.replace(command, &format!("{command} --admin {}", pillion.admin));
        }
        let https = pillion.https.unwrap_or(pillion.http);
        text.replace("localhost:8080", &pillion.http.to_string())
            .replace("localhost:9900", &pillion.admin.to_string())
            .replace("localhost:8443", &https.to_string())
            .replace("localhost:443", &https.to_string())
    }

    /// Gives a command of `pillion.sh`.
    fn give(&mut self, line: &str) {
        if line.starts_with("certbot ") {
            // Its files are there already.
            return;
        }
        if !line.starts_with("pillion run") {
            let (text, errors, good) = self.shell(line);
            assert!(good, "{line}\n{text}\n{errors}");
            return;
        }
        let line = self.in_reach(line);
        let mut command = Command::new(binary());
        command.args(line.split_whitespace().skip(1)).current_dir(&self.folder.0);
        if !self.folder.path("pillion.toml").exists() {
            command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        }
        let pillion = Pillion::start(self.folder.clone(), command);
        pillion.wait_until_ready();
        self.pillion = Some(pillion);
    }

    /// Runs a line in the folder. Returns its output, its errors, and whether it succeeded.
    fn shell(&self, line: &str) -> (String, String, bool) {
        let path = format!("{}:{}", self.folder.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("timeout");
        command.args([COMMAND_TIMEOUT, "sh", "-c", &self.in_reach(line)]);
        let output = command.current_dir(&self.folder.0).env("PATH", path).output().unwrap();
        assert!(output.status.code() != Some(TIMED_OUT), "it took {COMMAND_TIMEOUT} s: {line}");
        let text = |bytes: &[u8]| printed(bytes).replace('\r', "");
        (text(&output.stdout), text(&output.stderr), output.status.success())
    }
}

/// Whether a text is as a pattern says, in which `...` stands for any text.
fn is_like(text: &str, pattern: &str) -> bool {
    let (mut rest, mut parts) = (text, pattern.split("..."));
    let Some(after) = rest.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    rest = after;
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Each command of a transcript, with the output that it shows.
fn transcript(text: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push((command.to_owned(), String::new())),
            (None, Some((_, output))) => output.extend([line, "\n"]),
            (None, None) => panic!("a transcript begins with a command: {line}"),
        }
    }
    steps
}

fn play(name: &str) {
    let task = tasks().join(name);
    let mut scene = Scene::new(&task);
    for line in std::fs::read_to_string(task.join("pillion.sh")).unwrap().lines() {
        scene.give(line);
    }
    let steps = transcript(&std::fs::read_to_string(task.join("transcript.txt")).unwrap());
    assert!(!steps.is_empty(), "{name} shows nothing");
    for (command, expected) in steps {
        let ((said, errors, _), expected) = (scene.shell(&command), scene.in_reach(&expected));
        assert!(
            is_like(said.trim_end(), expected.trim_end()),
            "{name}: {command}\n--- expected\n{expected}--- got\n{said}--- errors\n{errors}"
        );
    }
}

/// Makes the tests, and the list of them.
macro_rules! tasks {
    ($($test:ident => $name:literal;)+) => {
        cases! {
            play:
            $($test => $name;)+
        }

        #[test]
        fn every_task_of_the_documents_is_played() {
            let entries = std::fs::read_dir(tasks()).unwrap().map(|entry| entry.unwrap());
            let folders: BTreeSet<String> = entries
                .filter(|entry| entry.path().is_dir())
                .map(|entry| entry.file_name().into_string().unwrap())
                .collect();
            assert_eq!(folders, [$($name),+].map(str::to_owned).into());
            assert_eq!(folders.len(), 15);
        }
    };
}

tasks! {
    an_app_behind_a_proxy_responds => "01-proxy";
    compression_goes_by_what_the_client_accepts => "02-compression";
    cached_responses_are_the_same_for_all => "03-cache";
    cached_responses_of_users_stay_apart => "04-cache-per-user";
    a_limit_per_client_refuses_what_is_beyond => "05-limit-per-client";
    a_limit_by_api_key_follows_its_tier => "06-limit-by-api-key";
    a_redirect_and_a_stripped_prefix_lead_where_they_say => "07-redirect-and-strip";
    certificate_files_serve_https => "08-tls-files";
    a_certificate_of_certbot_serves_https => "09-tls-for-a-domain";
    security_headers_are_on_each_response => "10-security-headers";
    an_app_that_fails_its_check_gets_no_requests => "11-two-upstreams";
    a_path_for_a_network_is_refused_to_others => "12-allow-by-address";
    maintenance_is_503_until_it_is_off => "13-maintenance";
    metrics_count_requests => "14-metrics";
    a_changed_file_is_loaded_without_cutting_a_request => "15-test-and-reload";
}

#[test]
fn a_pattern_stands_for_texts() {
    for (text, pattern, like) in [
        ("", "", true),
        ("a", "a", true),
        ("a", "b", false),
        ("ab", "a", false),
        ("abc", "a...", true),
        ("abc", "...c", true),
        ("abc", "...b", false),
        ("abc", "a...c", true),
        ("a\nb\nc", "a...c", true),
        ("abcd", "a...c...d", true),
        ("abcd", "a...d...c", false),
        ("anything", "...", true),
    ] {
        assert_eq!(is_like(text, pattern), like, "{text:?} {pattern:?}");
    }
}
