//! The environment of the process: variables, credentials, cores, memory, a secret, file descriptors.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read as _;
use std::path::Path;

use crate::config::Environment;
use crate::rendering::secret::Secret;
use crate::runtime::clock;

/// Collects environment variables, CPU count, memory limit and other facts of the machine and the process.
pub(crate) fn environment() -> Environment {
    use std::io::IsTerminal as _;
    Environment {
        variables: variables(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        ),
        // Respects the CPU affinity mask and the CPU quota of the cgroup.
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_limit: cgroup_memory(),
        now: clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default(),
        own_container: own_container(),
        color: std::io::stdout().is_terminal() && shows_colors(),
        terminal: std::io::stdout().is_terminal(),
        without_certificates: false,
        secret: Secret::new(secret()),
    }
}

/// The variable by which systemd names the folder of a service's credentials (systemd.exec(5), `LoadCredential=`).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// Maximum files of that folder that are read.
const MAX_CREDENTIALS: usize = 256;
/// Maximum bytes of a credential that is read; longer ones are files for keys and certificates, named by their paths.
const MAX_CREDENTIAL_LENGTH: u64 = 16 * 1024;

/// Adds the credentials that systemd passes to a service, so that `${NAME}` stands for the credential NAME. A variable of
/// the environment takes precedence.
fn variables(mut environment: HashMap<String, String>) -> HashMap<String, String> {
    if let Some(folder) = environment.get(CREDENTIALS).cloned() {
        for (name, value) in credentials(Path::new(&folder)) {
            environment.entry(name).or_insert(value);
        }
    }
    environment
}

/// Returns the texts among the files of a folder, without the line end that editors leave. Other files, and those
/// that cannot be read, are no variables: a reference to one says that it is not set.
fn credentials(folder: &Path) -> Vec<(String, String)> {
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = files.filter_map(|file| Some(file.ok()?.file_name())).collect();
    // Which files are read does not depend on the order of the folder.
    names.sort();
    names.truncate(MAX_CREDENTIALS);
    names.into_iter().filter_map(|name| credential(folder, &name)).collect()
}

fn credential(folder: &Path, name: &OsStr) -> Option<(String, String)> {
    let path = folder.join(name);
    if !path.is_file() {
        return None;
    }
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(MAX_CREDENTIAL_LENGTH + 1).read_to_string(&mut text).ok()?;
    if text.len() as u64 > MAX_CREDENTIAL_LENGTH {
        return None;
    }
    Some((name.to_str()?.to_owned(), text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Returns whether the user wants colors on terminals (<https://no-color.org>).
pub(super) fn shows_colors() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Returns the random secret of this process, the same for its whole life.
pub(super) fn secret() -> [u8; 32] {
    static SECRET: std::sync::OnceLock<[u8; 32]> = std::sync::OnceLock::new();
    *SECRET.get_or_init(|| {
        let mut secret = [0; 32];
        if ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut secret).is_err() {
            // Every supported system has a random source. This fallback is weaker, but still differs between processes.
            fastrand::fill(&mut secret);
        }
        secret
    })
}

/// Reads the memory limit of cgroup version 2, else 1. "max" and absurdly large numbers mean no limit.
fn cgroup_memory() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    read("/sys/fs/cgroup/memory.max")
        .or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
        .filter(|limit| *limit < 1 << 60)
}

/// Returns whether the process runs in a container of Docker or Podman. In a pod of Kubernetes, containers share their
/// loopback.
fn own_container() -> bool {
    let marked = ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| std::path::Path::new(mark).exists());
    marked && std::env::var_os("KUBERNETES_SERVICE_HOST").is_none()
}

/// Raises the soft limit of descriptors to the hard one: a proxy needs two a request, and only select() needs less.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files could not be raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stand_for_variables_that_are_not_set() {
        let folder = std::env::temp_dir().join(format!("pillion-credentials-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("below")).unwrap();
        let long = "a".repeat(MAX_CREDENTIAL_LENGTH as usize + 1);
        for (name, text) in [
            ("TOKEN", b"secret\n".as_slice()),
            ("SET", b"other"),
            ("tls.key", b"a\nb\r\n"),
            ("BINARY", b"\xff"),
            ("LONG", long.as_bytes()),
            ("FULL", &long.as_bytes()[1..]),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let set = |folder: &Path| {
            let named = (CREDENTIALS.to_owned(), folder.display().to_string());
            variables(HashMap::from([named, ("SET".to_owned(), "environment".to_owned())]))
        };
        let found = set(&folder);
        for (name, value) in [
            ("TOKEN", Some("secret")),
            ("SET", Some("environment")),
            ("tls.key", Some("a\nb")),
            ("BINARY", None),
            ("LONG", None),
            ("FULL", Some(&long[1..])),
            ("below", None),
        ] {
            assert_eq!(found.get(name).map(String::as_str), value, "{name}");
        }
        assert_eq!(set(&folder.join("absent")).len(), 2);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
