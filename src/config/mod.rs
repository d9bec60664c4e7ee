//! From a TOML file to a [`Policy`], through one door.
//!
//! `value` is the file as written, every value with its place; `table_reader` reads a table key by key and notes all
//! that is wrong with it; `keys` declares each key once; `file` is the raw mirror; `compile` decides; `schema` and
//! `key_list` show the declarations. All problems of a
//! file are shown at once. Nothing outside this room sees anything but the policy.

mod address;
pub(crate) mod cases;
pub(crate) mod changes;
mod compile;
pub(crate) mod diagnostic;
mod effective;
mod file;
mod foreign;
pub(crate) mod key_list;
mod keys;
mod pem_file;
mod redact;
mod schema;
mod secrecy;
mod source;
mod table_reader;
pub(crate) mod tls;
pub(crate) mod units;
mod validity;
mod value;
mod variables;
mod verifier;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::policy::{Policy, SourceFile};
use crate::rendering::secret::Secret;
use crate::runtime::file_access;

pub(crate) use crate::config::diagnostic::{Diagnostics, ReadKey};
pub(crate) use crate::config::effective::{Kept, Settings, toml_value};
pub(crate) use crate::config::key_list::{DeclaredKey, declared_keys, markdown};
pub(crate) use crate::config::schema::schema;
use crate::config::secrecy::Level;
pub(crate) use crate::config::source::{Environment, Source};

/// Why there is no policy.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// The file cannot be read.
    Unreadable(PathBuf, std::io::Error),
    /// It can, and these are its problems.
    Problems(Diagnostics),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadError::Unreadable(path, error) => {
                let remedy = file_access::after(path, error);
                write!(f, "cannot read {}: {error}{remedy}", path.display())
            }
            LoadError::Problems(problems) => problems.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

/// Where a running Pillion takes orders, by the file it runs with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AdminPlace {
    /// `server.admin`; `None` where it is off.
    pub address: Option<SocketAddr>,
    /// `server.probes`; takes no orders, but says how it is.
    pub probes: Option<SocketAddr>,
    /// `server.admin_token`.
    pub token: Option<Secret<String>>,
}

/// Reads those keys and nothing else: a file that has become wrong elsewhere must not keep a
/// process from being drained.
pub(crate) fn admin_place(path: &Path, environment: &Environment) -> Result<AdminPlace, LoadError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| LoadError::Unreadable(path.to_path_buf(), error))?;
    let mut problems = Diagnostics::new(path, &text);
    let Some(table) = crate::config::value::parse(&text, &environment.variables, Level::Root, &mut problems)
    else {
        return Err(LoadError::Problems(problems.sorted()));
    };
    // `check` reports all other mistakes in the file.
    let server = file::read(&table, &mut problems).server;
    Ok(AdminPlace {
        address: first_listener(&server.admin.value),
        probes: first_listener(&server.probes.value),
        token: Some(server.admin_token.value).filter(|token| !token.is_empty()).map(Secret::new),
    })
}

/// Returns the first listener that a written address means.
pub(crate) fn first_listener(written: &str) -> Option<SocketAddr> {
    address::listeners(written)?.first().copied()
}

fn rate_limit(path: &Path, environment: &Environment) -> Result<file::RateLimit, LoadError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| LoadError::Unreadable(path.to_path_buf(), error))?;
    let mut problems = Diagnostics::new(path, &text);
    let Some(table) = crate::config::value::parse(&text, &environment.variables, Level::Root, &mut problems)
    else {
        return Err(LoadError::Problems(problems.sorted()));
    };
    Ok(file::read(&table, &mut problems).rate_limit)
}

/// Where the file of keys is, by the file that names it; `None` where it names none.
pub(crate) fn keys_place(path: &Path, environment: &Environment) -> Result<Option<PathBuf>, LoadError> {
    let named = rate_limit(path, environment)?.keys.value;
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok((!named.is_empty()).then(|| folder.join(named)))
}

/// The keys that the code reads in the tables of `text`, in the order of their names, each with the values it takes and
/// its default: in tables that are there only where they are written, as far as `text` writes them.
pub(crate) fn read_keys(text: &str) -> Vec<ReadKey> {
    let mut problems = Diagnostics::listing_keys("(keys)", text);
    if let Some(table) =
        crate::config::value::parse(text, &std::collections::HashMap::new(), Level::Root, &mut problems)
    {
        file::read(&table, &mut problems);
    }
    sorted(problems)
}

/// The same of a file of API keys.
pub(crate) fn read_keys_of_keys(text: &str) -> Vec<ReadKey> {
    let mut problems = Diagnostics::listing_keys("(keys)", text);
    if let Some(table) =
        crate::config::value::parse(text, &std::collections::HashMap::new(), Level::Root, &mut problems)
    {
        file::read_keys(&table, &mut problems);
    }
    sorted(problems)
}

fn sorted(problems: Diagnostics) -> Vec<ReadKey> {
    let mut keys = problems.into_keys();
    keys.sort_by(|one, other| one.path.cmp(&other.path));
    keys
}

/// The names of the tiers of a file.
pub(crate) fn tiers(path: &Path, environment: &Environment) -> Result<Vec<String>, LoadError> {
    Ok(rate_limit(path, environment)?.tiers.into_iter().map(|tier| tier.name.value).collect())
}

/// An entry of a file of keys, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenKey {
    pub sha256: String,
    pub tier: String,
    pub name: Option<String>,
    /// Whether limits of its own stand there.
    pub has_own_limits: bool,
}

/// The entries of a file of keys.
pub(crate) fn keys(
    path: &Path,
    text: &str,
    environment: &Environment,
) -> Result<Vec<WrittenKey>, Diagnostics> {
    let mut problems = Diagnostics::new(path, text);
    let Some(table) = crate::config::value::parse(text, &environment.variables, Level::Root, &mut problems)
    else {
        return Err(problems.sorted());
    };
    let keys = file::read_keys(&table, &mut problems);
    if !problems.is_empty() {
        return Err(problems.sorted());
    }
    let written =
        |at: Option<crate::config::table_reader::Spanned<String>>| at.map(|at| at.value).unwrap_or_default();
    let keys = keys.into_iter().map(|key| WrittenKey {
        sha256: written(key.sha256),
        tier: written(key.tier),
        name: key.name.map(|at| at.value),
        has_own_limits: !key.limits.is_empty(),
    });
    Ok(keys.collect())
}

/// Reads and compiles. `check`, start-up and every reload come through here.
pub(crate) fn load(source: &Source, environment: &Environment) -> Result<Policy, LoadError> {
    load_and_keep(source, environment).map(|(policy, _)| policy)
}

/// The same, with what tells the effective settings later.
pub(crate) fn load_and_keep(source: &Source, environment: &Environment) -> Result<(Policy, Kept), LoadError> {
    let read = source.file.as_deref().map(SourceFile::now);
    let text = match &source.file {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| LoadError::Unreadable(path.clone(), error))?
        }
        None => source.embedded.map_or_else(String::new, |(_, text)| text.to_owned()),
    };
    let otherwise = source.embedded.map_or("(command line)", |(name, _)| name);
    let name = source.file.as_deref().unwrap_or(Path::new(otherwise));
    let read = read.map(|file| file.holding(text.as_bytes()));
    let policy = compile::policy(name, &text, read, source, environment).map_err(LoadError::Problems)?;
    let name = name.to_path_buf();
    Ok((policy, Kept::new(name, text, source, environment)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_an_upstream_is_a_whole_configuration() {
        let source = Source { upstream: Some("http://127.0.0.1:3000".to_owned()), ..Source::default() };
        let policy = load(&source, &Environment::default()).expect("a URL is enough");
        assert_eq!(policy.upstreams[0].endpoints[0].url, "http://127.0.0.1:3000");
    }
}
