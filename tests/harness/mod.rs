//! Starts the real binary on free ports against real origins, so that a test reads like its scenario.
//!
//! Everything started here is stopped by its own process id when it goes out of scope, also when the
//! test fails. Nothing sleeps for luck: [`eventually`] polls a condition until a deadline.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod holding;
pub mod origin;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything that should happen may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `condition` gives a value.
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(now() < deadline, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[allow(clippy::disallowed_methods, reason = "tests measure real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// A folder that goes away with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("pillion-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that is killed when it goes out of scope.
pub struct Process(pub Child);

impl Process {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", || self.0.try_wait().unwrap())
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary under test.
pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_pillion")
}

/// A running Pillion.
pub struct Pillion {
    pub process: Process,
    pub folder: Arc<Folder>,
    /// Its cleartext listener.
    pub http: SocketAddr,
    /// Its TLS listener.
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
            let _ = writeln!(text, "{line}");
        }
    });
    text
}

impl Pillion {
    /// In front of `upstream` with nothing else said.
    pub fn in_front_of(upstream: impl std::fmt::Display) -> Pillion {
        Pillion::with(&format!("[upstream]\nurl = \"http://{upstream}\"\n"))
    }

    /// With a configuration. Where it has no `[server]`, one with free ports is put before it; where it
    /// has, `listen` and `admin` are the test's to give (use port 0).
    pub fn with(config: &str) -> Pillion {
        Pillion::in_folder(Arc::new(Folder::new()), config)
    }

    pub fn in_folder(folder: Arc<Folder>, config: &str) -> Pillion {
        let path = folder.write("pillion.toml", complete(config));
        Pillion::from_file(folder, &path)
    }

    /// With a file that is there already.
    pub fn from_file(folder: Arc<Folder>, path: &Path) -> Pillion {
        let mut command = Command::new(binary());
        command.args(["run", "--config"]).arg(path).current_dir(&folder.0);
        Pillion::start(folder, command)
    }

    pub fn start(folder: Arc<Folder>, mut command: Command) -> Pillion {
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
        // Probes are announced last.
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

    /// What it said on standard error.
    pub fn log(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// What it said on standard output: the access log.
    pub fn access_log(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    /// The first access log line for which `fits` holds.
    #[track_caller]
    pub fn access(&self, what: &str, fits: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        eventually(&format!("access log: {what}"), || {
            self.access_log()
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .find(|line| fits(line))
        })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// GET over the cleartext listener.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        exchange(self.http, &format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"))
    }

    #[track_caller]
    pub fn admin_get(&self, path: &str) -> Answer {
        exchange(self.admin, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    }

    #[track_caller]
    pub fn admin_post(&self, path: &str) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        exchange(self.admin, &head)
    }

    /// The value of one sample in /metrics, labels included in `name`; 0 where a known family has no such
    /// sample yet.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.admin_get("/metrics").text();
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let family = name.split('{').next().unwrap();
        assert!(text.contains(&format!("# TYPE {family} ")) || line.is_some(), "there is no metric {family}");
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Replaces the configuration in place and sends SIGHUP; returns once it was applied or refused.
    #[track_caller]
    pub fn reload(&self, config: &str) {
        let count = || {
            self.metric("pillion_config_reloads_total{result=\"applied\"}")
                + self.metric("pillion_config_reloads_total{result=\"refused\"}")
        };
        let before = count();
        self.folder.write("pillion.toml", complete(config));
        self.process.signal("HUP");
        eventually("the reload is counted", || (count() > before).then_some(()));
    }

    /// SIGTERM, and its exit status.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait()
    }
}

/// Puts a `[server]` with free ports and a JSON log where the test did not give them.
pub fn complete(config: &str) -> String {
    let mut text = config.to_owned();
    if !config.contains("[log]") {
        text = format!("[log]\nformat = \"json\"\n{text}");
    }
    if config.contains("[server]") {
        return text;
    }
    format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{text}")
}

/// An HTTP/1 answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub fn parse(raw: &[u8]) -> Answer {
        let end = raw.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(raw)));
        let head = String::from_utf8_lossy(&raw[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let mut answer = Answer { status, head, body: raw[end + 4..].to_vec() };
        if answer.field("transfer-encoding").as_deref() == Some("chunked") {
            answer.body = dechunk(&answer.body);
        }
        answer
    }

    pub fn field(&self, name: &str) -> Option<String> {
        self.fields(name).into_iter().next()
    }

    pub fn fields(&self, name: &str) -> Vec<String> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

fn dechunk(mut wire: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(end) = wire.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&wire[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return content;
        }
        content.extend_from_slice(&wire[end + 2..end + 2 + size]);
        wire = &wire[end + 4 + size..];
    }
    content
}

/// A connection whose reads give up in the end.
#[track_caller]
pub fn connect(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp
}

/// Sends `bytes` and reads until the other side closes.
#[track_caller]
pub fn raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut tcp = connect(address);
    // Who refuses early may close before everything is written; what it said is what counts.
    let _ = tcp.write_all(bytes.as_ref());
    let mut answer = Vec::new();
    match tcp.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if !answer.is_empty() => panic!("{error} after {:?}", String::from_utf8_lossy(&answer)),
        Err(error) => panic!("{error}"),
    }
    answer
}

/// One request, one answer, on a connection of its own that the other side closes.
#[track_caller]
pub fn exchange(address: SocketAddr, request: &str) -> Answer {
    Answer::parse(&raw(address, request))
}

/// Reads one answer off a connection that stays open.
#[track_caller]
pub fn read_answer(tcp: &mut impl Read) -> Answer {
    let mut raw = Vec::new();
    let mut byte = [0u8; 1];
    while !raw.ends_with(b"\r\n\r\n") {
        assert_eq!(tcp.read(&mut byte).unwrap(), 1, "closed after {:?}", String::from_utf8_lossy(&raw));
        raw.push(byte[0]);
    }
    let head = Answer::parse(&raw);
    let mut body = Vec::new();
    if let Some(length) = head.field("content-length") {
        body.resize(length.parse().unwrap(), 0);
        tcp.read_exact(&mut body).unwrap();
    } else if head.field("transfer-encoding").is_some() {
        while !(body.ends_with(b"\r\n0\r\n\r\n") || body == b"0\r\n\r\n") {
            assert_eq!(tcp.read(&mut byte).unwrap(), 1);
            body.push(byte[0]);
        }
        body = dechunk(&body);
    }
    Answer { body, ..head }
}

/// An origin that plays a script: each connection is given to `play` on a thread of its own. For
/// behaviour no real server shows on request (dying half-way, malformed answers, exact timing).
pub struct Script {
    pub address: SocketAddr,
    /// Connections accepted so far.
    pub connections: Arc<AtomicUsize>,
}

impl Script {
    pub fn new(play: impl Fn(TcpStream) + Send + Sync + 'static) -> Script {
        Script::on(TcpListener::bind("127.0.0.1:0").unwrap(), play)
    }

    pub fn on(listener: TcpListener, play: impl Fn(TcpStream) + Send + Sync + 'static) -> Script {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (play, count) = (Arc::new(play), connections.clone());
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let Ok(tcp) = tcp else { return };
                tcp.set_read_timeout(Some(PATIENCE)).unwrap();
                tcp.set_nodelay(true).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let play = play.clone();
                std::thread::spawn(move || play(tcp));
            }
        });
        Script { address, connections }
    }

    /// Answers every request of every connection with what `answer` makes of its head and body; for
    /// requests with a Content-Length or chunks.
    pub fn answering(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Script {
        Script::new(move |mut tcp| {
            while let Some(request) = Request::read(&mut tcp) {
                if tcp.write_all(&answer(&request)).is_err() {
                    return;
                }
            }
        })
    }

    /// Says that it is too much before it has read it, and leaves.
    pub fn refusing_early() -> Script {
        Script::new(|mut tcp| {
            let mut head = [0u8; 100];
            let _ = tcp.read(&mut head);
            let _ = tcp.write_all(
                b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno\n",
            );
        })
    }

    /// Says in JSON what reached it: method, target, fields (lower case, joined by "; "), body.
    pub fn echo() -> Script {
        Script::answering(|request| ok(&request.to_json().to_string()))
    }
}

/// A 200 with this content.
pub fn ok(content: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{content}",
        content.len()
    )
    .into_bytes()
}

/// Reads a head and nothing behind it; `None` when the connection ends first.
pub fn head(tcp: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if tcp.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// A request as an origin saw it.
#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// Reads one; `None` when the connection ends first.
    pub fn read(tcp: &mut impl Read) -> Option<Request> {
        let head = head(tcp)?;
        let mut lines = head.lines();
        let line = lines.next()?.to_owned();
        let fields: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut request = Request { line, fields, body: Vec::new() };
        if let Some(length) = request.field("content-length") {
            request.body.resize(length.parse().ok()?, 0);
            tcp.read_exact(&mut request.body).ok()?;
        } else if request.field("transfer-encoding").is_some() {
            let (mut wire, mut byte) = (Vec::new(), [0u8; 1]);
            while !(wire.ends_with(b"\r\n0\r\n\r\n") || wire == b"0\r\n\r\n") {
                if tcp.read(&mut byte).ok()? == 0 {
                    return None;
                }
                wire.push(byte[0]);
            }
            request.body = dechunk(&wire);
        }
        Some(request)
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn to_json(&self) -> serde_json::Value {
        let mut fields = serde_json::Map::new();
        for (name, value) in &self.fields {
            let joined = match fields.get(name).and_then(|before| before.as_str()) {
                Some(before) => format!("{before}; {value}"),
                None => value.clone(),
            };
            fields.insert(name.clone(), joined.into());
        }
        let mut line = self.line.split(' ');
        serde_json::json!({
            "method": line.next(),
            "target": line.next(),
            "fields": fields,
            "body": String::from_utf8_lossy(&self.body),
        })
    }
}

/// A real nginx with this `server` block, on a free port of its own choosing: `LISTEN` in the block is
/// replaced by its address.
pub struct Nginx {
    pub process: Process,
    pub address: SocketAddr,
    pub folder: Folder,
}

impl Nginx {
    pub fn serving(server: &str) -> Nginx {
        // A port that was free a moment ago can be taken; another is tried.
        for _ in 0..10 {
            let address = free_address();
            let folder = Folder::new();
            let config = format!(
                "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;\n\
                 events {{ worker_connections 1024; }}\n\
                 http {{ access_log off; client_body_temp_path {0}; proxy_temp_path {0}; fastcgi_temp_path {0};\n\
                 uwsgi_temp_path {0}; scgi_temp_path {0}; {1} }}\n",
                folder.0.display(),
                server
                    .replace("LISTEN", &address.to_string())
                    .replace("FOLDER", &folder.0.display().to_string()),
            );
            let path = folder.write("nginx.conf", config);
            let child = Command::new("nginx")
                .arg("-c")
                .arg(path)
                .arg("-p")
                .arg(&folder.0)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("nginx is installed by tests/run");
            let mut process = Process(child);
            let up = eventually("nginx listens", || {
                if process.0.try_wait().unwrap().is_some() {
                    return Some(false);
                }
                TcpStream::connect(address).is_ok().then_some(true)
            });
            if up {
                return Nginx { process, address, folder };
            }
        }
        panic!("nginx found no port");
    }

    /// Starts it again where it was, after it was killed.
    pub fn restart(&mut self) {
        self.process = Process(
            Command::new("nginx")
                .arg("-c")
                .arg(self.folder.path("nginx.conf"))
                .arg("-p")
                .arg(&self.folder.0)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("nginx is installed by tests/run"),
        );
    }
}

/// httpbin, a real app of others', behind gunicorn; `tests/run` installs it.
pub fn httpbin() -> (Process, SocketAddr) {
    let gunicorn = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/httpbin/bin/gunicorn");
    let address = free_address();
    let mut command = Command::new(gunicorn);
    command.args(["--bind", &address.to_string(), "--threads", "4", "httpbin:app"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process(command.spawn().expect("tests/run installs httpbin"));
    eventually("httpbin listens", || TcpStream::connect(address).ok());
    (process, address)
}

/// An address nothing listens on just now.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The address of an app that is not there (yet), on a loopback address of its own: no Pillion under test
/// is given its port in the meantime.
pub fn absent_app() -> SocketAddr {
    TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap()
}

/// Runs a command to its end and gives what it printed; fails the test if it fails.
#[track_caller]
pub fn run(command: &str, args: &[&str]) -> String {
    let output =
        Command::new(command).args(args).output().unwrap_or_else(|error| panic!("{command}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command} {args:?}: {}\n{text}\n{errors}", output.status);
    text
}
