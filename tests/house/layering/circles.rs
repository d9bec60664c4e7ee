//! No import circles between files: data types stand below the flow that uses them.
//!
//! An edge leads from a file to the file that defines what it names: `super` and `self` are resolved, a re-export counts
//! as the file it comes from, and tests inside the sources are left out. Declaring a module is no edge.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{self, Source, all};

type Module = Vec<String>;

/// Cuts inline modules and functions that exist for tests alone.
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        let mut item = lines.next().unwrap_or_default();
        while item.trim_start().starts_with("#[") {
            item = lines.next().unwrap_or_default();
        }
        // The item ends on its line, or at the brace that stands as deep as it.
        if !item.trim_end().ends_with([';', '}']) {
            lines.by_ref().find(|line| *line == end);
        }
    }
    out
}

/// The paths that one `use` tree names.
fn leaves(prefix: &[String], tree: &str, into: &mut Vec<Module>) {
    let parts = |path: &str| -> Vec<String> {
        path.split("::").map(|part| part.split(" as ").next().unwrap().trim().to_owned()).collect()
    };
    let Some((head, rest)) = tree.trim().split_once('{') else {
        into.push([prefix, &parts(tree.trim())].concat());
        return;
    };
    let head = head.trim().trim_end_matches("::");
    let prefix = if head.is_empty() { prefix.to_vec() } else { [prefix, &parts(head)].concat() };
    let (mut depth, mut branch) = (0, String::new());
    for c in rest.trim_end().strip_suffix('}').unwrap_or(rest).chars().chain([',']) {
        match c {
            ',' if depth == 0 => {
                if !branch.trim().is_empty() {
                    leaves(&prefix, &branch, into);
                }
                branch.clear();
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        branch.push(c);
    }
}

/// The `use` trees of a file, whether each is a re-export, and the code without them.
fn uses(code: &str) -> (Vec<(bool, Vec<Module>)>, String) {
    let (mut found, mut rest) = (Vec::new(), String::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let public = line.trim_start().starts_with("pub");
        let bare = match line.trim_start().strip_prefix("pub") {
            Some(after) => after.trim_start_matches(|c| c != ' ').trim_start(),
            None => line.trim_start(),
        };
        let Some(tree) = bare.strip_prefix("use ") else {
            rest.push_str(line);
            rest.push('\n');
            continue;
        };
        let mut tree = tree.to_owned();
        while !tree.trim_end().ends_with(';') {
            tree.push_str(lines.next().unwrap());
        }
        let mut paths = Vec::new();
        leaves(&[], tree.trim_end().trim_end_matches(';'), &mut paths);
        found.push((public, paths));
    }
    (found, rest)
}

/// Paths of two parts and more in code.
fn inline_paths(code: &str) -> impl Iterator<Item = Module> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
        .filter(|path| path.contains("::") && !path.starts_with(':'))
        .map(|path| path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect())
}

struct Graph {
    modules: BTreeSet<Module>,
    exports: BTreeMap<Module, Module>,
}

impl Graph {
    /// A path as it is from the root of the crate; `None` for one that leads out of it.
    fn absolute(&self, path: &[String], here: &[String]) -> Option<Module> {
        let supers = path.iter().take_while(|part| *part == "super").count();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([here, &path[1..]].concat()),
            "super" => Some([&here[..here.len().checked_sub(supers)?], &path[supers..]].concat()),
            first => {
                let child = [here, &[first.to_owned()]].concat();
                self.modules.contains(&child).then(|| [here, path].concat())
            }
        }
    }

    /// The module whose file defines what a path names.
    fn defines(&self, mut path: Module) -> Option<Module> {
        for _ in 0..8 {
            let export = (1..=path.len()).rev().find_map(|n| Some((n, self.exports.get(&path[..n])?)));
            let Some((n, from)) = export else { break };
            path = [from.as_slice(), &path[n..]].concat();
        }
        (1..=path.len()).rev().map(|n| path[..n].to_vec()).find(|module| self.modules.contains(module))
    }
}

/// The sources without the files that are declared for tests alone.
pub(crate) fn without_test_files(sources: &[Source]) -> Vec<&Source> {
    let tests: Vec<Module> = sources
        .iter()
        .flat_map(|source| {
            let declared = source.code.split("#[cfg(test)]").skip(1).filter_map(|after| {
                let name = after.trim_start().split_once("mod ")?.1.split(';').next()?;
                (!name.contains(char::is_whitespace)).then(|| name.to_owned())
            });
            declared.map(|name| [source.module.as_slice(), &[name]].concat()).collect::<Vec<_>>()
        })
        .collect();
    let is_test = |module: &Module| tests.iter().any(|test| module.starts_with(test));
    sources.iter().filter(|source| !is_test(&source.module)).collect()
}

#[test]
fn files_import_in_no_circle() {
    let sources = all();
    let files = without_test_files(&sources);
    let mut graph = Graph {
        modules: files
            .iter()
            .map(|source| source.module.clone())
            .filter(|module| !module.is_empty())
            .collect(),
        exports: BTreeMap::new(),
    };
    let parsed: Vec<_> =
        files.iter().map(|source| (&source.module, uses(&without_tests(&source.code)))).collect();
    for (module, (uses, _)) in &parsed {
        for path in uses.iter().filter(|(public, _)| *public).flat_map(|(_, paths)| paths) {
            if let (Some(from), Some(name)) = (graph.absolute(path, module), path.last()) {
                graph.exports.insert([module.as_slice(), std::slice::from_ref(name)].concat(), from);
            }
        }
    }
    let mut edges: BTreeMap<Module, BTreeMap<Module, String>> = BTreeMap::new();
    for (module, (uses, rest)) in &parsed {
        let imported = uses.iter().filter(|(public, _)| !public).flat_map(|(_, paths)| paths.clone());
        for path in imported.chain(inline_paths(rest)) {
            let Some(target) = graph.absolute(&path, module).and_then(|path| graph.defines(path)) else {
                continue;
            };
            if target != **module {
                edges.entry((*module).clone()).or_default().entry(target).or_insert_with(|| path.join("::"));
            }
        }
    }
    let reaches = |from: &Module, to: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(module) = open.pop() {
            for next in edges.get(module).into_iter().flat_map(BTreeMap::keys) {
                if next == to {
                    return true;
                }
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        false
    };
    let circles: Vec<String> = edges
        .iter()
        .flat_map(|(from, targets)| targets.iter().map(move |(to, by)| (from, to, by)))
        .filter(|(from, to, _)| reaches(to, from))
        .map(|(from, to, by)| format!("{} -> {} by {by}", from.join("/"), to.join("/")))
        .collect();
    assert!(circles.is_empty(), "{} edges in circles: {circles:#?}", circles.len());
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let mut found = Vec::new();
    leaves(&[], "super::{a::{self, B as C}, d}", &mut found);
    let shown: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(shown, ["super::a::self", "super::a::B", "super::d"]);
    let text = "fn a() { \"x::y\"; 'c'; b::c() } // d::e\nlet r = r#\"f::g\"#;\n#[cfg(test)]\nmod tests {\n    h::i\n}\nj::k\n";
    let code = without_tests(&source::code(text));
    let shown: Vec<String> = inline_paths(&code).map(|path| path.join("::")).collect();
    assert_eq!(shown, ["b::c", "j::k"]);
}
