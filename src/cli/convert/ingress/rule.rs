//! The rules of Ingresses, and the order in which they are tried.

use std::cmp::Reverse;

use crate::yaml::Node;

/// How a path is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathType {
    Exact,
    /// By whole segments.
    Prefix,
}

/// A path of a rule.
#[derive(Clone, Debug)]
pub(super) struct Rule<'a> {
    pub ingress: &'a Node,
    /// The host, or "" for any.
    pub host: String,
    pub form: PathType,
    pub path: String,
    pub backend: &'a Node,
}

/// The namespace and name of an object, for people.
pub(super) fn name(object: &Node) -> String {
    let text = |key: &str| object.at(&["metadata", key]).and_then(Node::text);
    let name = text("name").unwrap_or("without a name");
    match text("namespace") {
        Some(namespace) => format!("Ingress {namespace}/{name}"),
        None => format!("Ingress {name}"),
    }
}

/// The namespace of an object; "" if it says none.
pub(super) fn namespace(object: &Node) -> &str {
    object.at(&["metadata", "namespace"]).and_then(Node::text).unwrap_or("")
}

/// Lists the paths of an Ingress, each also for the further hosts `aliases`. The error names what is wrong.
pub(super) fn rules<'a>(ingress: &'a Node, aliases: &[String]) -> Result<Vec<Rule<'a>>, String> {
    let mut all = Vec::new();
    for rule in ingress.at(&["spec", "rules"]).map(Node::items).unwrap_or_default() {
        let host = rule.get("host").and_then(Node::text).unwrap_or("").to_owned();
        let hosts = [host].into_iter().chain(aliases.iter().cloned());
        let paths = rule.at(&["http", "paths"]).map(Node::items).unwrap_or_default();
        for host in hosts {
            for path in paths {
                let text = |key: &str| path.get(key).and_then(Node::text);
                let form = match text("pathType") {
                    Some("Exact") => PathType::Exact,
                    Some("Prefix" | "ImplementationSpecific") => PathType::Prefix,
                    other => {
                        let given = other.unwrap_or("missing");
                        return Err(format!(
                            "{}: pathType is {given}; expected Exact, Prefix or ImplementationSpecific",
                            name(ingress)
                        ));
                    }
                };
                let Some(backend) = path.get("backend") else {
                    return Err(format!("{}: a path has no backend", name(ingress)));
                };
                let path = text("path").unwrap_or("/").to_owned();
                all.push(Rule { ingress, host: host.clone(), form, path, backend });
            }
        }
    }
    Ok(all)
}

impl Rule<'_> {
    /// The place in the order in which rules are tried: hosts by name first, then wildcards, then any; the longest path
    /// first, and an exact one before a prefix (networking.k8s.io/v1, HTTPIngressPath).
    pub(super) fn order(&self) -> (u8, Reverse<usize>, Reverse<usize>, PathType) {
        let host = match self.host.as_str() {
            "" => 2,
            host if host.starts_with("*.") => 1,
            _ => 0,
        };
        (host, Reverse(self.host.len()), Reverse(self.path.trim_end_matches('/').len()), self.form)
    }
}
