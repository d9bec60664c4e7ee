//! Listening sockets that a service manager passes (socket activation, sd_listen_fds(3)). The manager keeps them open, so
//! clients that connect during a restart wait in the kernel until the next process accepts them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::SockRef;

/// Number of the first descriptor that is passed.
const FIRST: usize = 3;
/// Maximum number of passed sockets.
const MAX_SOCKETS: usize = 64;

/// The listeners that a socket may be for, by the names that a unit may give it (`FileDescriptorName=`), with the key that
/// has their addresses.
pub(super) const LISTENERS: [(&str, &str); 4] = [
    ("http", "server.listen"),
    ("https", "server.tls.listen"),
    ("admin", "server.admin"),
    ("probes", "server.probes"),
];

/// A socket that was passed.
#[derive(Debug)]
pub(super) struct InheritedSocket {
    pub identity: SocketIdentity,
    pub listener: TcpListener,
}

/// The facts by which a socket is assigned to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketIdentity {
    pub descriptor: usize,
    /// The name in LISTEN_FDNAMES: of the unit, unless `FileDescriptorName=` sets another.
    pub name: String,
    pub address: SocketAddr,
}

impl fmt::Display for SocketIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the passed socket {:?} (descriptor {}) on {}", self.name, self.descriptor, self.address)
    }
}

/// Why passed sockets cannot be used.
#[derive(Debug)]
pub(crate) enum InheritError {
    /// LISTEN_FDS is no number of sockets that can be taken.
    Count(String),
    /// The number of sockets, and the number of names in LISTEN_FDNAMES.
    Names(usize, usize),
    /// A descriptor with its name, and the reason why it is no listening TCP socket.
    NoListener(usize, String, String),
    /// A socket that has the address of no listener. The keys with their addresses that its name admits.
    NoSuchListener(SocketIdentity, String),
    /// Two sockets for one address.
    Twice(SocketIdentity, &'static str),
}

impl InheritError {
    fn no_such_listener(socket: &SocketIdentity, keys: &[(&'static str, &[SocketAddr])]) -> InheritError {
        let listed = |addresses: &[SocketAddr]| match addresses {
            [] => "off".to_owned(),
            all => all.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", "),
        };
        let admitted = keys.iter().filter(|(key, _)| admits(&socket.name, key));
        let admitted = admitted.map(|(key, addresses)| format!("{key} ({})", listed(addresses)));
        InheritError::NoSuchListener(socket.clone(), admitted.collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InheritError::Count(count) => {
                write!(f, "LISTEN_FDS is {count:?}; expected a number from 0 to {MAX_SOCKETS}")
            }
            InheritError::Names(sockets, names) => {
                write!(
                    f,
                    "LISTEN_FDNAMES has {names} names for {sockets} sockets; expected one name for each"
                )
            }
            InheritError::NoListener(descriptor, name, why) => write!(
                f,
                "the passed descriptor {descriptor} ({name:?}) is no listening TCP socket: {why}; use ListenStream= \
                 with an address and a port, and Accept=no"
            ),
            InheritError::NoSuchListener(socket, keys) => write!(
                f,
                "{socket} has the address of no listener among {keys}; make ListenStream= and the key the same"
            ),
            InheritError::Twice(socket, key) => {
                write!(f, "{socket} is the second one for an address of {key}; pass one")
            }
        }
    }
}

impl std::error::Error for InheritError {}

/// The sockets that were passed to this process.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    pub sockets: Vec<InheritedSocket>,
    /// The process that sockets were passed to, if it is another one: a shell between the manager and Pillion, for
    /// example.
    pub other_process: Option<String>,
}

impl Inherited {
    /// Takes the sockets. Call this before any thread is started: it changes the environment, so that a second call, and
    /// commands that this process starts, find none.
    pub(super) fn take() -> Result<Inherited, InheritError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(count) = variable("LISTEN_FDS") else { return Ok(Inherited::default()) };
        let process = variable("LISTEN_PID");
        if process.as_deref() != Some(&std::process::id().to_string()) {
            return Ok(Inherited { other_process: process, ..Inherited::default() });
        }
        let number = count.parse().ok().filter(|number| *number <= MAX_SOCKETS);
        let number: usize = number.ok_or(InheritError::Count(count))?;
        let names = names(variable("LISTEN_FDNAMES").as_deref(), number)?;
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::with_capacity(number);
        for (index, name) in names.into_iter().enumerate() {
            let descriptor = FIRST + index;
            let no_listener = |why: String| InheritError::NoListener(descriptor, name.clone(), why);
            let taken = passed.take_tcp_listener(index).map_err(|error| no_listener(error.to_string()))?;
            let listener = taken.ok_or_else(|| no_listener("it was not passed".to_owned()))?;
            let fail = |error: std::io::Error| no_listener(error.to_string());
            if !SockRef::from(&listener).is_listener().map_err(fail)? {
                return Err(no_listener("it does not listen".to_owned()));
            }
            listener.set_nonblocking(true).map_err(fail)?;
            let address = listener.local_addr().map_err(fail)?;
            sockets
                .push(InheritedSocket { identity: SocketIdentity { descriptor, name, address }, listener });
        }
        Ok(Inherited { sockets, other_process: None })
    }

    /// Takes the socket for an address of a key, if it was passed.
    pub(super) fn socket_for(&mut self, key: &str, address: SocketAddr) -> Option<InheritedSocket> {
        let fits = |socket: &InheritedSocket| {
            admits(&socket.identity.name, key) && is_address(address, socket.identity.address)
        };
        let at = self.sockets.iter().position(fits)?;
        Some(self.sockets.swap_remove(at))
    }

    /// Fails if a socket is for no listener, before any address is bound. Nobody would accept its connections.
    pub(super) fn check(&self, keys: &[(&'static str, &[SocketAddr])]) -> Result<(), InheritError> {
        check(self.sockets.iter().map(|socket| &socket.identity), keys)
    }
}

/// Checks that each socket is the only one for an address of a key that its name admits.
fn check<'a>(
    sockets: impl Iterator<Item = &'a SocketIdentity>,
    keys: &[(&'static str, &[SocketAddr])],
) -> Result<(), InheritError> {
    let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
    for socket in sockets {
        let fitting =
            keys.iter().filter(|(key, _)| admits(&socket.name, key)).find_map(|(key, addresses)| {
                let address = addresses.iter().find(|address| is_address(**address, socket.address))?;
                Some((*key, *address))
            });
        match fitting {
            None => return Err(InheritError::no_such_listener(socket, keys)),
            Some(place) if taken.contains(&place) => {
                return Err(InheritError::Twice(socket.clone(), place.0));
            }
            Some(place) => taken.push(place),
        }
    }
    Ok(())
}

/// Returns the names of `count` sockets. Without LISTEN_FDNAMES all have the name that systemd gives then.
fn names(written: Option<&str>, count: usize) -> Result<Vec<String>, InheritError> {
    let Some(written) = written else { return Ok(vec!["unknown".to_owned(); count]) };
    let names: Vec<String> = written.split(':').map(str::to_owned).collect();
    if names.len() == count { Ok(names) } else { Err(InheritError::Names(count, names.len())) }
}

/// Returns whether a socket of this name may serve the listeners of `key`. A name that names no listener admits all: the
/// address decides.
fn admits(name: &str, key: &str) -> bool {
    LISTENERS.iter().find(|(known, _)| *known == name).is_none_or(|(_, own)| *own == key)
}

/// Returns whether a socket listens on the configured address. `[::]` is `0.0.0.0` on a machine without IPv6.
fn is_address(configured: SocketAddr, actual: SocketAddr) -> bool {
    let is_same_port = configured.port() == actual.port();
    let is_fallback = configured.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
        && actual.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    is_same_port && (configured.ip() == actual.ip() || is_fallback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn socket_serves_the_listener_of_its_name_and_address() {
        for (name, key, expected) in [
            ("http", "server.listen", true),
            ("http", "server.tls.listen", false),
            ("https", "server.tls.listen", true),
            ("admin", "server.admin", true),
            ("admin", "server.probes", false),
            ("probes", "server.probes", true),
            ("pillion.socket", "server.listen", true),
            ("unknown", "server.admin", true),
            ("", "server.admin", true),
        ] {
            assert_eq!(admits(name, key), expected, "{name} {key}");
        }
        for (configured, actual, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "0.0.0.0:80", false),
            ("[::]:80", "[::]:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            // This would serve IPv6 where nobody configured it.
            ("0.0.0.0:80", "[::]:80", false),
            ("[::1]:80", "127.0.0.1:80", false),
            ("127.0.0.1:0", "127.0.0.1:80", false),
        ] {
            assert_eq!(is_address(address(configured), address(actual)), expected, "{configured} {actual}");
        }
    }

    #[test]
    fn names_are_one_for_each_socket() {
        assert_eq!(names(None, 2).unwrap(), ["unknown", "unknown"]);
        assert_eq!(names(Some("http:admin"), 2).unwrap(), ["http", "admin"]);
        assert_eq!(names(Some("http::x"), 3).unwrap(), ["http", "", "x"]);
        let error = names(Some("http"), 2).unwrap_err().to_string();
        assert_eq!(error, "LISTEN_FDNAMES has 1 names for 2 sockets; expected one name for each");
    }

    #[test]
    fn socket_that_no_listener_takes_is_told_with_the_keys_it_may_be_for() {
        let data = [address("127.0.0.1:8080")];
        let keys: [(&str, &[SocketAddr]); 2] = [("server.listen", &data), ("server.admin", &[])];
        let socket = |name: &str, at: &str| SocketIdentity {
            descriptor: 3,
            name: name.to_owned(),
            address: address(at),
        };
        for (name, at, expected) in [
            ("http", "127.0.0.1:80", "among server.listen (127.0.0.1:8080); make ListenStream="),
            ("admin", "127.0.0.1:8080", "among server.admin (off);"),
            ("x", "127.0.0.1:80", "among server.listen (127.0.0.1:8080), server.admin (off);"),
        ] {
            let said = check([&socket(name, at)].into_iter(), &keys).unwrap_err().to_string();
            assert!(said.contains(expected) && said.contains("(descriptor 3)"), "{name} {at}: {said}");
        }
        let good = socket("http", "127.0.0.1:8080");
        check([&good].into_iter(), &keys).unwrap();
        let said = check([&good, &socket("x", "127.0.0.1:8080")].into_iter(), &keys).unwrap_err().to_string();
        assert!(said.contains("is the second one for an address of server.listen; pass one"), "{said}");
    }
}
