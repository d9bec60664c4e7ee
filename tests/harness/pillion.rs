//! Pillion under test: its process, its listeners and its output.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::texts::known;
use super::{Answer, Folder, Process, binary, eventually, exchange};

/// A Pillion process that is running.
pub(crate) struct Pillion {
    pub process: Process,
    pub folder: Arc<Folder>,
    /// The address of the cleartext listener.
    pub http: SocketAddr,
    /// The address of the TLS listener.
    pub https: Option<SocketAddr>,
    pub admin: SocketAddr,
    pub probes: Option<SocketAddr>,
    stderr: Arc<Mutex<String>>,
    stdout: Arc<Mutex<String>>,
}

fn gather(from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let into = text.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            let mut text = into.lock().unwrap();
            let _ = writeln!(text, "{}", known(line));
        }
    });
    text
}

impl Pillion {
    /// Starts Pillion in front of `upstream` with a minimal configuration.
    pub(crate) fn in_front_of(upstream: impl std::fmt::Display) -> Pillion {
        Pillion::with(&format!("[upstream]\nurl = \"http://{upstream}\"\n"))
    }

    /// Starts Pillion with a configuration. Without a `[server]`, one with free ports is added. With one, the test must
    /// set `listen` and `admin` (to port 0).
    pub(crate) fn with(config: &str) -> Pillion {
        Pillion::in_folder(Arc::new(Folder::new()), config)
    }

    pub(crate) fn in_folder(folder: Arc<Folder>, config: &str) -> Pillion {
        let path = folder.write("pillion.toml", complete(config));
        Pillion::from_file(folder, &path)
    }

    /// Starts Pillion with an existing file.
    pub(crate) fn from_file(folder: Arc<Folder>, path: &Path) -> Pillion {
        let mut command = Command::new(binary());
        command.args(["run", "--config"]).arg(path).current_dir(&folder.0);
        Pillion::start(folder, command)
    }

    pub(crate) fn start(folder: Arc<Folder>, mut command: Command) -> Pillion {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (gather(child.stdout.take().unwrap()), gather(child.stderr.take().unwrap()));
        let mut process = Process(child);
        let listening = |kind: &str| -> Option<SocketAddr> {
            let log = stderr.lock().unwrap();
            log.lines().find_map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).ok()?;
                let fits = event["message"] == "listening" && event["kind"] == kind;
                fits.then(|| event["address"].as_str().unwrap().parse().unwrap())
            })
        };
        let admin = eventually("Pillion listens", || {
            if let Some(status) = process.0.try_wait().unwrap() {
                std::thread::sleep(Duration::from_millis(50));
                panic!("Pillion ended with {status}:\n{}", stderr.lock().unwrap());
            }
            listening("admin")
        });
        let https = listening("https");
        // The probes listener is announced last.
        let http = listening("http").or(https).unwrap();
        let pillion =
            Pillion { process, folder, http, https, admin, probes: None, stderr: stderr.clone(), stdout };
        Pillion { probes: pillion.event_address("probes"), ..pillion }
    }

    fn event_address(&self, kind: &str) -> Option<SocketAddr> {
        let config = std::fs::read_to_string(self.folder.path("pillion.toml")).unwrap_or_default();
        let find = || {
            self.log().lines().find_map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).ok()?;
                (event["message"] == "listening" && event["kind"] == kind)
                    .then(|| event["address"].as_str().unwrap().parse().unwrap())
            })
        };
        if config.contains("probes = \"1") { Some(eventually("probes listen", find)) } else { find() }
    }

    /// Waits until Pillion is ready: its app has responded once.
    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        eventually("it is ready", || (self.admin_get("/ready").status == 200).then_some(()));
    }

    /// Returns the output on standard error.
    pub(crate) fn log(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Returns the access log, which goes to standard output.
    pub(crate) fn access_log(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    /// Returns the first access log line that matches `fits`.
    #[track_caller]
    pub(crate) fn access(&self, what: &str, fits: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        eventually(&format!("access log: {what}"), || {
            self.access_log()
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .find(|line| fits(line))
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// Sends a GET request to the cleartext listener.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        exchange(self.http, &format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"))
    }

    #[track_caller]
    pub(crate) fn admin_get(&self, path: &str) -> Answer {
        exchange(self.admin, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    }

    #[track_caller]
    pub(crate) fn admin_post(&self, path: &str) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        exchange(self.admin, &head)
    }

    /// Returns the value of one sample in `/metrics`; `name` includes the labels. Returns 0 if a known family has no
    /// such sample yet.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.admin_get("/metrics").text();
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let family = name.split('{').next().unwrap();
        assert!(text.contains(&format!("# TYPE {family} ")) || line.is_some(), "there is no metric {family}");
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Replaces the configuration in place and sends SIGHUP. Returns when it was applied or rejected.
    #[track_caller]
    pub(crate) fn reload(&self, config: &str) {
        let count = || {
            self.metric("pillion_config_reloads_total{result=\"applied\"}")
                + self.metric("pillion_config_reloads_total{result=\"refused\"}")
        };
        let before = count();
        self.folder.write("pillion.toml", complete(config));
        self.process.signal("HUP");
        eventually("the reload is counted", || (count() > before).then_some(()));
    }

    /// Sends SIGTERM, and returns the exit status.
    #[track_caller]
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait()
    }
}

/// Adds a `[server]` with free ports and a JSON log unless the test sets them.
pub(crate) fn complete(config: &str) -> String {
    let mut text = config.to_owned();
    if !config.contains("[log]") {
        text = format!("[log]\nformat = \"json\"\n{text}");
    }
    if config.contains("[server]") {
        return text;
    }
    format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{text}")
}
