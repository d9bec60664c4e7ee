//! The URL of a Redis: one server, the servers of a sentinel, or a cluster.

use std::fmt;
use std::path::PathBuf;

use crate::rendering::secret::Secret;

/// Port of a Redis that names none.
const PORT: u16 = 6379;
/// Port of a sentinel that names none.
const SENTINEL_PORT: u16 = 26379;
/// Maximum number of hosts in one URL.
const MAX_HOSTS: usize = 16;

/// How the server that is used is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// It is the host.
    Single,
    /// It listens on this socket.
    Unix(PathBuf),
    /// The sentinels that are named know it by this name.
    Sentinel(String),
    /// The nodes that are named know which of them has a key.
    Cluster,
}

/// A URL that was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedisUrl {
    pub topology: Topology,
    /// Hosts and ports, in the order in which they are tried.
    pub hosts: Vec<(String, u16)>,
    pub tls: bool,
    pub username: Option<String>,
    pub password: Option<Secret<String>>,
    pub database: i64,
}

impl RedisUrl {
    /// Parses a URL. The error says what is wrong and what is expected.
    pub(crate) fn parse(text: &str) -> Result<RedisUrl, String> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| {
            "no scheme; expected redis://, rediss://, redis+sentinel://, redis+cluster:// or redis+unix:///path"
                .to_owned()
        })?;
        let tls = scheme.starts_with("rediss");
        let kind = scheme.strip_prefix("rediss").or_else(|| scheme.strip_prefix("redis"));
        let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
        if !query.is_empty() {
            return Err("a query; parameters are keys of [redis]".to_owned());
        }
        // The last @ ends the credentials, as a password may have one.
        let (credentials, place) =
            rest.rsplit_once('@').map_or(("", rest), |(before, after)| (before, after));
        let (username, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (hosts, path) = place.split_at(place.find('/').unwrap_or(place.len()));
        let path = path.strip_prefix('/').unwrap_or(path);
        let topology = match kind {
            Some("") => Topology::Single,
            Some("+unix") if !tls => {
                if !hosts.is_empty() || path.is_empty() {
                    return Err("no path of a socket; expected redis+unix:///run/redis.sock".to_owned());
                }
                Topology::Unix(PathBuf::from(format!("/{path}")))
            }
            Some("+sentinel") => {
                let name = path.split('/').next().unwrap_or("");
                if name.is_empty() {
                    let example = "redis+sentinel://host:26379/mymaster";
                    return Err(format!(
                        "no name of a primary; expected it after the hosts, as in {example}"
                    ));
                }
                Topology::Sentinel(decoded(name)?)
            }
            Some("+cluster") => Topology::Cluster,
            _ => {
                return Err(format!(
                    "the scheme {scheme:?}; expected redis, rediss, redis+sentinel, redis+cluster or redis+unix"
                ));
            }
        };
        let default = if matches!(topology, Topology::Sentinel(_)) { SENTINEL_PORT } else { PORT };
        let hosts = match topology {
            Topology::Unix(_) => Vec::new(),
            _ => hosts.split(',').map(|host| host_and_port(host, default)).collect::<Result<Vec<_>, _>>()?,
        };
        if hosts.len() > MAX_HOSTS {
            return Err(format!("{} hosts; expected at most {MAX_HOSTS}", hosts.len()));
        }
        if topology == Topology::Single && hosts.len() > 1 {
            return Err("several hosts; write redis+sentinel:// or redis+cluster://".to_owned());
        }
        let database = match &topology {
            Topology::Single => path,
            Topology::Sentinel(_) => path.split_once('/').map_or("", |(_, database)| database),
            Topology::Unix(_) => "",
            Topology::Cluster if path.is_empty() => "",
            Topology::Cluster => return Err("a database; a cluster has only one".to_owned()),
        };
        let database = match database {
            "" => 0,
            number => number
                .parse()
                .ok()
                .filter(|number| *number >= 0)
                .ok_or_else(|| format!("the database {number:?}; expected a number"))?,
        };
        let given = |text: &str| if text.is_empty() { Ok(None) } else { decoded(text).map(Some) };
        let (username, password) = (given(username)?, given(password)?.map(Secret::new));
        Ok(RedisUrl { topology, hosts, tls, username, password, database })
    }
}

/// The URL without credentials.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let hosts: Vec<String> = self.hosts.iter().map(|(host, port)| authority(host, *port)).collect();
        let hosts = hosts.join(",");
        match &self.topology {
            Topology::Single => write!(f, "{scheme}://{hosts}"),
            Topology::Unix(path) => write!(f, "redis+unix://{}", path.display()),
            Topology::Sentinel(name) => write!(f, "{scheme}+sentinel://{hosts}/{name}"),
            Topology::Cluster => write!(f, "{scheme}+cluster://{hosts}"),
        }
    }
}

/// Returns a host and a port as a URL has them.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn host_and_port(text: &str, default: u16) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) =
                rest.split_once(']').ok_or_else(|| format!("the host {text:?} without a ]"))?;
            (host, after.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err("no host; expected one, as in redis://localhost:6379".to_owned());
    }
    let port = match port {
        None => default,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            // It may be a password whose @ is missing.
            .ok_or("a port that is no number from 1 to 65535")?,
    };
    Ok((host.to_owned(), port))
}

/// Decodes percent-encoded bytes.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err("a % without two hexadecimal digits; write %25 for a %".to_owned());
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
    }
    String::from_utf8(bytes).map_err(|_| "percent-encoded bytes that are not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_and_shown_without_credentials() {
        for (text, shown, hosts, user, database) in [
            ("redis://a", "redis://a:6379", 1, None, 0),
            ("redis://a:1/3", "redis://a:1", 1, None, 3),
            ("rediss://us%40r:p%3A@ss@a:1", "rediss://a:1", 1, Some("us@r"), 0),
            ("redis://:secret@a", "redis://a:6379", 1, None, 0),
            ("redis://[::1]:7", "redis://[::1]:7", 1, None, 0),
            ("redis+unix:///run/redis.sock", "redis+unix:///run/redis.sock", 0, None, 0),
            ("redis+sentinel://a,b:1/main/2", "redis+sentinel://a:26379,b:1/main", 2, None, 2),
            ("rediss+cluster://u:p@a,b,c", "rediss+cluster://a:6379,b:6379,c:6379", 3, Some("u"), 0),
        ] {
            let url = RedisUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(url.to_string(), shown, "{text}");
            assert_eq!((url.hosts.len(), url.username.as_deref(), url.database), (hosts, user, database));
            assert!(!format!("{url:?}").contains("secret"));
        }
        let password = RedisUrl::parse("redis://us:p%3A@ss@a").unwrap().password.unwrap();
        assert_eq!(password.expose(), "p:@ss");
    }

    #[test]
    fn a_wrong_url_is_explained() {
        for (text, wanted) in [
            ("", "no scheme"),
            ("localhost:6379", "no scheme"),
            ("http://a", "the scheme \"http\""),
            ("rediss+unix:///a", "the scheme"),
            ("redis://", "no host"),
            ("redis://a:x", "a port that is no number"),
            ("redis://a:0", "a port that is no number"),
            ("redis://:s3cret", "no host"),
            ("redis://a/x", "the database \"x\""),
            ("redis://a/-1", "the database \"-1\""),
            ("redis://a,b", "several hosts"),
            ("redis://a?x=1", "a query"),
            ("redis://[::1", "without a ]"),
            ("redis+sentinel://a", "no name of a primary"),
            ("redis+cluster://a/1", "a database"),
            ("redis+unix://a/b", "no path"),
            ("redis://u:%zz@a", "a % without"),
        ] {
            let error = RedisUrl::parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
