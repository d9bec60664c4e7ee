//! Tests of files that Pillion may not read: the error names the user, the owner and the command that mends it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::UPSTREAM;
use crate::harness::{Folder, binary, printed};

/// A user without rights over files of others.
const NOBODY: &str = "65534";

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    printed(&output.stdout).trim() == "0"
}

/// Runs the command as a user that may not read files of mode 0600 or 0000 of the user that runs the tests.
fn restricted(args: &[&str]) -> String {
    let mut command = match is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]).arg(binary());
            command
        }
        false => Command::new(binary()),
    };
    let output = command.args(args).output().unwrap();
    printed(&[output.stdout, output.stderr].concat())
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn file_that_may_not_be_read_is_told_with_the_command_that_mends_it() {
    let folder = Folder::new();
    let secret = folder.write("secret", "");
    set_mode(&secret, 0);
    let secret = secret.display().to_string();
    let limits = "[rate_limit.tiers.free.limits]\na = { rate = \"1/s\" }\n";
    let redis = "[identity]\nhash_key = \"0123456789012345678901234567890123456789\"\n\
                 [redis]\nurl = \"redis://127.0.0.1:1\"\n";
    let configs = [
        ("rate_limit.keys", format!("{UPSTREAM}[rate_limit]\nkeys = \"secret\"\n{limits}")),
        ("upstream.tls.ca", "[upstream]\nurl = \"https://127.0.0.1:1\"\ntls.ca = \"secret\"\n".to_owned()),
        (
            "server.tls",
            format!(
                "{UPSTREAM}[server.tls]\nlisten = \"127.0.0.1:0\"\ncertificates = [{{ cert = \"secret\", key = \"secret\" }}]\n"
            ),
        ),
        ("maintenance.document", format!("{UPSTREAM}[maintenance]\ndocument = \"secret.txt\"\n")),
        ("redis.password_file", format!("{UPSTREAM}{redis}password_file = \"secret\"\n")),
        ("identity.jwt", format!("{UPSTREAM}[identity.jwt]\nkeys = [\"secret\"]\n")),
    ];
    std::os::unix::fs::symlink("secret", folder.path("secret.txt")).unwrap();
    let command = if is_root() { "chgrp" } else { "chmod u+r" };
    for (key, config) in configs {
        let file = folder.write("pillion.toml", config);
        let said = restricted(&["check", &file.display().to_string()]);
        for part in ["Pillion runs as user", "and has mode 0000", &format!("{command} "), "secret"] {
            assert!(said.contains(part), "{key}: {part:?} is missing in: {said}");
        }
    }
    let said = restricted(&["check", &secret]);
    assert!(said.contains("cannot read") && said.contains(command), "{said}");
}

#[test]
fn folder_that_may_not_be_searched_is_the_one_that_the_error_names() {
    let folder = Folder::new();
    let outer = folder.path("outer");
    std::fs::create_dir_all(outer.join("inner")).unwrap();
    let file = outer.join("inner/pillion.toml");
    std::fs::write(&file, UPSTREAM).unwrap();
    set_mode(&outer, 0);
    let said = restricted(&["check", &file.display().to_string()]);
    set_mode(&outer, 0o700);
    let command = if is_root() { "chmod g+x" } else { "chmod u+x" };
    assert!(said.contains(&format!("{command} {}", outer.display())), "{said}");
}

#[test]
fn configuration_in_a_hidden_folder_is_not_told_as_missing() {
    let folder = Folder::new();
    folder.write("pillion.toml", UPSTREAM);
    // Nobody but root can stay in a folder that may not be searched.
    if !is_root() || Path::new("/etc/pillion/pillion.toml").exists() {
        return;
    }
    set_mode(&folder.0, 0o700);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]).arg(binary()).arg("check");
    let output = command.current_dir(&folder.0).output().unwrap();
    let said = printed(&[output.stdout, output.stderr].concat());
    for part in ["cannot read pillion.toml", "has mode 0700", "chmod g+x"] {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
}
