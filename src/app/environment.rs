//! The environment of the process: variables, cores, memory, a secret, file descriptors.

use crate::config::Environment;
use crate::rendering::secret::Secret;

/// Collects environment variables, CPU count, memory limit and other facts of the machine and the process.
pub(crate) fn environment() -> Environment {
    use std::io::IsTerminal as _;
    Environment {
        variables: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        // Respects the CPU affinity mask and the CPU quota of the cgroup.
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_limit: cgroup_memory(),
        terminal: std::io::stdout().is_terminal(),
        secret: Secret::new(secret()),
    }
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

/// Raises the soft limit of descriptors to the hard one: a proxy needs two a request, and only select() needs less.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files could not be raised");
    }
}
