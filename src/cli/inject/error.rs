//! The reasons why a manifest gets no sidecar.

use std::fmt;

use crate::yaml::YamlError;

/// The reason why a manifest gets no sidecar, with its remedy.
#[derive(Debug)]
pub(super) enum InjectError {
    Yaml(YamlError),
    /// The input has no object that runs containers.
    NoWorkload,
    /// An option that names what no workload has.
    Option(String),
    /// The workload, as `deployment "web"`, and the problem.
    Workload(String, String),
}

impl From<YamlError> for InjectError {
    fn from(error: YamlError) -> InjectError {
        InjectError::Yaml(error)
    }
}

impl fmt::Display for InjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InjectError::Yaml(error) => write!(f, "standard input is not valid YAML: {error}"),
            InjectError::NoWorkload => f.write_str(
                "standard input has no Deployment, StatefulSet, DaemonSet, Job, CronJob or Pod; \
                give the manifest as in: pillion inject < app.yaml",
            ),
            InjectError::Option(problem) => f.write_str(problem),
            InjectError::Workload(name, problem) => write!(f, "{name}: {problem}"),
        }
    }
}
