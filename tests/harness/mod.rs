//! Starts the real binary on free ports against real origins, so that a test reads like its scenario. Everything
//! started is stopped by its process id when it goes out of scope, even if the test fails. Tests do not sleep and hope:
//! [`eventually`] polls a condition until a deadline.

#![allow(dead_code, unused_imports, unused_macros, reason = "each of the two test binaries uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub(crate) mod browser;
mod config;
pub(crate) mod holding;
pub(crate) mod origin;
mod pillion;
pub(crate) mod redis;
pub(crate) mod script;
mod servers;
pub(crate) mod texts;
pub(crate) mod wire;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) use config::Config;
pub(crate) use pillion::{Pillion, complete};
pub(crate) use script::{Request, Script, head, ok};
pub(crate) use servers::{Nginx, accept, httpbin};
pub(crate) use texts::printed;
pub(crate) use wire::{Answer, connect, exchange, raw, read_answer};

/// Maximum time for anything that should happen, before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The options that make curl speak one protocol.
pub(crate) const HTTP1_0: &str = "--http1.0";
pub(crate) const HTTP1: &str = "--http1.1";
pub(crate) const HTTP2: &str = "--http2-prior-knowledge";

/// Makes a test of each line, which calls the function before the colon, so that a failure names its case and the cases
/// run beside each other. Names stand in full, so that they are found.
macro_rules! cases {
    ($check:ident: $($name:ident => $($value:expr),+;)+) => {
        $(
            #[test]
            fn $name() {
                $check($($value),+);
            }
        )+
    };
}
pub(crate) use cases;

/// Polls until `condition` returns a value.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
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
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A folder that is deleted with the test.
pub(crate) struct Folder(pub PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("pillion-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that is killed when it goes out of scope.
pub(crate) struct Process(pub Child);

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// Waits until the process exits by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", || self.0.try_wait().unwrap())
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
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

/// Returns the binary under test: the one built with the tests, or the one in `PILLION_BIN`, to test another build.
pub(crate) fn binary() -> &'static str {
    static NAMED: OnceLock<Option<String>> = OnceLock::new();
    let named = NAMED.get_or_init(|| std::env::var("PILLION_BIN").ok());
    named.as_deref().unwrap_or(env!("CARGO_BIN_EXE_pillion"))
}

/// Returns an address that nothing listens on at the moment.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Returns the address of an app that does not listen yet. The loopback address is its own, so no Pillion under test
/// gets its port in the meantime.
pub(crate) fn absent_app() -> SocketAddr {
    TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap()
}

/// Runs a command and returns its output. Fails the test if the command fails.
#[track_caller]
pub(crate) fn run(command: &str, args: &[&str]) -> String {
    let output =
        Command::new(command).args(args).output().unwrap_or_else(|error| panic!("{command}: {error}"));
    let (text, errors) = (printed(&output.stdout), printed(&output.stderr));
    assert!(output.status.success(), "{command} {args:?}: {}\n{text}\n{errors}", output.status);
    text
}
