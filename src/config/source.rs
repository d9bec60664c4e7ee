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
    /// `--verbose`: all that is known of a request in lines for people.
    pub verbose: bool,
    /// Variables of the environment that look like options and are none.
    pub stray_variables: Vec<String>,
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
    /// Time since the epoch, for what expires; zero: nothing does.
    pub now: std::time::Duration,
    /// Whether the process is alone in its container, so that its loopback reaches nobody else's app.
    pub own_container: bool,
    /// Whether the access log goes to a terminal that shows colors.
    pub color: bool,
    /// Whether the log goes to a terminal.
    pub terminal: bool,
    /// Whether certificates of listeners are left unread, because nothing listens.
    pub without_certificates: bool,
    pub secret: Secret<[u8; 32]>,
}
