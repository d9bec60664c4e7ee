//! The command `pillion inject`: puts the sidecar into the workloads of a Kubernetes manifest, and lets their Services
//! lead to it.

mod error;
mod options;
mod ports;
mod service;
mod sidecar;
mod workload;

use std::fmt::Write as _;
use std::io::Read as _;

use super::generate::write;
use super::output::{PROBLEMS, complain, fail};
use crate::yaml::{Document, Node, Value, parse};
use error::InjectError;
pub(super) use options::Options;
use service::Effect;
use workload::Injected;

/// Maximum size of the input, in bytes.
const MAX_INPUT: u64 = 16 * 1024 * 1024;

/// Reads a manifest, writes it with the sidecar, and says on standard error what changed.
pub(super) fn run(options: Options) -> u8 {
    let mut text = String::new();
    if let Err(error) = std::io::stdin().lock().take(MAX_INPUT + 1).read_to_string(&mut text) {
        return fail(PROBLEMS, &format_args!("cannot read standard input: {error}"));
    }
    if text.len() as u64 > MAX_INPUT {
        return fail(PROBLEMS, &"the input is longer than 16 MiB");
    }
    match inject(&text, &options) {
        Ok((output, notes)) => {
            notes.iter().for_each(|note| complain(note));
            write(output.as_bytes())
        }
        Err(error) => fail(PROBLEMS, &error),
    }
}

/// Returns the manifest with the sidecar, and a line for each change.
fn inject(text: &str, options: &Options) -> Result<(String, Vec<String>), InjectError> {
    let mut documents = parse(text)?;
    let before: Vec<Node> = documents.iter().map(|document| document.root.clone()).collect();
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    // Services tell which port of a container is the app's, so they are needed before the workloads change.
    let services: Vec<Node> = before.iter().flat_map(|root| objects(root).iter().cloned()).collect();
    for object in documents.iter_mut().flat_map(|document| objects_mut(&mut document.root)) {
        if let Some(workload) = workload::inject(object, &services, options)? {
            notes.push(workload.note());
            found.push(workload);
        }
    }
    if found.is_empty() {
        return Err(InjectError::NoWorkload);
    }
    if let Some(problem) = workload::unused(&found, options) {
        return Err(InjectError::Option(problem));
    }
    for (name, workload) in found.iter().filter_map(Injected::behind_service) {
        let mut leads = false;
        for object in documents.iter_mut().flat_map(|document| objects_mut(&mut document.root)) {
            match service::lead_to_sidecar(object, workload) {
                Effect::None => {}
                Effect::Headless(note) => notes.push(note),
                Effect::Leads(note) => {
                    leads = true;
                    notes.push(note);
                }
            }
        }
        if !leads {
            notes.push(format!(
                "{name}: no Service of the input leads to its port {}; what leads to it elsewhere needs targetPort {}",
                workload.ports.app, workload.ports.listen
            ));
        }
    }
    Ok((written(text, &documents, &before), notes))
}

/// Writes the documents. Those that have not changed stay as they came, with their comments.
fn written(text: &str, documents: &[Document], before: &[Node]) -> String {
    let mut output = String::with_capacity(text.len() * 2);
    for (at, (document, before)) in documents.iter().zip(before).enumerate() {
        let source = &text[document.place.clone()];
        if document.root == *before {
            output.push_str(source);
            if !source.ends_with('\n') {
                output.push('\n');
            }
            continue;
        }
        if at > 0 || source.trim_start().starts_with("---") {
            output.push_str("---\n");
        }
        let _ = write!(output, "{}", document.root);
    }
    output
}

/// Returns the objects of a document: itself, or the items of a `List`.
fn objects(root: &Node) -> &[Node] {
    match root.get("kind").and_then(Node::text) {
        Some("List") => root.get("items").map_or(&[], Node::items),
        _ => std::slice::from_ref(root),
    }
}

/// Returns the objects of a document, to be changed.
fn objects_mut(root: &mut Node) -> &mut [Node] {
    match root.get("kind").and_then(Node::text) {
        Some("List") => match root.at_mut(&["items"]) {
            Some(Node { value: Value::Sequence(items), .. }) => items,
            _ => &mut [],
        },
        _ => std::slice::from_mut(root),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
