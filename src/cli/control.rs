//! The commands `pillion reload`, `maintenance`, `drain`, `quit` and `purge`: a small client of the admin listener, for places where
//! no shell can send a signal. `pillion health` and `pillion explain` use it too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};

use super::output::{FAILED, OK, fail, say};
use super::source::default_file;
use crate::app;
use crate::config;
use crate::rendering::secret::Secret;

/// Timeout of a request. A reload may read many files; every other command is faster.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum bytes of a response that are read; effective settings of thousands of routes fit.
const MAX_RESPONSE: u64 = 16 * 1024 * 1024;
/// Maximum bytes of standard input that are read.
const MAX_INPUT: u64 = 64 * 1024;

/// How to reach the running process.
#[derive(Clone, Debug, Args)]
pub(super) struct Admin {
    /// Address of its admin listener [default: server.admin of the configuration]
    #[arg(short, long, value_name = "ADDR", value_parser = admin_address, value_hint = ValueHint::Other)]
    admin: Option<SocketAddr>,
    /// Configuration file of the running Pillion
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) config: Option<PathBuf>,
    /// Its admin token [default: server.admin_token of the configuration]
    #[arg(short, long, value_name = "TOKEN", env = "PILLION_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<Secret<String>>,
}

impl Admin {
    /// Whether the options name a process and not only its file.
    pub(super) fn names_process(&self) -> bool {
        self.admin.is_some()
    }

    /// Returns the address and the token. The configuration file is read only for values not given as options. A
    /// command that only `reads` may fall back to the probes listener.
    fn resolve(&self, reads: bool) -> Result<(SocketAddr, Option<Secret<String>>), String> {
        let named = self.config.clone();
        // The file is read only for values that were not given.
        if let Some(admin) = self.admin
            && (named.is_none() || self.token.is_some())
        {
            return Ok((reachable(admin), self.token.clone()));
        }
        let Some(file) = named.or_else(default_file) else {
            return Ok((SocketAddr::from(([127, 0, 0, 1], 9900)), self.token.clone()));
        };
        let place = config::admin_place(&file, &app::environment())
            .map_err(|error| format!("{error}\n(with --admin ADDR no file is needed)"))?;
        let admin = self.admin.or(place.address).or(place.probes.filter(|_| reads));
        let admin = admin.ok_or("the configuration turns the admin listener off (server.admin)")?;
        Ok((reachable(admin), self.token.clone().or(place.token)))
    }
}

/// Parses an address in the forms that `server.admin` takes.
fn admin_address(text: &str) -> Result<SocketAddr, String> {
    config::first_listener(text)
        .ok_or_else(|| "expected an address and a port, like 127.0.0.1:9900".to_owned())
}

/// Returns the address under which this machine reaches a listener.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = if listener.ip().is_unspecified() { [127, 0, 0, 1].into() } else { listener.ip() };
    SocketAddr::new(ip, listener.port())
}

impl Admin {
    /// Returns the body of the response to a GET request, whatever its status.
    pub(super) fn ask(&self, path: &str) -> Result<String, String> {
        Ok(self.get(path, TIMEOUT)?.1)
    }

    /// Returns whether the response to a GET request is a success (2xx), and its body.
    pub(super) fn get(&self, path: &str, timeout: Duration) -> Result<(bool, String), String> {
        let (address, token) = self.resolve(true)?;
        let (fine, _, body) = exchange(address, "GET", path, "", token.as_ref(), timeout)?;
        Ok((fine, body.trim_end().to_owned()))
    }
}

impl Admin {
    /// Returns the content of the response to a GET request, line by line as it arrives. A status other than 2xx is an
    /// error, and so is a silence longer than `silence`.
    pub(super) fn stream(&self, path: &str, silence: Duration) -> Result<BufReader<TcpStream>, String> {
        let (address, token) = self.resolve(false)?;
        let open = || -> std::io::Result<(String, BufReader<TcpStream>)> {
            let mut tcp = TcpStream::connect_timeout(&address, TIMEOUT)?;
            tcp.set_read_timeout(Some(silence))?;
            let authorization = authorization(token.as_ref());
            // The content of a response to HTTP/1.0 is not in chunks.
            write!(tcp, "GET {path} HTTP/1.0\r\nhost: {address}\r\n{authorization}\r\n")?;
            let mut lines = BufReader::new(tcp);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                let room = MAX_INPUT.saturating_sub(head.len() as u64);
                if (&mut lines).take(room).read_line(&mut head)? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok((head, lines))
        };
        let (head, mut lines) = open().map_err(|error| unreachable(address, &error))?;
        if head.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
            return Ok(lines);
        }
        let mut body = String::new();
        // A problem document that breaks off is shown as far as it came.
        let _ = (&mut lines).take(MAX_RESPONSE).read_to_string(&mut body);
        Err(detail(&body)
            .unwrap_or_else(|| format!("{} {}", head.lines().next().unwrap_or(""), body.trim_end())))
    }

    /// Returns whether the response to a POST request is a success (2xx), and its body.
    pub(super) fn send(&self, path: &str, content: &str) -> Result<(bool, String), String> {
        let (address, token) = self.resolve(false)?;
        let (fine, _, body) = exchange(address, "POST", path, content, token.as_ref(), TIMEOUT)?;
        Ok((fine, body.trim_end().to_owned()))
    }
}

/// The state of maintenance to switch to.
#[derive(Clone, Debug, Args)]
pub(super) struct Maintenance {
    /// Whether maintenance is on
    #[arg(value_enum)]
    state: MaintenanceState,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MaintenanceState {
    On,
    Off,
}

/// The selection of stored responses to purge.
#[derive(Clone, Debug, Args)]
#[group(id = "names", required = true, multiple = true, args = ["url", "prefix", "tag", "principal", "everything"])]
pub(super) struct Purge {
    /// Path or URL: purge every query, variant and user of it
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// Path: purge it and every path below it
    #[arg(long, value_name = "PATH")]
    prefix: Vec<String>,
    /// Purge every response with this tag
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Purge every response of one user: SOURCE=VALUE as in identity.principal; "-" reads it from standard input
    #[arg(long, value_name = "SOURCE=VALUE")]
    principal: Vec<String>,
    /// Purge every stored response
    #[arg(long)]
    everything: bool,
    /// Mark responses as stale instead of removing them
    #[arg(long)]
    soft: bool,
    #[command(flatten)]
    admin: Admin,
}

impl Purge {
    fn form(&self) -> std::io::Result<String> {
        let mut form = vec![format!("mode={}", if self.soft { "soft" } else { "hard" })];
        let lists = [("url", &self.url), ("prefix", &self.prefix), ("tag", &self.tag)];
        for (name, values) in lists {
            form.extend(values.iter().map(|value| format!("{name}={}", encoded(value))));
        }
        for value in &self.principal {
            let mut value = value.clone();
            if value == "-" {
                value.clear();
                std::io::stdin().take(MAX_INPUT).read_to_string(&mut value)?;
            }
            form.push(format!("principal={}", encoded(value.trim_end_matches(['\r', '\n']))));
        }
        if self.everything {
            form.push("everything=true".to_owned());
        }
        Ok(form.join("&"))
    }
}

/// Percent-encodes a value for a form body.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/');
    text.bytes().fold(String::new(), |mut out, byte| {
        if plain(byte) {
            out.push(char::from(byte))
        } else {
            out.push_str(&format!("%{byte:02X}"))
        }
        out
    })
}

/// Sends a purge request, and prints the response.
pub(super) fn purge(purge: Purge) -> u8 {
    let form = match purge.form() {
        Ok(form) => form,
        Err(error) => return fail(FAILED, &format!("standard input: {error}")),
    };
    show("/cache/purge", &form, purge.admin)
}

/// Switches maintenance, and prints the response.
pub(super) fn maintenance(options: Maintenance) -> u8 {
    let path = match options.state {
        MaintenanceState::On => "/maintenance?state=on",
        MaintenanceState::Off => "/maintenance?state=off",
    };
    show(path, "", options.admin)
}

/// Sends a POST request for `path`, and prints the response.
pub(super) fn run(path: &str, admin: Admin) -> u8 {
    show(path, "", admin)
}

fn show(path: &str, form: &str, admin: Admin) -> u8 {
    let posted = admin.resolve(false).and_then(|(address, token)| post(address, path, form, token.as_ref()));
    match posted {
        Ok((true, text)) => {
            say(&text.trim_end());
            OK
        }
        Ok((false, text)) if text.contains("admin token") => fail(
            FAILED,
            &format!("{}; if the token in the file is new, give the old one with --token", text.trim_end()),
        ),
        Ok((false, text)) => fail(FAILED, &text.trim_end()),
        Err(why) => fail(FAILED, &why),
    }
}

fn post(
    address: SocketAddr,
    path: &str,
    form: &str,
    token: Option<&Secret<String>>,
) -> Result<(bool, String), String> {
    let (fine, status, body) = exchange(address, "POST", path, form, token, TIMEOUT)?;
    // The detail of a rejected configuration has many lines, which are shown without the JSON around them.
    let shown = match detail(&body) {
        Some(detail) if status.starts_with('2') => format!("reloaded; changed: {detail}\n"),
        Some(detail) => detail,
        None => body,
    };
    Ok((fine, shown))
}

/// Returns the detail of a problem document.
pub(super) fn detail(body: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(body).ok()?;
    value.get("detail")?.as_str().map(str::to_owned)
}

fn authorization(token: Option<&Secret<String>>) -> String {
    token.map_or_else(String::new, |token| format!("authorization: Bearer {}\r\n", token.expose()))
}

fn unreachable(address: SocketAddr, error: &std::io::Error) -> String {
    format!("cannot reach the admin listener at {address}: {error}")
}

/// Sends one request. Returns whether the status is 2xx, the status, and the body.
fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    form: &str,
    token: Option<&Secret<String>>,
    timeout: Duration,
) -> Result<(bool, String, String), String> {
    let exchange = || -> std::io::Result<String> {
        let mut tcp = TcpStream::connect_timeout(&address, timeout)?;
        tcp.set_read_timeout(Some(timeout))?;
        let authorization = authorization(token);
        write!(
            tcp,
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\nconnection: close\r\n{authorization}\r\n{form}",
            form.len()
        )?;
        let mut response = String::new();
        tcp.take(MAX_RESPONSE).read_to_string(&mut response)?;
        Ok(response)
    };
    let response = exchange().map_err(|error| unreachable(address, &error))?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or("the admin listener did not respond in HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or("").to_owned();
    Ok((status.starts_with('2'), status, body.to_owned()))
}
