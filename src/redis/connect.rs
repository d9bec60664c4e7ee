//! Makes one connection: finds the server that takes writes, connects, authenticates and asks who it is.

use std::io;
use std::time::Duration;

use redis::RedisConnectionInfo;
use redis::aio::MultiplexedConnection;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::command::{Command, CommandError, Value};
use super::settings::Settings;
use super::url::{Topology, authority};
use crate::connection::stream::Stream;
use crate::runtime::file_access;

/// Maximum time to find the server, connect and authenticate.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Time without data after which the kernel asks whether the peer is there, and between two such questions.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// Maximum time that sent data may stay unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(3);
/// The oldest version of Redis that is used: ranges of streams and the time in scripts that write.
const MIN_VERSION: (u64, u64) = (6, 2);

/// The server at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Identifies the data set: it changes when another server takes over, or when this one starts anew.
    pub epoch: Box<str>,
    /// The version, for people.
    pub version: Box<str>,
    /// Host and port, for people.
    pub address: Box<str>,
    /// What an operator should know of its settings.
    pub warnings: Vec<String>,
    /// The same where stored responses are.
    pub warnings_of_copies: Vec<String>,
}

/// A connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    pub multiplexed: MultiplexedConnection,
    pub identity: Identity,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects to the server that has `key` and takes writes. The error says what failed, with the address.
    pub(super) async fn new(settings: &Settings, key: &str, name: &str) -> Result<Connection, String> {
        let connect = async {
            let mut failed = String::new();
            for (host, port) in places(settings, key).await? {
                match Connection::to(settings, &host, port, name).await {
                    Ok(connection) => return Ok(connection),
                    Err(error) => failed = format!("{}: {error}", authority(&host, port)),
                }
            }
            Err(failed)
        };
        let timed_out = || format!("{}: no connection within {TIMEOUT:?}", settings.url);
        tokio::time::timeout(TIMEOUT, connect).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn to(settings: &Settings, host: &str, port: u16, name: &str) -> Result<Connection, String> {
        let stream = stream(settings, host, port).await.map_err(|error| error.to_string())?;
        let mut connection = authenticate(settings, stream, settings.url.database).await?;
        let named = Command::new("CLIENT").arg("SETNAME").arg(name);
        // A user that may not name its connections can do all the rest.
        let _ = connection.query(&named).await;
        let info = connection.query(&Command::new("INFO")).await.map_err(|error| match error {
            CommandError::NoPermission(why) => format!("INFO is not allowed, which names the server: {why}"),
            error => error.to_string(),
        })?;
        let info = Info(info.text().unwrap_or(""));
        let version = info.get("redis_version").or_else(|| info.get("valkey_version")).unwrap_or("0");
        if !is_recent(version) {
            return Err(format!("version {version} is too old; 6.2 or a later one is needed"));
        }
        if info.get("role").is_some_and(|role| role != "master") {
            return Err("it is a replica, which takes no writes".to_owned());
        }
        let part = |name| info.get(name).unwrap_or("");
        connection.identity = Identity {
            epoch: format!("{}:{}", part("run_id"), part("master_replid")).into(),
            version: info.get("valkey_version").unwrap_or(version).into(),
            address: if host.is_empty() { settings.url.to_string() } else { authority(host, port) }.into(),
            warnings: warnings(&info),
            warnings_of_copies: warnings_of_copies(&info),
        };
        Ok(connection)
    }

    /// Runs a command; waits as long as it takes.
    pub(super) async fn query(&mut self, command: &Command) -> Result<Value, CommandError> {
        let value = self.multiplexed.send_packed_command(&command.0).await;
        value.map_err(|error| CommandError::new(&error)).and_then(Value::new)
    }
}

/// Returns the hosts to try, in order.
async fn places(settings: &Settings, key: &str) -> Result<Vec<(String, u16)>, String> {
    let url = &settings.url;
    match &url.topology {
        Topology::Single => Ok(url.hosts.clone()),
        Topology::Unix(_) => Ok(vec![(String::new(), 0)]),
        Topology::Sentinel(name) => {
            let ask = Command::new("SENTINEL").arg("get-master-addr-by-name").arg(name);
            let found = ask_each(settings, &ask, |value| {
                let [host, port] = value.list()? else { return None };
                Some((host.text()?.to_owned(), u16::try_from(port.number()?).ok()?))
            });
            found.await.map(|place| vec![place])
        }
        Topology::Cluster => {
            let slot = u64::from(slot(key.as_bytes()));
            let ask = Command::new("CLUSTER").arg("SLOTS");
            let found = ask_each(settings, &ask, |value| {
                value.list()?.iter().find_map(|range| {
                    let [first, last, primary, ..] = range.list()? else { return None };
                    let [host, port, ..] = primary.list()? else { return None };
                    let has = (first.number()?..=last.number()?).contains(&slot);
                    has.then_some(())?;
                    Some((host.text()?.to_owned(), u16::try_from(port.number()?).ok()?))
                })
            });
            found.await.map(|place| vec![place])
        }
    }
}

/// Asks the hosts of the URL one after the other; returns the first place that `read` finds in a response.
async fn ask_each(
    settings: &Settings,
    command: &Command,
    read: impl Fn(&Value) -> Option<(String, u16)>,
) -> Result<(String, u16), String> {
    let mut failed = String::new();
    for (host, port) in &settings.url.hosts {
        match ask(settings, host, *port, command).await.map(|value| read(&value)) {
            // A node that does not know its own address leaves it to whoever reached it (CLUSTER SLOTS).
            Ok(Some((found, port))) if found.is_empty() => return Ok((host.clone(), port)),
            Ok(Some(place)) => return Ok(place),
            Ok(None) => failed = format!("{}: it does not know the server", authority(host, *port)),
            Err(error) => failed = format!("{}: {error}", authority(host, *port)),
        }
    }
    Err(failed)
}

async fn ask(settings: &Settings, host: &str, port: u16, command: &Command) -> Result<Value, String> {
    let connect = || async { stream(settings, host, port).await.map_err(|error| error.to_string()) };
    let mut connection = match authenticate(settings, connect().await?, 0).await {
        // Sentinels often have no password where their servers have one.
        Err(_) if matches!(settings.url.topology, Topology::Sentinel(_)) => {
            handshake(RedisConnectionInfo::default().set_skip_set_lib_name(), connect().await?).await?
        }
        authenticated => authenticated?,
    };
    connection.query(command).await.map_err(|error| error.to_string())
}

async fn stream(settings: &Settings, host: &str, port: u16) -> io::Result<Stream> {
    if let Topology::Unix(path) = &settings.url.topology {
        return Ok(Stream::Unix(UnixStream::connect(path).await?));
    }
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(&tcp);
    // A system without one of these still finds a peer that is gone, by the unanswered PING.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    match &settings.tls {
        None => Ok(Stream::Tcp(tcp)),
        Some(config) => {
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let tls = TlsConnector::from(config.clone()).connect(name, tcp).await?;
            Ok(Stream::ClientTls(Box::new(tls)))
        }
    }
}

async fn authenticate(settings: &Settings, stream: Stream, database: i64) -> Result<Connection, String> {
    let mut info = RedisConnectionInfo::default().set_db(database).set_skip_set_lib_name();
    if let Some(username) = &settings.url.username {
        info = info.set_username(username);
    }
    let password = match &settings.password_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let remedy = file_access::after(path, &error);
                format!("redis.password_file {}: {error}{remedy}", path.display())
            })?;
            Some(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        None => settings.url.password.as_ref().map(|password| password.expose().clone()),
    };
    if let Some(password) = password {
        info = info.set_password(password);
    }
    handshake(info, stream).await
}

async fn handshake(info: RedisConnectionInfo, stream: Stream) -> Result<Connection, String> {
    let (multiplexed, driver) = MultiplexedConnection::new_with_config(
        &info,
        stream,
        // Deadlines are ours: a late response must not break the connection.
        redis::AsyncConnectionConfig::new().set_response_timeout(None),
    )
    .await
    .map_err(|error| CommandError::new(&error).to_string())?;
    let driver = tokio::spawn(driver);
    Ok(Connection { multiplexed, identity: Identity::default(), driver })
}

/// The lines of `INFO`.
struct Info<'a>(&'a str);

impl<'a> Info<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        let mut values = self.0.lines().filter_map(|line| line.split_once(':'));
        values.find(|(known, _)| *known == name).map(|(_, value)| value.trim())
    }
}

fn is_recent(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= MIN_VERSION
}

/// Returns what is wrong with the settings of a server for what it is used for.
fn warnings(info: &Info<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let limited = info.get("maxmemory").is_some_and(|max| max != "0");
    match info.get("maxmemory_policy") {
        Some(policy) if limited && policy.starts_with("allkeys-") => warnings.push(format!(
            "its maxmemory-policy is {policy}, which may evict the invalidation log; set volatile-lru or volatile-lfu"
        )),
        Some("volatile-ttl") if limited => warnings.push(
            "its maxmemory-policy is volatile-ttl, which evicts what was just stored; set volatile-lru or volatile-lfu"
                .to_owned(),
        ),
        _ => {}
    }
    let replicas: u64 = info.get("connected_slaves").and_then(|count| count.parse().ok()).unwrap_or(0);
    if replicas > 0 && info.get("min_slaves_good_slaves").is_none() {
        warnings.push(
            "it has replicas and no min-replicas-to-write, so a failover may lose its latest writes; they are sent again"
                .to_owned(),
        );
    }
    warnings
}

/// Returns what an operator should know where stored responses are, which come in any number.
fn warnings_of_copies(info: &Info<'_>) -> Vec<String> {
    let limited = info.get("maxmemory").is_some_and(|max| max != "0");
    match info.get("maxmemory_policy") {
        Some("noeviction") if limited => vec![
            "its maxmemory-policy is noeviction, so nothing is stored once its memory is full; set volatile-lru or volatile-lfu"
                .to_owned(),
        ],
        Some(_) if !limited => vec![
            "it has no maxmemory, so stored responses may take all memory of its host; set maxmemory, and volatile-lru"
                .to_owned(),
        ],
        _ => Vec::new(),
    }
}

/// Returns the slot of a key: CRC16 (XMODEM) of the key, or of what stands in its first braces, modulo 16384.
fn slot(key: &[u8]) -> u16 {
    let open = key.iter().position(|byte| *byte == b'{');
    let tagged = open.and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    let crc = tagged.unwrap_or(key).iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % 16384
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `CLUSTER KEYSLOT`.
    #[test]
    fn slots_are_those_of_redis() {
        for (key, wanted) in [
            ("123456789", 12739),
            ("foo", 12182),
            ("{foo}:log", 12182),
            ("a{foo}b{bar}", 12182),
            ("foo{}{bar}", 8363),
            ("", 0),
        ] {
            assert_eq!(slot(key.as_bytes()), wanted, "{key}");
        }
    }

    #[test]
    fn versions_and_settings_are_judged() {
        for (version, wanted) in
            [("6.2.0", true), ("7.0.15", true), ("10.0", true), ("6.0.16", false), ("x", false)]
        {
            assert_eq!(is_recent(version), wanted, "{version}");
        }
        for (info, wanted) in [
            ("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n", 0),
            ("maxmemory:1\r\nmaxmemory_policy:allkeys-lru\r\n", 1),
            ("maxmemory:1\r\nmaxmemory_policy:volatile-lru\r\n", 0),
            ("maxmemory:1\r\nmaxmemory_policy:volatile-ttl\r\n", 1),
            ("connected_slaves:1\r\n", 1),
            ("connected_slaves:1\r\nmin_slaves_good_slaves:1\r\n", 0),
        ] {
            assert_eq!(warnings(&Info(info)).len(), wanted, "{info}");
        }
    }
}
