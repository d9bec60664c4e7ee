//! From Ingresses of Kubernetes to Pillion's configuration.

mod annotations;
mod routes;
mod rule;

use std::io::Read as _;
use std::path::Path;

use crate::cli::convert::output::Converted;
use crate::yaml::{self, Node};

/// Maximum length of the documents, in bytes.
const MAX_INPUT: u64 = 16 * 1024 * 1024;

/// Converts all Ingresses of a file. The error says what is wrong with it.
pub(super) fn convert(file: &Path) -> Result<Converted, String> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let text = read(file).map_err(|error| format!("{name}: {error}"))?;
    if text.len() as u64 > MAX_INPUT {
        return Err(format!("{name}: longer than {MAX_INPUT} bytes"));
    }
    let documents = yaml::parse(&text).map_err(|error| format!("{name}: {error}"))?;
    let mut objects: Vec<&Node> = Vec::new();
    for document in &documents {
        match kind(&document.root) {
            // As `kubectl get -o yaml` prints several.
            "List" => objects.extend(document.root.get("items").map(Node::items).unwrap_or_default()),
            _ => objects.push(&document.root),
        }
    }
    let ingresses: Vec<&Node> = objects.iter().copied().filter(|object| kind(object) == "Ingress").collect();
    if ingresses.is_empty() {
        return Err(format!("{name}: there is no Ingress in it"));
    }
    for ingress in &ingresses {
        let version = ingress.get("apiVersion").and_then(Node::text).unwrap_or("");
        if version != "networking.k8s.io/v1" {
            let of = rule::name(ingress);
            return Err(format!("{name}: {of} is of {version:?}; expected networking.k8s.io/v1"));
        }
    }
    let services: Vec<&Node> = objects.into_iter().filter(|object| kind(object) == "Service").collect();
    routes::convert(&ingresses, &services)
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    match file == Path::new("-") {
        true => std::io::stdin().lock().take(MAX_INPUT + 1).read_to_string(&mut text)?,
        false => std::fs::File::open(file)?.take(MAX_INPUT + 1).read_to_string(&mut text)?,
    };
    Ok(text)
}

fn kind(object: &Node) -> &str {
    object.get("kind").and_then(Node::text).unwrap_or("")
}
