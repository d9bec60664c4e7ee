//! `pillion keys`: API keys, of which the file holds nothing but hashes.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{FAILED, OK, PROBLEMS, default_file, fail};
use crate::app;
use crate::config;

/// Bits of chance in a key: as many as nobody guesses.
const KEY_BYTES: usize = 32;
/// The longest key that is hashed; bytes.
const LONGEST_KEY: u64 = 64 * 1024;

/// The file of keys.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The file of keys [default: rate_limit.keys of the configuration, else keys.toml here]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The configuration file that names it
    #[arg(short, long, value_name = "FILE")]
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

#[derive(Clone, Debug, Subcommand)]
pub enum Keys {
    /// Make a key, write its hash into the file, and print it: this once
    Add {
        /// The tier it belongs to
        #[arg(short, long)]
        tier: String,
        /// Whose it is, for people; as it is shown to operators
        #[arg(short, long)]
        name: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Show the keys of the file: tier, name, the begin of the hash
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Print the SHA-256 of a key that is read from standard input
    Hash,
}

/// Does it.
pub fn run(keys: Keys) -> u8 {
    let done = match keys {
        Keys::Add { tier, name, place } => {
            place.resolve().and_then(|file| add(&file, &tier, name.as_deref()))
        }
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

/// What stands in the file; nothing where there is none.
fn read(file: &Path) -> Result<String, String> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("{} cannot be read: {error}", file.display())),
    }
}

fn add(file: &Path, tier: &str, name: Option<&str>) -> Result<(), String> {
    let before = read(file)?;
    let known = config::keys(file, &before, &app::environment())
        .map_err(|problems| format!("{}\n{problems}", file.display()))?;
    if let Some(name) = name
        && known.iter().any(|key| key.name.as_deref() == Some(name))
    {
        return Err(format!("a key named {name:?} is there already"));
    }
    let mut random = [0u8; KEY_BYTES];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random)
        .map_err(|_| "the system has no randomness to make a key of")?;
    let key = format!("pk_{}", hex(&random));
    let digest = hex(&crate::identity::credential::sha256(key.as_bytes()));
    let gap = if before.is_empty() || before.ends_with("\n\n") { "" } else { "\n" };
    let name = name.map_or_else(String::new, |name| format!("name = {}\n", text(name)));
    let entry = format!("{gap}[[keys]]\nsha256 = \"{digest}\"\ntier = {}\n{name}", text(tier));
    replace(file, &format!("{before}{entry}")).map_err(|error| format!("{}: {error}", file.display()))?;
    println!("{key}");
    eprintln!("its hash is in {}; the key itself is nowhere but here", file.display());
    Ok(())
}

/// The whole file at once, in the place of the one before: whoever reads it meanwhile reads one or the other, and
/// whoever watches it sees that it was replaced.
fn replace(file: &Path, content: &str) -> std::io::Result<()> {
    // A link stays one: what it leads to is replaced.
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
    let beside = file.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&beside, content)?;
    if let Ok(metadata) = std::fs::metadata(&file) {
        std::fs::set_permissions(&beside, metadata.permissions())?;
    }
    std::fs::rename(&beside, &file)
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
        println!("{begin}…  {:<12}  {}{own}", key.tier, key.name.as_deref().unwrap_or("-"));
    }
    OK
}

fn hash() -> Result<(), String> {
    let mut key = String::new();
    let read = std::io::stdin().take(LONGEST_KEY).read_to_string(&mut key);
    read.map_err(|error| format!("standard input: {error}"))?;
    let key = key.trim_end_matches(['\r', '\n']);
    if key.is_empty() {
        return Err("give the key on standard input".to_owned());
    }
    println!("{}", hex(&crate::identity::credential::sha256(key.as_bytes())));
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As a TOML string (1.0, basic strings).
fn text(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}
