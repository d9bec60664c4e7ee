//! The command `pillion keys`: API keys, of which the key file holds only hashes.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};

use super::output::{FAILED, OK, PROBLEMS, complain, fail, say};
use super::source::default_file;
use crate::app;
use crate::config;

/// Random bytes in a key; 256 bits cannot be guessed.
const KEY_BYTES: usize = 32;
/// Maximum symbolic links that are followed to the key file.
const MAX_LINKS: usize = 16;
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
        place: Place,
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
        Keys::Add { tier, name, place } => add(&place, &tier, name.as_deref()),
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

/// Returns the content of the key file; empty if the file does not exist.
fn read(file: &Path) -> Result<String, String> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("{} cannot be read: {error}", file.display())),
    }
}

fn add(place: &Place, tier: &str, name: Option<&str>) -> Result<(), String> {
    let file = &place.resolve()?;
    place.check_tier(tier)?;
    let replacement = Replacement::begin(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let beside = file.with_extension("new");
            format!(
                "{} exists: another process is adding a key, or was interrupted; remove the file if \
                none is running",
                beside.display()
            )
        }
        _ => format!("{}: {error}", file.display()),
    })?;
    let before = read(file)?;
    let known = config::keys(file, &before, &app::environment())
        .map_err(|problems| format!("{}\n{problems}", file.display()))?;
    if name.is_some_and(|name| name.trim().is_empty()) {
        return Err("an empty name; leave --name out".to_owned());
    }
    if let Some(name) = name
        && known.iter().any(|key| key.name.as_deref() == Some(name))
    {
        return Err(format!("a key named {name:?} is there already"));
    }
    let mut random = [0u8; KEY_BYTES];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random)
        .map_err(|_| "the system's random number generator failed; no key was made")?;
    let key = format!("pk_{}", hex(&random));
    let digest = hex(&crate::identity::credential::sha256(key.as_bytes()));
    let gap = if before.is_empty() || before.ends_with("\n\n") { "" } else { "\n" };
    let name = name.map_or_else(String::new, |name| format!("name = {}\n", text(name)));
    let entry = format!("{gap}[[keys]]\nsha256 = \"{digest}\"\ntier = {}\n{name}", text(tier));
    let after = format!("{before}{entry}");
    if let Err(problems) = config::keys(file, &after, &app::environment()) {
        return Err(format!("the file of keys would become invalid; nothing was written:\n{problems}"));
    }
    // The key is shown before its hash is listed: a key that could not be printed must not be in the file.
    show(&key)?;
    replacement
        .finish(&after)
        .map_err(|error| format!("{}: {error}; the key shown is not valid", file.display()))?;
    complain(&format_args!("hash written to {}; this key is shown only once", file.display()));
    Ok(())
}

/// An atomic replacement of the key file. Readers see either the old or the new content, and file watchers see a
/// replacement. The temporary file is created exclusively, so the second of two concurrent additions fails and no key
/// is lost.
struct Replacement {
    file: PathBuf,
    beside: PathBuf,
    new: std::fs::File,
    done: bool,
}

impl Replacement {
    fn begin(file: &Path) -> std::io::Result<Replacement> {
        // A symbolic link stays; its target is replaced.
        let mut file = file.to_path_buf();
        for _ in 0..MAX_LINKS {
            let Ok(target) = std::fs::read_link(&file) else { break };
            file = file.parent().unwrap_or(Path::new("")).join(target);
        }
        let beside = file.with_extension("new");
        let new = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        Ok(Replacement { file, beside, new, done: false })
    }

    fn finish(mut self, content: &str) -> std::io::Result<()> {
        self.new.write_all(content.as_bytes())?;
        if let Ok(metadata) = std::fs::metadata(&self.file) {
            self.new.set_permissions(metadata.permissions())?;
            // Keeps the owner, so that Pillion can still read the file. Only root can change the owner; other users own
            // it already.
            std::os::unix::fs::fchown(&self.new, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        self.new.sync_all()?;
        std::fs::rename(&self.beside, &self.file)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // After the rename another process may have created a file of this name.
        if !self.done {
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}

fn list(file: &Path) -> u8 {
    let keys = match read(file).map(|text| config::keys(file, &text, &app::environment())) {
        Ok(Ok(keys)) => keys,
        Ok(Err(problems)) => return fail(PROBLEMS, &problems),
        Err(why) => return fail(FAILED, &why),
    };
    for key in keys {
        let own = if key.has_own_limits { "  (limits of its own)" } else { "" };
        let begin: String = key.sha256.chars().take(12).collect();
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

/// Formats a string as a TOML basic string (TOML 1.0).
fn text(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    });
    // Escapes text that looks like a reference to an environment variable.
    format!("\"{}\"", escaped.collect::<String>().replace("${", "$${"))
}
