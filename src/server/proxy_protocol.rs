//! The PROXY header, versions 1 and 2, which a load balancer puts before the first byte of a connection (haproxy.org,
//! proxy-protocol.txt). It is read exactly to its end, so that TLS may follow.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Maximum length of a version 1 line in bytes.
const MAX_LINE_LENGTH: usize = 107;
/// Maximum length of a version 2 header in bytes; addresses and the usual extensions need far less.
const MAX_BINARY_LENGTH: usize = 4096;

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads the header and returns the client that it names; `None` if it names none (LOCAL, UNKNOWN, other families).
pub(crate) async fn read(tcp: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut start = [0u8; 12];
    tcp.read_exact(&mut start).await?;
    if &start == SIGNATURE {
        return binary(tcp).await;
    }
    if !start.starts_with(b"PROXY ") {
        return Err(malformed("a trusted peer sent no PROXY header"));
    }
    let mut line = start.to_vec();
    let mut window = [0u8; MAX_LINE_LENGTH];
    while !line.ends_with(b"\n") {
        let room = MAX_LINE_LENGTH - line.len();
        if room == 0 {
            return Err(malformed("the PROXY line is too long"));
        }
        let seen = tcp.peek(&mut window[..room]).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let take = window[..seen].iter().position(|byte| *byte == b'\n').map_or(seen, |at| at + 1);
        let from = line.len();
        line.resize(from + take, 0);
        tcp.read_exact(&mut line[from..]).await?;
    }
    text(&line)
}

/// Parses a complete line of version 1.
pub fn text(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let line = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix("\r\n"));
    let parts: Vec<&str> = line.ok_or_else(|| malformed("the PROXY line is malformed"))?.split(' ').collect();
    match parts[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, _, port, _] => {
            let ip: IpAddr = source.parse().map_err(|_| malformed("the PROXY line names no address"))?;
            let port = port.parse().map_err(|_| malformed("the PROXY line names no port"))?;
            if ip.is_ipv4() != (family == "TCP4") {
                return Err(malformed("the PROXY line's address is of another family"));
            }
            Ok(Some(SocketAddr::new(ip, port)))
        }
        _ => Err(malformed("the PROXY line is malformed")),
    }
}

async fn binary(tcp: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut head = [0u8; 4];
    tcp.read_exact(&mut head).await?;
    let [version_command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 || length > MAX_BINARY_LENGTH {
        return Err(malformed("the PROXY header is malformed"));
    }
    let mut rest = vec![0u8; length];
    tcp.read_exact(&mut rest).await?;
    addresses(version_command, family, &rest)
}

/// Parses the part of a version 2 header that follows its length.
pub fn addresses(version_command: u8, family: u8, rest: &[u8]) -> io::Result<Option<SocketAddr>> {
    match (version_command & 15, family) {
        (0, _) => Ok(None),
        (1, 0x11) => match rest.first_chunk::<12>() {
            Some([a, b, c, d, _, _, _, _, high, low, ..]) => {
                let ip = Ipv4Addr::new(*a, *b, *c, *d);
                Ok(Some(SocketAddr::from((ip, u16::from_be_bytes([*high, *low])))))
            }
            None => Err(malformed("the PROXY header is too short")),
        },
        (1, 0x21) => match (rest.first_chunk::<16>(), rest.get(32..34)) {
            (Some(source), Some([high, low])) => {
                let ip = Ipv6Addr::from(*source);
                Ok(Some(SocketAddr::from((ip, u16::from_be_bytes([*high, *low])))))
            }
            _ => Err(malformed("the PROXY header is too short")),
        },
        (1, _) => Ok(None),
        _ => Err(malformed("the PROXY header's command is unknown")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let client = |line: &str| text(line.as_bytes()).map(|client| client.map(|client| client.to_string()));
        assert_eq!(
            client("PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\n").expect("valid"),
            Some("1.2.3.4:1111".to_owned())
        );
        assert_eq!(client("PROXY TCP6 ::1 ::2 1 2\r\n").expect("valid"), Some("[::1]:1".to_owned()));
        assert_eq!(client("PROXY UNKNOWN\r\n").expect("valid"), None);
        for wrong in [
            "PROXY TCP4 ::1 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 x 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        ] {
            assert!(client(wrong).is_err(), "{wrong:?}");
        }
    }
}
