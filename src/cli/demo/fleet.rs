//! Three processes of Pillion in front of the sample app, and one Redis for all of them.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::super::output::{FAILED, OK, fail};
use super::server;

/// The configuration of the processes.
const FLEET: &str = include_str!("../../../examples/fleet.toml");
/// Number of processes.
const COUNT: u16 = 3;
/// Servers that are looked for on the path.
const SERVERS: [&str; 2] = ["redis-server", "valkey-server"];
/// How long everything may take to start.
const STARTS: Duration = Duration::from_secs(10);
/// How long a process may take to stop.
const STOPS: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// Runs the fleet until the process is told to stop. The first process listens on `listen` and `admin`, the others on the
/// ports after these. `redis` is the URL of a Redis that runs already.
pub(super) fn run(listen: SocketAddr, admin: SocketAddr, redis: Option<&str>) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.and_then(|runtime| runtime.block_on(demonstrate(listen, admin, redis)));
    match result {
        Ok(()) => OK,
        Err(why) => fail(FAILED, &why),
    }
}

async fn demonstrate(listen: SocketAddr, admin: SocketAddr, redis: Option<&str>) -> io::Result<()> {
    let folder = Folder::new()?;
    let (server, url) = match redis {
        Some(url) => (None, url.to_owned()),
        None => {
            let (server, url) = Server::start(&folder.0).await?;
            (Some(server), url)
        }
    };
    let app = server::start(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(io::Error::other)?;
    let mut fleet = Fleet(Vec::new());
    let (key, mut places) = (hash_key()?, Vec::new());
    for number in 0..COUNT {
        let (at, control) = (after(listen, number), after(admin, number));
        fleet.0.push(process(&folder.0, (&url, &key), &app.address.to_string(), (at, control))?);
        places.push((at, control));
    }
    let mut stop = Stop::new()?;
    let ready = async {
        for (_, control) in &places {
            while TcpStream::connect(control).is_err() {
                fleet.check()?;
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok::<(), io::Error>(())
    };
    tokio::select! {
        ready = tokio::time::timeout(STARTS, ready) => ready.map_err(|_| io::Error::other("the processes do not start"))??,
        () = stop.asked() => return Ok(()),
    }
    greet(&places, server.as_ref().map(|server| server.0.id()));
    loop {
        tokio::select! {
            () = stop.asked() => return Ok(()),
            () = tokio::time::sleep(LOOK * 10) => fleet.check()?,
        }
    }
}

fn after(address: SocketAddr, number: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port().saturating_add(number))
}

/// A secret for this demo.
fn hash_key() -> io::Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(STANDARD.encode(bytes))
}

fn process(
    folder: &Path,
    (redis, key): (&str, &str),
    app: &str,
    (at, control): (SocketAddr, SocketAddr),
) -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["run", "--config"])
        .arg(folder.join("fleet.toml"))
        .args([
            "--upstream",
            &format!("http://{app}"),
            "--listen",
            &at.to_string(),
            "--admin",
            &control.to_string(),
        ])
        .env("PILLION_HASH_KEY", key)
        .env("REDIS_URL", redis)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
}

/// The signals that end the demo.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> io::Result<Stop> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Stop { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Folder> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("pillion-demo-{}", std::process::id()));
        // Nobody else reads the key in it.
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let folder = Folder(path);
        std::fs::write(folder.0.join("fleet.toml"), FLEET)?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The processes, which end with it.
struct Fleet(Vec<Child>);

impl Fleet {
    /// Fails if a process ended by itself.
    fn check(&mut self) -> io::Result<()> {
        for child in &mut self.0 {
            if let Some(status) = child.try_wait()? {
                return Err(io::Error::other(format!("a process of the fleet ended: {status}")));
            }
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.0.iter().for_each(terminate);
        self.0.iter_mut().for_each(end);
    }
}

fn terminate(child: &Child) {
    if let Some(id) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
    }
}

/// Waits for a process to end, and kills it where it does not.
fn end(child: &mut Child) {
    let looks = STOPS.as_millis() / LOOK.as_millis();
    for _ in 0..looks {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(LOOK),
            _ => return,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// A Redis or Valkey of this demo. It stores nothing on disk.
struct Server(Child);

impl Server {
    async fn start(folder: &Path) -> io::Result<(Server, String)> {
        for program in SERVERS {
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let port = address.port().to_string();
            let started = Command::new(program)
                .args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no", "--dir"])
                .arg(folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn();
            let mut server = match started {
                Ok(child) => Server(child),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io::Error::other(format!("{program}: {error}"))),
            };
            let listens = async {
                while TcpStream::connect(address).is_err() {
                    if let Some(status) = server.0.try_wait()? {
                        return Err(io::Error::other(format!("{program} ended: {status}")));
                    }
                    tokio::time::sleep(LOOK).await;
                }
                Ok(())
            };
            let listens = tokio::time::timeout(STARTS, listens).await;
            listens.map_err(|_| io::Error::other(format!("{program} does not start")))??;
            return Ok((server, format!("redis://{address}")));
        }
        let names = SERVERS.join(" nor ");
        Err(io::Error::other(format!("neither {names} is on the path: install one, or give --redis URL")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        terminate(&self.0);
        end(&mut self.0);
    }
}

fn greet(places: &[(SocketAddr, SocketAddr)], redis: Option<u32>) {
    let [(one, control), (two, _), (three, _)] = places else { return };
    println!(
        "
Three processes of Pillion are in front of one clinic API, and share a Redis. Try, in another terminal:

  curl -s http://{control}/fleet                              # who is in the fleet, and how far each has read
  ann='Authorization: Bearer ann'; for n in 1 2; do curl -si -H \"$ann\" http://{two}/api/patients/7 | grep -i '^x-cache'; done   # her copy in the second process
  curl -s -o /dev/null -X PUT http://{one}/api/patients/7 -d '{{\"city\":\"Bodo\"}}'; sleep 0.1; curl -s -H 'Authorization: Bearer ann' http://{two}/api/patients/7   # write here, read there
  for n in 1 2 3 4 5; do for at in {one} {two} {three}; do curl -s -o /dev/null -w '%{{http_code}} ' http://$at/api/reports/visits; done; done; echo   # ten an hour for all three together
  curl -s -X POST 'http://{control}/limits/reset?key=127.0.0.1'   # and the whole burst again"
    );
    if let Some(id) = redis {
        println!(
            "  kill -STOP {id}; curl -s -o /dev/null -w '%{{http_code}} %{{time_total}} s\\n' http://{three}/api/patients/7; kill -CONT {id}   # without Redis each works alone, and nobody waits"
        );
    }
    println!("\nStop it with Ctrl-C.\n");
}
