//! Tests of `pillion keys remove`, `rotate` and `--group`: edits of key files.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::tools::TIERS;
use crate::harness::origin::*;
use crate::harness::*;

/// The output of one command.
struct Said {
    succeeded: bool,
    out: String,
    error: String,
}

struct KeyFile {
    folder: Arc<Folder>,
    path: PathBuf,
}

impl KeyFile {
    fn new(content: &str) -> KeyFile {
        let folder = Arc::new(Folder::new());
        let path = folder.write("keys.toml", content);
        KeyFile { folder, path }
    }

    fn run(&self, args: &[&str]) -> Said {
        let output =
            Command::new(binary()).arg("keys").args(args).arg("--file").arg(&self.path).output().unwrap();
        Said {
            succeeded: output.status.success(),
            out: printed(&output.stdout),
            error: printed(&output.stderr),
        }
    }

    fn fails(&self, args: &[&str], parts: &[&str]) {
        let before = self.text();
        let said = self.run(args);
        assert!(!said.succeeded && said.out.is_empty(), "{args:?}: {}{}", said.out, said.error);
        for part in parts {
            assert!(said.error.contains(part), "{args:?}: {part:?} is missing in: {}", said.error);
        }
        assert_eq!(self.text(), before, "{args:?}");
        assert!(!self.folder.path("keys.new").exists(), "{args:?}");
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap()
    }

    fn mode(&self) -> u32 {
        std::fs::metadata(&self.path).unwrap().permissions().mode() & 0o777
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// 64 digits.
fn digest(begin: &str) -> String {
    format!("{begin:0<64}")
}

fn three_keys() -> String {
    format!(
        "# ours\n[[keys]]\nsha256 = \"{}\"\ntier = \"pro\"\nname = \"acme\" # since May\n[keys.limits]\n\
         requests = {{ rate = \"7/min\" }}\n\n# partners\n[[keys]]\nsha256 = \"{}\"\ntier = \"free\"\n\n\
         [[keys]]\nsha256 = \"{}\"\ntier = \"free\"\nname = \"abcd\"\n",
        digest("abcd1"),
        digest("abcd2"),
        digest("ef01")
    )
}

#[test]
fn removed_key_leaves_all_others_with_their_comments() {
    let file = KeyFile::new(&three_keys());
    // A name comes before the beginning of a hash.
    let said = file.run(&["remove", "abcd"]);
    assert!(
        said.succeeded && said.error.contains("ef0100000000… \"abcd\" (tier free) removed"),
        "{}",
        said.error
    );
    assert!(!file.text().contains("ef01") && file.text().contains("# since May"));
    let said = file.run(&["remove", "ABCD2"]);
    assert!(said.succeeded, "{}", said.error);
    let said = file.run(&["remove", "abcd10000000…"]);
    assert!(said.succeeded, "{}", said.error);
    assert_eq!(file.text(), "# ours\n\n# partners\n\n");
    assert!(file.run(&["list"]).out.is_empty());
}

#[test]
fn key_that_is_not_named_alone_is_not_removed() {
    let file = KeyFile::new(&three_keys().replace("name = \"abcd\"", "name = \"other\""));
    let matches = ["2 keys", "abcd10000000… \"acme\" (tier pro)", "abcd20000000… (tier free)", "more digits"];
    file.fails(&["remove", "abcd"], &matches);
    file.fails(&["remove", "nobody"], &["no key with the name \"nobody\"", "`pillion keys list`"]);
    // Shorter than the digits that name a key.
    file.fails(&["remove", "ef"], &["no key with the name \"ef\"", "at least 4 digits"]);
    file.fails(&["rotate", "abcd"], &matches);
    let key = format!("pk_{}", digest("5"));
    file.fails(&["remove", &key], &["looks like a key"]);
    assert!(!file.run(&["remove", &key]).error.contains(&key));
}

#[test]
fn entries_in_another_form_are_left_to_their_editor() {
    let inline =
        format!("keys = [{{ sha256 = \"{}\", tier = \"pro\", name = \"acme\" }}]\n", digest("abcd1"));
    let file = KeyFile::new(&inline);
    for args in [&["remove", "acme"][..], &["rotate", "acme"], &["rotate", "acme", "--keep-old"]] {
        file.fails(args, &["edit the file by hand", "abcd10000000…"]);
    }
}

#[test]
fn rotated_key_takes_the_place_of_the_old_one_at_once() {
    let origin = Origin::new();
    let file = KeyFile::new("");
    let old = file.run(&["add", "--tier", "pro", "--name", "acme"]).out.trim().to_owned();
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[rate_limit]\nkeys = \"keys.toml\"\nunlisted_keys = \"reject\"\n{TIERS}",
        origin.script.address
    );
    let pillion = Pillion::in_folder(file.folder.clone(), &config);
    let status = |key: &str| ask(&pillion, "GET /", &[&format!("x-api-key: {key}")]).status;
    assert_eq!(status(&old), 200);
    let said = file.run(&["rotate", "acme"]);
    assert!(said.succeeded && said.error.contains("this key is shown only once"), "{}", said.error);
    let new = said.out.trim().to_owned();
    assert!(new.starts_with("pk_") && new != old && !file.text().contains(&new));
    eventually("the old key is unknown", || (status(&old) == 401).then_some(()));
    assert_ne!(status(&new), 401);
    // Both work until the old one is removed.
    let newer = file.run(&["rotate", "acme", "--keep-old"]);
    assert!(newer.succeeded && newer.error.contains("pillion keys remove acme-old"), "{}", newer.error);
    let newer = newer.out.trim().to_owned();
    eventually("the newest key is known", || (status(&newer) != 401).then_some(()));
    assert_ne!(status(&new), 401);
    file.fails(&["rotate", "acme", "--keep-old"], &["\"acme-old\" is there already", "remove it first"]);
    assert!(file.run(&["remove", "acme-old"]).succeeded);
    eventually("the removed key is unknown", || (status(&new) == 401).then_some(()));
}

#[test]
fn rotated_key_keeps_its_tier_limits_and_comments() {
    let file = KeyFile::new(&three_keys());
    assert!(file.run(&["rotate", "acme", "--keep-old"]).succeeded);
    let text = file.text();
    assert_eq!(text.matches("requests = { rate = \"7/min\" }").count(), 2, "{text}");
    assert_eq!(text.matches("# since May").count(), 2, "{text}");
    assert!(text.contains("name = \"acme-old\" # since May") && text.starts_with("# ours\n"), "{text}");
    let listed = file.run(&["list"]).out;
    assert!(listed.contains("acme-old  (limits of its own)"), "{listed}");
    file.fails(&["rotate", "abcd2", "--keep-old"], &["needs a key with a name"]);
    assert!(file.run(&["rotate", "abcd2"]).succeeded);
}

#[test]
fn edit_keeps_mode_and_link_and_group_opens_the_file_to_it() {
    let file = KeyFile::new(&three_keys());
    let real = file.folder.path("real.toml");
    std::fs::rename(&file.path, &real).unwrap();
    std::os::unix::fs::symlink("real.toml", &file.path).unwrap();
    set_mode(&real, 0o400);
    assert!(file.run(&["remove", "acme"]).succeeded);
    assert_eq!(file.mode(), 0o400);
    assert!(std::fs::symlink_metadata(&file.path).unwrap().is_symlink());
    // The group of the file itself may always be given.
    let group = std::fs::metadata(&real).unwrap().gid().to_string();
    let said = file.run(&["rotate", "abcd", "--group", &group]);
    assert!(said.succeeded, "{}", said.error);
    assert_eq!((file.mode(), std::fs::metadata(&real).unwrap().gid().to_string()), (0o640, group));
    file.fails(&["rotate", "abcd", "--group", "no such group"], &["/etc/group has no group"]);
    set_mode(&real, 0o644);
    let said = file.run(&["rotate", "abcd"]);
    assert!(said.succeeded && said.error.contains("chmod o-r"), "{}", said.error);
    // A new file is private, or for the group alone.
    let new = file.folder.path("new.toml");
    let add = |more: &[&str]| {
        let _ = std::fs::remove_file(&new);
        let status = Command::new(binary())
            .args(["keys", "add", "--tier", "pro", "--file"])
            .arg(&new)
            .args(more)
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        std::fs::metadata(&new).unwrap().permissions().mode() & 0o777
    };
    let group = std::fs::metadata(&real).unwrap().gid().to_string();
    assert_eq!((add(&[]), add(&["--group", &group])), (0o600, 0o640));
}

#[test]
fn group_that_the_user_is_not_in_is_refused_before_a_key_is_shown() {
    let file = KeyFile::new(&three_keys());
    let is_root = std::fs::metadata(&file.path).unwrap().uid() == 0;
    if !is_root {
        return file.fails(&["rotate", "acme", "--group", "0"], &["only root and members of the group"]);
    }
    // Root may give a file to any group, and a user without rights may read it then.
    assert!(file.run(&["rotate", "acme", "--group", "65534"]).succeeded);
    let mut restricted = Command::new("setpriv");
    restricted.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    let output = restricted.arg(binary()).args(["keys", "list", "--file"]).arg(&file.path).output().unwrap();
    assert!(printed(&output.stdout).contains("acme"), "{output:?}");
}

#[test]
fn second_writer_fails_and_a_file_that_was_left_behind_does_not_matter() {
    let file = KeyFile::new(&three_keys());
    let beside = file.folder.write("keys.new", "left by a command that was killed");
    let held = std::fs::File::open(&beside).unwrap();
    held.lock().unwrap();
    let said = file.run(&["remove", "acme"]);
    assert!(!said.succeeded && said.error.contains("another process is changing keys"), "{}", said.error);
    assert_eq!(file.text(), three_keys());
    drop(held);
    assert!(file.run(&["remove", "acme"]).succeeded);
    assert!(!beside.exists());
    // A link there would make the command write elsewhere.
    let victim = file.folder.write("victim", "untouched");
    std::os::unix::fs::symlink(&victim, &beside).unwrap();
    let said = file.run(&["remove", "abcd"]);
    assert!(!said.succeeded && said.error.contains("keys.new is a link"), "{}", said.error);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
}
