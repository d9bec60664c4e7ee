//! Every configuration that a document shows passes `pillion check`, without a warning. Fences say what a block is:
//!
//! | fence | what it is |
//! |---|---|
//! | `toml` | a whole file |
//! | `toml fragment` | a part of one: `[upstream]` with a `url` is put before it |
//! | `toml keys` | a file of API keys |
//! | `toml cases` | test cases, which pass, of the configuration in front of it |
//! | `toml warning` | a fragment that gives the warnings in the `text` block behind it |

use std::process::Command;

use super::words::WARNING;
use super::{guides, root};
use crate::harness::{Folder, binary, printed, run};

const UPSTREAM: &str = "[upstream]\nurl = \"http://127.0.0.1:3000\"\n\n";
/// The file of API keys where a document shows none: the key `demo-key`.
const KEYS: &str = "[[keys]]\nsha256 = \"c48a01f49fd0f2cc404bc3cbbc80e91457a3d41bb429a695243de4c61794155c\"\ntier = \"pro\"\nname = \"demo\"\n";
/// The configuration that a file of API keys is checked with.
const WITH_KEYS: &str = "[rate_limit]\nkeys = \"keys.toml\"\n[rate_limit.tiers.free.limits]\nrequests = { rate = \"10/min\" }\n[rate_limit.tiers.pro.limits]\nrequests = { rate = \"1000/min\" }\n";

/// A folder with the files that configurations name.
fn folder() -> Folder {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("tls")).unwrap();
    let (cert, key) = (folder.path("tls/tls.crt"), folder.path("tls/tls.key"));
    let key_type = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let names =
        ["-subj", "/CN=a", "-days", "30", "-keyout", key.to_str().unwrap(), "-out", cert.to_str().unwrap()];
    run("openssl", &[&key_type[..], &names].concat());
    // One that has to be renewed: it has twelve whole days left, and most of another.
    let soon = folder.path("tls/soon.crt");
    let renewal = ["req", "-x509", "-key", key.to_str().unwrap(), "-subj", "/CN=a", "-days", "13"];
    run("openssl", &[&renewal[..], &["-out", soon.to_str().unwrap()]].concat());
    folder.write("keys.toml", KEYS);
    folder
}

/// Whether `pillion check` accepts a file, and the warnings or problems it says.
fn check(folder: &Folder, text: &str) -> (bool, Vec<String>) {
    let file = folder.write("pillion.toml", text);
    let mut command = Command::new(binary());
    // The variables that fragments take from the environment.
    command.arg("check").arg(file).current_dir(&folder.0).env("WEBHOOK_SECRET", "not-a-secret");
    let output = command.output().unwrap();
    if !output.status.success() {
        return (false, vec![printed(&output.stderr)]);
    }
    let said = printed(&output.stdout);
    (true, said.lines().filter_map(|line| line.strip_prefix("warning: ")).map(str::to_owned).collect())
}

/// Whether all test cases pass, with the configuration that was checked before, and what `pillion test` says.
fn test(folder: &Folder, cases: &str) -> (bool, String) {
    let file = folder.write("pillion.test.toml", cases);
    let output = Command::new(binary()).arg("test").arg(file).output().unwrap();
    (output.status.success(), printed(&[output.stdout, output.stderr].concat()))
}

/// The guide lists every key of a file of test cases.
#[test]
fn keys_of_test_cases_are_all_documented() {
    let folder = folder();
    folder.write("pillion.toml", UPSTREAM);
    let guide = std::fs::read_to_string(root("docs/testing.md")).unwrap();
    let mut count = 0;
    for table in ["", "[[case]]\n", "[case.response]\n", "[case.expect]\n"] {
        let above = if table.starts_with("[case.") { "[[case]]\n" } else { "" };
        let (_, said) = test(&folder, &format!("{above}{table}unknown_xyz = true\n"));
        let known =
            said.lines().find_map(|line| line.split_once("known here: ")).unwrap_or_else(|| panic!("{said}"));
        for key in known.1.split(", ") {
            let forms = [format!("`{key}`"), format!("`[{key}]`"), format!("`[[{key}]]`")];
            assert!(forms.iter().any(|form| guide.contains(form)), "docs/testing.md lacks {key}");
            count += 1;
        }
    }
    assert!(count > 30, "{count} keys");
}

#[test]
fn every_configuration_passes_check() {
    let folder = folder();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for document in guides() {
        let blocks = document.blocks();
        for (at, block) in blocks.iter().enumerate().filter(|(_, block)| block.info.starts_with("toml")) {
            let before = if block.text.contains("[upstream]\n") { "" } else { UPSTREAM };
            let (text, warnings) = match block.info.as_str() {
                "toml" => (block.text.clone(), Vec::new()),
                "toml fragment" => (format!("{before}{}", block.text), Vec::new()),
                "toml warning" => {
                    let said = blocks.get(at + 1).filter(|next| next.info == "text");
                    let said = said.unwrap_or_else(|| panic!("{}: no text behind it", block.place));
                    (format!("{before}{}", block.text), said.text.lines().map(str::to_owned).collect())
                }
                "toml keys" => {
                    folder.write("keys.toml", &block.text);
                    (format!("{UPSTREAM}{WITH_KEYS}"), Vec::new())
                }
                "toml cases" => {
                    let said = test(&folder, &block.text);
                    if !said.0 {
                        wrong.push(format!("{}: {}", block.place, said.1));
                    }
                    continue;
                }
                other => panic!("{}: what is {other:?}?", block.place),
            };
            let said = check(&folder, &text);
            folder.write("keys.toml", KEYS);
            if said != (true, warnings) {
                wrong.push(format!("{}: {said:?}", block.place));
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 40, "{count} configurations");
}

/// Each place in the sources that warns has an entry that shows its text.
#[test]
fn every_warning_of_check_is_explained() {
    let warnings = guides().into_iter().find(|document| document.name == "docs/warnings.md").unwrap();
    let entries = warnings.written_anchors();
    let shown = warnings.blocks().iter().filter(|block| block.info == "toml warning").count();
    assert!(entries.iter().all(|(_, id, _)| id.starts_with(WARNING)), "{entries:?}");
    assert_eq!(entries.len(), shown, "an entry shows one configuration");
    let mut sources = vec![root("src/config")];
    let mut places = 0;
    while let Some(path) = sources.pop() {
        if path.is_dir() {
            sources.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let text = std::fs::read_to_string(path).unwrap();
            places += text.split_whitespace().collect::<String>().matches(".warn(").count();
        }
    }
    assert_eq!(places, shown, "places in src/config that warn, and entries of docs/warnings.md");
}
