//! Links within the repository.

use super::markdown::Document;
use super::{root, walk};

#[test]
fn every_relative_link_resolves() {
    let mut paths: Vec<_> = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "tests/README.md",
        "benches/README.md",
    ]
    .iter()
    .map(|name| root(name))
    .filter(|path| path.exists())
    .collect();
    for folder in ["docs", "examples", "deploy"] {
        walk(&root(folder), &mut paths);
    }
    let (mut wrong, mut count) = (Vec::new(), 0);
    for document in paths.iter().map(|path| Document::read(path)) {
        for (line, target) in document.links() {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            count += 1;
            if let Err(why) = resolve(&document, &target) {
                wrong.push(format!("{}:{line}: {target}: {why}", document.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 150, "{count} links");
}

/// Whether a file and an anchor in it are there, with names spelled as they are written: GitHub tells `A.md` from `a.md`.
fn resolve(from: &Document, target: &str) -> Result<(), String> {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = match file {
        "" => from.path.clone(),
        file => from.path.parent().unwrap().join(file),
    };
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    if !path.starts_with(root("").canonicalize().unwrap()) {
        return Err("it leads out of the repository".to_owned());
    }
    let Some(anchor) = anchor else { return Ok(()) };
    if path.extension().is_none_or(|extension| extension != "md") {
        return Err("only documents have anchors".to_owned());
    }
    let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
    let known = Document { name: String::new(), path, text }.anchors();
    if known.contains(anchor) { Ok(()) } else { Err("there is no such anchor".to_owned()) }
}
