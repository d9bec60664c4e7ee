//! The command `pillion compose`: prints an override file for Docker Compose that puts Pillion in front of a service.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::generate::write;
use super::output::{PROBLEMS, fail};
use crate::runtime::file_access;
use crate::yaml::{Node, Style, Value, YamlError, parse};

/// The files that Compose looks for, in its order.
const DEFAULT_FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// The port on which Pillion takes requests in its container.
const LISTEN: u16 = 8080;
/// The folder that is mounted if it has a configuration.
const FOLDER: &str = "./pillion";

/// The arguments of `pillion compose`.
#[derive(Debug, Args)]
#[command(after_help = "Example: pillion compose web > compose.override.yaml\n\n\
    Compose reads compose.override.yaml beside compose.yaml by itself. Clients come to Pillion by the ports that the \
    service had; the service is reached through Pillion alone. No file is changed. A folder ./pillion with pillion.toml \
    is mounted.")]
pub(super) struct Options {
    /// The service of the app
    service: String,
    /// The Compose file [default: compose.yaml, compose.yml, docker-compose.yaml or docker-compose.yml here]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The port of the app in its container, where the service has several or none
    #[arg(long = "app-port", value_name = "PORT")]
    port: Option<u16>,
    /// The image of Pillion
    #[arg(long, value_name = "IMAGE", default_value = concat!("pillion:", env!("CARGO_PKG_VERSION")))]
    image: String,
}

/// The reason why there is no override file, with its remedy.
#[derive(Debug)]
enum ComposeError {
    NoFile,
    Read(PathBuf, std::io::Error),
    Yaml(PathBuf, YamlError),
    Service(String),
}

impl fmt::Display for ComposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ComposeError::NoFile => {
                write!(f, "there is no {} here; name the file with --file", DEFAULT_FILES.join(", "))
            }
            ComposeError::Read(file, error) => {
                write!(f, "{}: {error}{}", file.display(), file_access::after(file, error))
            }
            ComposeError::Yaml(file, error) => write!(f, "{}: {error}", file.display()),
            ComposeError::Service(problem) => f.write_str(problem),
        }
    }
}

/// Prints the override file.
pub(super) fn run(options: Options) -> u8 {
    match read(&options).and_then(|compose| override_file(&compose, &options, has_configuration())) {
        Ok(text) => write(text.as_bytes()),
        Err(error) => fail(PROBLEMS, &error),
    }
}

fn has_configuration() -> bool {
    Path::new(FOLDER).join("pillion.toml").is_file()
}

fn read(options: &Options) -> Result<Node, ComposeError> {
    let default = || DEFAULT_FILES.iter().map(PathBuf::from).find(|file| file.is_file());
    let file = options.file.clone().or_else(default).ok_or(ComposeError::NoFile)?;
    let text = std::fs::read_to_string(&file).map_err(|error| ComposeError::Read(file.clone(), error))?;
    let mut documents = parse(&text).map_err(|error| ComposeError::Yaml(file, error))?;
    Ok(match documents.is_empty() {
        true => Node::mapping(),
        false => documents.remove(0).root,
    })
}

/// A published port of a service.
#[derive(Debug, PartialEq, Eq)]
struct Published {
    /// The part of the host: a port, or an address and a port; `None` where Docker chooses.
    host: Option<String>,
    /// The port in the container.
    container: u16,
}

/// Returns the TCP port that an entry of `ports` publishes; `None` for UDP and for ranges.
fn published(entry: &Node) -> Option<Published> {
    let Some(text) = entry.text() else {
        let is_tcp = entry.get("protocol").and_then(Node::text).is_none_or(|name| name == "tcp");
        let port = entry.get("published").and_then(Node::text);
        let host = match (entry.get("host_ip").and_then(Node::text), port) {
            (Some(address), port) => Some(format!("{address}:{}", port.unwrap_or(""))),
            (None, port) => port.map(str::to_owned),
        };
        let container = entry.get("target")?.number()?;
        return is_tcp.then_some(Published { host, container });
    };
    let text = text.strip_suffix("/tcp").unwrap_or(text);
    let (host, container) = match text.rsplit_once(':') {
        Some((host, container)) => (Some(host.to_owned()), container),
        None => (None, text),
    };
    Some(Published { host, container: container.parse().ok()? })
}

/// Returns the override file. `mounts` says whether there is a folder with a configuration.
fn override_file(compose: &Node, options: &Options, mounts: bool) -> Result<String, ComposeError> {
    let name = &options.service;
    let wrong = |problem: String| Err(ComposeError::Service(problem));
    let services = compose.get("services").map_or(&[][..], Node::entries);
    let known: Vec<_> = services.iter().filter_map(|(name, _)| name.text()).collect();
    let Some((_, service)) = services.iter().find(|(key, _)| key.text() == Some(name)) else {
        return wrong(format!("there is no service {name:?}; the services are {}", known.join(", ")));
    };
    if known.contains(&"pillion") {
        return wrong("there is a service \"pillion\" already".to_owned());
    }
    if let Some(mode) = service.get("network_mode").and_then(Node::text) {
        return wrong(format!(
            "service {name:?} has network_mode {mode:?}, in which no other service reaches it by its name; take it out"
        ));
    }
    let entries = service.get("ports").map_or(&[][..], Node::items);
    let ports: Vec<Published> = entries.iter().filter_map(published).collect();
    let port = match (options.port, &ports[..]) {
        (Some(port), _) => port,
        (None, [one]) => one.container,
        (None, []) => match service.get("expose").map_or(&[][..], Node::items) {
            [one] if one.number::<u16>().is_some() => one.number().unwrap_or_default(),
            _ => {
                return wrong(format!(
                    "service {name:?} publishes no port; give the port on which the app listens with --app-port"
                ));
            }
        },
        (None, several) => {
            let shown: Vec<_> = several.iter().map(|port| port.container.to_string()).collect();
            return wrong(format!(
                "service {name:?} publishes several ports ({}); name the app's with --app-port",
                shown.join(", ")
            ));
        }
    };
    let is_of_app = |entry: &&Node| published(entry).is_some_and(|published| published.container == port);
    let taken: Vec<String> = entries
        .iter()
        .filter(is_of_app)
        .filter_map(published)
        .map(|published| match published.host {
            Some(host) => format!("{host}:{LISTEN}"),
            None => LISTEN.to_string(),
        })
        .collect();
    let kept: Vec<Node> = entries.iter().filter(|entry| !is_of_app(entry)).cloned().collect();
    let mut app = Node::mapping();
    let tag = if kept.is_empty() { "!reset" } else { "!override" };
    app.set("ports", Node { tag: Some(tag.to_owned()), value: Value::Sequence(kept) });
    let mut pillion = Node::mapping();
    pillion.set("image", quoted(&options.image));
    let command =
        ["run", "--listen", "[::]:8080", "--upstream", &format!("http://{name}:{port}")].map(quoted);
    pillion.set("command", Node { tag: None, value: Value::Sequence(command.to_vec()) });
    let taken = if taken.is_empty() { vec![format!("{LISTEN}:{LISTEN}")] } else { taken };
    for port in &taken {
        pillion.push("ports", quoted(port));
    }
    if mounts {
        pillion.push("volumes", quoted(&format!("{FOLDER}:/etc/pillion:ro")));
    }
    // Docker reaches a service by its name only in a network that both are in.
    if let Some(networks) = service.get("networks") {
        let names: Vec<Node> = match &networks.value {
            Value::Mapping(entries) => entries.iter().map(|(name, _)| name.clone()).collect(),
            _ => networks.items().to_vec(),
        };
        pillion.set("networks", Node { tag: None, value: Value::Sequence(names) });
    }
    for document in parse(REST).map_err(|error| ComposeError::Yaml(PathBuf::new(), error))? {
        for (key, value) in document.root.entries() {
            pillion.set(key.text().unwrap_or(""), value.clone());
        }
    }
    pillion.push("depends_on", Node::plain(name.clone()));
    let mut all = Node::mapping();
    all.set(name, app);
    all.set("pillion", pillion);
    let mut root = Node::mapping();
    root.set("services", all);
    Ok(format!(
        "# Pillion in front of {name}, as `pillion compose {name}` prints it. Save it as compose.override.yaml beside the \
        Compose\n# file; Docker Compose 2.24.4 or later reads !reset and !override. Clients come by the ports that {name} \
        had.\n{root}"
    ))
}

/// The rest of the service: as little as it needs, and time to end.
const REST: &str = "\
restart: unless-stopped
read_only: true
cap_drop:
  - ALL
security_opt:
  - no-new-privileges:true
stop_grace_period: 40s
healthcheck:
  test:
    - CMD
    - /pillion
    - health
    - --ready
  interval: 10s
  timeout: 3s
  retries: 3
  start_period: 5s
";

fn quoted(text: &str) -> Node {
    Node { tag: None, value: Value::Scalar(text.to_owned(), Style::Quoted) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn options(service: &str, port: Option<u16>) -> Options {
        Options { service: service.to_owned(), file: None, port, image: "pillion:1".to_owned() }
    }

    fn made(compose: &str, service: &str, port: Option<u16>) -> Result<Node, String> {
        let compose = parse(compose).unwrap().remove(0).root;
        let text =
            override_file(&compose, &options(service, port), false).map_err(|error| error.to_string())?;
        Ok(parse(&text).unwrap().remove(0).root)
    }

    fn texts(node: Option<&Node>) -> Vec<&str> {
        node.unwrap().items().iter().filter_map(Node::text).collect()
    }

    #[test]
    fn ports_of_the_service_lead_to_pillion() {
        for (ports, taken) in [
            ("[\"8080:3000\"]", "8080:8080"),
            ("['127.0.0.1:80:3000/tcp']", "127.0.0.1:80:8080"),
            ("[3000]", "8080"),
            ("[\"${PORT:-80}:3000\"]", "${PORT:-80}:8080"),
            ("[{target: 3000, published: \"8080\", host_ip: 127.0.0.1}]", "127.0.0.1:8080:8080"),
        ] {
            let root =
                made(&format!("services: {{web: {{image: x, ports: {ports}}}}}"), "web", None).unwrap();
            let pillion = root.at(&["services", "pillion"]).unwrap();
            assert_eq!(texts(pillion.get("ports")), [taken]);
            assert_eq!(texts(pillion.get("command")).last(), Some(&"http://web:3000"));
            let kept = root.at(&["services", "web", "ports"]).unwrap();
            assert_eq!((kept.tag.as_deref(), kept.items().len()), (Some("!reset"), 0), "{ports}");
        }
    }

    #[test]
    fn other_ports_stay_with_the_service() {
        let compose = "services: {web: {ports: ['80:3000', '9229:9229', '53:53/udp']}}";
        let root = made(compose, "web", Some(3000)).unwrap();
        let kept = root.at(&["services", "web", "ports"]).unwrap();
        assert_eq!(kept.tag.as_deref(), Some("!override"));
        assert_eq!(texts(Some(kept)), ["9229:9229", "53:53/udp"]);
    }

    #[test]
    fn pillion_is_in_the_networks_of_the_service() {
        let compose = "services: {web: {expose: [3000], networks: {front: {aliases: [a]}, back: }}}";
        let root = made(compose, "web", None).unwrap();
        assert_eq!(texts(root.at(&["services", "pillion", "networks"])), ["front", "back"]);
    }

    #[test]
    fn a_service_that_cannot_be_fronted_is_told_with_its_remedy() {
        for (compose, service, problem) in [
            ("services: {web: {}}", "api", "the services are web"),
            ("services: {web: {}}", "web", "--app-port"),
            ("services: {web: {ports: ['1:1', '2:2']}}", "web", "several ports (1, 2)"),
            ("services: {web: {network_mode: host, ports: ['1:1']}}", "web", "network_mode"),
            ("services: {web: {ports: ['1:1']}, pillion: {}}", "web", "already"),
        ] {
            let told = made(compose, service, None).unwrap_err();
            assert!(told.contains(problem), "{told}");
        }
    }
}
