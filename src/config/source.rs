//! Where a configuration comes from, and what surrounds it.

use std::path::PathBuf;

use crate::rendering::secret::Secret;

/// Where a configuration comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Source {
    /// The file; without one, what is embedded, else the defaults; with the overrides.
    pub file: Option<PathBuf>,
    /// A file that is part of the program: its name and its text.
    pub embedded: Option<(&'static str, &'static str)>,
    /// `--upstream`, in place of `upstream.url`.
    pub upstream: Option<String>,
    /// `--listen`, in place of `server.listen`.
    pub listen: Option<String>,
    /// `--admin`, in place of `server.admin`.
    pub admin: Option<String>,
    /// `--probes`, in place of `server.probes`.
    pub probes: Option<String>,
}

/// Facts about the machine and the process, asked once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// Variables for `${NAME}`.
    pub variables: std::collections::HashMap<String, String>,
    /// Cores granted by the cgroup and the affinity mask.
    pub cores: usize,
    /// Bytes of memory granted by the cgroup.
    pub memory_limit: Option<u64>,
    /// Whether the log goes to a terminal.
    pub terminal: bool,
    pub secret: Secret<[u8; 32]>,
}
