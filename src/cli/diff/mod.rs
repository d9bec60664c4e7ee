//! The command `pillion diff`, which shows the changes that another configuration file brings.

mod words;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use serde_json::json;

use super::control::Admin;
use super::output::{OK, complain, fail, say};
use crate::app;
use crate::config::changes::{Change, Compared, Listing, Marks, Pairing, changes};
use crate::config::{self, Settings, Source};
use crate::policy::Policy;
use crate::state::route_digest;

/// Exit code if there are changes.
const CHANGES: u8 = 1;
/// Exit code if the files could not be compared.
const TROUBLE: u8 = 2;
/// Timeout of a request to a running process.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a comparison begins anew because the process reloaded its configuration meanwhile.
const ATTEMPTS: usize = 3;

/// The arguments of `pillion diff`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit status: 0 without changes, 1 with changes, 2 if the files cannot be compared.")]
pub(super) struct Options {
    /// The new file; with two files, the old one and the new one, and no running Pillion is asked
    #[arg(value_name = "[OLD] NEW", num_args = 1..=2, required = true, value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// How the changes are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    admin: Admin,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One sentence for each change
    Text,
    /// One JSON document
    Json,
}

/// Prints the changes; returns the exit code.
pub(super) fn run(options: Options) -> u8 {
    let Options { files, format, admin } = options;
    let changes = match files.as_slice() {
        [old, new] => between(old, new),
        [new] => from_process(&admin, new),
        _ => Err("give the new file, or the old one and the new one".to_owned()),
    };
    let changes = match changes {
        Ok(changes) => changes,
        Err(why) => return fail(TROUBLE, &why),
    };
    match format {
        Format::Text => say(&words::text(&changes)),
        Format::Json => say(&json!({ "changes": changes })),
    }
    if changes.is_empty() { OK } else { CHANGES }
}

/// A configuration that a file has.
struct Loaded {
    policy: Policy,
    settings: Settings,
}

impl Loaded {
    /// Reads and compiles a file, as a start would.
    fn read(file: &Path) -> Result<Loaded, String> {
        let source = Source { file: Some(file.to_path_buf()), ..Source::default() };
        let (policy, kept) = config::load_and_keep(&source, &app::environment()).map_err(|error| {
            complain(&error);
            format!("{} cannot be compared", file.display())
        })?;
        let settings = kept.settings().map_err(|error| error.to_string())?;
        Ok(Loaded { policy, settings })
    }

    /// The number of the rules under which responses of a route are stored.
    fn rules(&self, place: usize) -> u64 {
        let routes = &self.policy.routes;
        let route = routes.routes.get(place).unwrap_or_else(|| routes.unmatched());
        route_digest::local(&self.policy, route)
    }

    fn marks(&self, pairing: &Pairing) -> Result<Marks, String> {
        let marks = Marks::new(&self.settings, &self.policy, pairing, &|place| self.rules(place));
        marks.map_err(|_| "the system gives no random numbers".to_owned())
    }
}

fn between(old: &Path, new: &Path) -> Result<Vec<Change>, String> {
    let (old, new) = (Loaded::read(old)?, Loaded::read(new)?);
    let (before, after) = (Listing::new(&old.settings), Listing::new(&new.settings));
    let pairing = Pairing::new(&before, &after);
    let differing = new.marks(&pairing)?.compare(&old.settings, &old.policy, &|place| old.rules(place))?;
    Ok(changes(&before, &after, &pairing, &differing))
}

fn from_process(admin: &Admin, new: &Path) -> Result<Vec<Change>, String> {
    let new = Loaded::read(new)?;
    let after = Listing::new(&new.settings);
    for _ in 0..ATTEMPTS {
        let before: Listing = read(admin.get("/config?format=json", TIMEOUT)?)?;
        let pairing = Pairing::new(&before, &after);
        let marks = serde_json::to_string(&new.marks(&pairing)?).map_err(|error| error.to_string())?;
        let Compared { digest, differing } = read(admin.send("/config/compare", &marks)?)?;
        if digest == before.digest {
            return Ok(changes(&before, &after, &pairing, &differing));
        }
    }
    Err("the running Pillion reloads its configuration again and again; try later".to_owned())
}

/// Reads the document of a successful response.
fn read<T: serde::de::DeserializeOwned>((fine, text): (bool, String)) -> Result<T, String> {
    if !fine {
        return Err(format!("the running Pillion refuses: {text}"));
    }
    serde_json::from_str(&text).map_err(|error| format!("the running Pillion is of another version: {error}"))
}
