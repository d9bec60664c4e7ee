//! The command `pillion keys`: API keys, of which the key file holds only hashes.

mod edit;
mod replacement;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};

use super::output::{FAILED, OK, PROBLEMS, complain, fail, say};
use super::source::default_file;
use crate::app;
use crate::config;
use crate::config::WrittenKey;
use crate::runtime::file_access;
use edit::{Edit, text};
use replacement::Replacement;

/// The beginning of each key that this command makes.
const KEY_START: &str = "pk_";
/// Random bytes in a key; 256 bits cannot be guessed.
const KEY_BYTES: usize = 32;
/// Minimum digits of a hash that name a key.
const MIN_PREFIX: usize = 4;
/// Digits of a hash that are shown.
const SHOWN_DIGITS: usize = 12;
/// Maximum keys that an error lists.
const MAX_LISTED: usize = 5;
/// Maximum length of a key to hash, in bytes.
const MAX_KEY_LENGTH: u64 = 64 * 1024;

/// The location of the key file.
#[derive(Clone, Debug, Args)]
pub(super) struct Place {
    /// File of keys [default: rate_limit.keys of the configuration, else ./keys.toml]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Configuration file that names the file of keys
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

impl Place {
    fn resolve(&self) -> Result<PathBuf, String> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let Some(config) = self.config.clone().or_else(default_file) else {
            return Ok(PathBuf::from("keys.toml"));
        };
        let named = config::keys_place(&config, &app::environment()).map_err(|error| error.to_string())?;
        named.ok_or_else(|| format!("{} names no rate_limit.keys; give --file", config.display()))
    }
}

impl Place {
    /// Rejects a tier that the configuration lacks: the next reload would otherwise reject the key file.
    fn check_tier(&self, tier: &str) -> Result<(), String> {
        let Some(config) = self.config.clone().or_else(|| default_file().filter(|_| self.file.is_none()))
        else {
            return Ok(());
        };
        let known = config::tiers(&config, &app::environment()).map_err(|error| error.to_string())?;
        if known.iter().any(|known| known == tier) {
            return Ok(());
        }
        Err(format!("{} has no tier {tier:?}; it has {}", config.display(), known.join(", ")))
    }
}

/// The key file of a command that changes it.
#[derive(Clone, Debug, Args)]
pub(super) struct Writing {
    /// Let this group read the file (chgrp, mode 0640): the group that Pillion runs as
    #[arg(short, long, value_name = "GROUP", value_hint = ValueHint::Other)]
    group: Option<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key, add its hash to the file, and print the key; it is shown only once
    Add {
        /// Tier of the key
        #[arg(short, long)]
        tier: String,
        /// Name of the key, shown to operators
        #[arg(short, long)]
        name: Option<String>,
        #[command(flatten)]
        writing: Writing,
    },
    /// Remove a key from the file: it is an unknown key as soon as Pillion has read the file
    Remove {
        /// Name of the key, or the beginning of its hash
        #[arg(value_name = "NAME|PREFIX", value_hint = ValueHint::Other)]
        key: String,
        #[command(flatten)]
        writing: Writing,
    },
    /// Make a new key in the place of one, with its tier and limits, and print it; it is shown only once
    Rotate {
        /// Name of the key, or the beginning of its hash
        #[arg(value_name = "NAME|PREFIX", value_hint = ValueHint::Other)]
        key: String,
        /// Keep the old key, with the name NAME-old, until it is removed; each of both has the whole quota
        #[arg(long)]
        keep_old: bool,
        #[command(flatten)]
        writing: Writing,
    },
    /// List the keys of the file: beginning of the hash, tier, name
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Print the SHA-256 of a key read from standard input
    Hash,
}

/// Runs the subcommand; returns the exit code.
pub(super) fn run(keys: Keys) -> u8 {
    let done = match keys {
        Keys::Add { tier, name, writing } => add(&writing, &tier, name.as_deref()),
        Keys::Remove { key, writing } => remove(&writing, &key),
        Keys::Rotate { key, keep_old, writing } => rotate(&writing, &key, keep_old),
        Keys::List { place } => {
            return place.resolve().map_or_else(|why| fail(FAILED, &why), |file| list(&file));
        }
        Keys::Hash => hash(),
    };
    match done {
        Ok(()) => OK,
        Err(why) => fail(FAILED, &why),
    }
}

impl WrittenKey {
    /// The beginning of the hash, by which a person tells keys apart.
    fn beginning(&self) -> &str {
        self.sha256.get(..SHOWN_DIGITS).unwrap_or(&self.sha256)
    }

    /// Names the key in a sentence.
    fn line(&self) -> String {
        let name = self.name.as_ref().map_or_else(String::new, |name| format!(" {name:?}"));
        format!("{}…{name} (tier {})", self.beginning(), self.tier)
    }
}

/// Returns the content of the key file; empty if the file does not exist.
fn read(file: &Path) -> Result<String, String> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => {
            Err(format!("{} cannot be read: {error}{}", file.display(), file_access::after(file, &error)))
        }
    }
}

/// A key file that is locked and read, to be replaced.
struct Change {
    file: PathBuf,
    replacement: Replacement,
    before: String,
    keys: Vec<WrittenKey>,
    group: Option<u32>,
}

impl Change {
    fn begin(writing: &Writing) -> Result<Change, String> {
        let file = writing.place.resolve()?;
        let number = |name: &String| {
            let missing = "give the number of a group that the directory of users knows";
            file_access::group(name).ok_or_else(|| format!("/etc/group has no group {name:?}; {missing}"))
        };
        let group = writing.group.as_ref().map(number).transpose()?;
        let replacement =
            Replacement::begin(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let before = read(&file)?;
        let keys = config::keys(&file, &before, &app::environment())
            .map_err(|problems| format!("{}\n{problems}", file.display()))?;
        Ok(Change { file, replacement, before, keys, group })
    }

    /// Returns the index of the key with this name, else of the only one whose hash begins so.
    fn find(&self, wanted: &str) -> Result<usize, String> {
        let shown = self.file.display();
        if wanted.starts_with(KEY_START) && wanted.len() > KEY_BYTES {
            return Err("this looks like a key; give its name or the beginning of its hash".to_owned());
        }
        if let Some(at) = self.keys.iter().position(|key| key.name.as_deref() == Some(wanted)) {
            return Ok(at);
        }
        // As `pillion keys list` shows it.
        let prefix = wanted.trim_end_matches('…').to_ascii_lowercase();
        let is_prefix = prefix.len() >= MIN_PREFIX && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
        let begins = |key: &WrittenKey| key.sha256.to_ascii_lowercase().starts_with(&prefix);
        let found: Vec<usize> =
            (0..self.keys.len()).filter(|at| is_prefix && begins(&self.keys[*at])).collect();
        match found[..] {
            [at] => Ok(at),
            [] => Err(format!(
                "{shown} has no key with the name {wanted:?}, nor one whose hash begins so (give at least {MIN_PREFIX} \
                digits); `pillion keys list` shows them"
            )),
            _ => {
                let more = if found.len() > MAX_LISTED { ", …" } else { "" };
                let listed = found.iter().take(MAX_LISTED).map(|at| self.keys[*at].line());
                let listed = listed.collect::<Vec<_>>().join(", ");
                let count = found.len();
                Err(format!(
                    "{count} keys have hashes that begin with {prefix}: {listed}{more}; give more digits"
                ))
            }
        }
    }

    /// Applies an edit to the key at `index`; `expected` are the keys that the file must have then.
    fn edited(&self, index: usize, edit: &Edit<'_>, expected: &[WrittenKey]) -> Result<String, String> {
        let after = edit::apply(&self.before, index, self.keys.len(), edit);
        let is_expected = |after: &String| {
            config::keys(&self.file, after, &app::environment()).is_ok_and(|keys| keys == expected)
        };
        after.filter(is_expected).ok_or_else(|| {
            format!(
                "{}: the entry {} is not written as `pillion keys add` writes entries; nothing was changed, edit the \
                file by hand",
                self.file.display(),
                self.keys[index].line()
            )
        })
    }

    /// Writes the file. `key` is shown before: a key that could not be printed must not be listed.
    fn finish(mut self, after: &str, key: Option<&str>) -> Result<PathBuf, String> {
        let fail = |file: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let mode = self.replacement.prepare(after, self.group).map_err(|error| fail(&self.file, &error))?;
        key.map_or(Ok(()), show)?;
        self.replacement.commit().map_err(|error| {
            let invalid = if key.is_some() { "; the key shown is not valid" } else { "" };
            format!("{}{invalid}", fail(&self.file, &error))
        })?;
        if mode & 0o004 != 0 {
            let shown = self.file.display();
            complain(&format_args!(
                "pillion: every user of this machine may read {shown} (mode {mode:04o}); run: chmod o-r {shown}"
            ));
        }
        Ok(self.file)
    }
}

/// A new key, and its hash.
fn new_key() -> Result<(String, String), String> {
    let mut random = [0u8; KEY_BYTES];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random)
        .map_err(|_| "the system's random number generator failed; no key was made")?;
    let key = format!("{KEY_START}{}", hex(&random));
    let digest = hex(&crate::identity::credential::sha256(key.as_bytes()));
    Ok((key, digest))
}

fn add(writing: &Writing, tier: &str, name: Option<&str>) -> Result<(), String> {
    writing.place.resolve()?;
    writing.place.check_tier(tier)?;
    let change = Change::begin(writing)?;
    if name.is_some_and(|name| name.trim().is_empty()) {
        return Err("an empty name; leave --name out".to_owned());
    }
    if let Some(name) = name
        && change.keys.iter().any(|key| key.name.as_deref() == Some(name))
    {
        return Err(format!("a key named {name:?} is there already"));
    }
    let (key, digest) = new_key()?;
    let before = &change.before;
    let gap = if before.is_empty() || before.ends_with("\n\n") { "" } else { "\n" };
    let name = name.map_or_else(String::new, |name| format!("name = {}\n", text(name)));
    let entry = format!("{gap}[[keys]]\nsha256 = \"{digest}\"\ntier = {}\n{name}", text(tier));
    let after = format!("{before}{entry}");
    if let Err(problems) = config::keys(&change.file, &after, &app::environment()) {
        return Err(format!("the file of keys would become invalid; nothing was written:\n{problems}"));
    }
    let file = change.finish(&after, Some(&key))?;
    complain(&format_args!("hash written to {}; this key is shown only once", file.display()));
    Ok(())
}

fn remove(writing: &Writing, wanted: &str) -> Result<(), String> {
    let change = Change::begin(writing)?;
    let index = change.find(wanted)?;
    let mut expected = change.keys.clone();
    let removed = expected.remove(index).line();
    let after = change.edited(index, &Edit::Remove, &expected)?;
    let file = change.finish(&after, None)?;
    complain(&format_args!("{removed} removed from {}", file.display()));
    Ok(())
}

fn rotate(writing: &Writing, wanted: &str, keep_old: bool) -> Result<(), String> {
    let change = Change::begin(writing)?;
    let index = change.find(wanted)?;
    let present = &change.keys[index];
    let (key, digest) = new_key()?;
    let mut expected = change.keys.clone();
    let new = WrittenKey { sha256: digest.clone(), ..present.clone() };
    let (before, after) = (&*present.sha256, &*digest);
    if !keep_old {
        expected[index] = new;
        let content = change.edited(index, &Edit::Rehash { before, after }, &expected)?;
        let file = change.finish(&content, Some(&key))?;
        complain(&format_args!(
            "hash replaced in {}: the old key is unknown as soon as Pillion has read the file; this key is shown only once",
            file.display()
        ));
        return Ok(());
    }
    let Some(name) = present.name.as_deref() else {
        return Err("--keep-old needs a key with a name; add one with `pillion keys add`".to_owned());
    };
    let old = format!("{name}-old");
    if change.keys.iter().any(|key| key.name.as_ref() == Some(&old)) {
        return Err(format!(
            "a key named {old:?} is there already; remove it first: pillion keys remove {old}"
        ));
    }
    expected[index].name = Some(old.clone());
    expected.insert(index + 1, new);
    let edit = Edit::Duplicate { before, after, name, old: &old };
    let content = change.edited(index, &edit, &expected)?;
    let file = change.finish(&content, Some(&key))?;
    complain(&format_args!(
        "hash written to {}; this key is shown only once. The old key never expires: remove it when no client sends it \
        any more, with `pillion keys remove {old}`",
        file.display()
    ));
    Ok(())
}

fn list(file: &Path) -> u8 {
    let keys = match read(file).map(|text| config::keys(file, &text, &app::environment())) {
        Ok(Ok(keys)) => keys,
        Ok(Err(problems)) => return fail(PROBLEMS, &problems),
        Err(why) => return fail(FAILED, &why),
    };
    for key in keys {
        let own = if key.has_own_limits { "  (limits of its own)" } else { "" };
        let begin = key.beginning();
        say(&format_args!("{begin}…  {:<12}  {}{own}", key.tier, key.name.as_deref().unwrap_or("-")));
    }
    OK
}

fn hash() -> Result<(), String> {
    let mut key = String::new();
    let read = std::io::stdin().take(MAX_KEY_LENGTH + 1).read_to_string(&mut key);
    if read.map_err(|error| format!("standard input: {error}"))? as u64 > MAX_KEY_LENGTH {
        return Err(format!("a key of more than {MAX_KEY_LENGTH} bytes"));
    }
    // A field value has no whitespace at its ends (RFC 9110 5.5), so a key cannot have it either.
    let key = key.trim();
    if key.is_empty() {
        return Err("give the key on standard input".to_owned());
    }
    show(&hex(&crate::identity::credential::sha256(key.as_bytes())))
}

/// Prints output that must not get lost: a failed write is an error.
fn show(text: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{text}").map_err(|error| format!("standard output: {error}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
