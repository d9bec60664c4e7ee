//! The arguments of `pillion inject`.

use clap::Args;

/// The manifest on standard input, and what is added to it.
#[derive(Debug, Args)]
#[command(after_help = "Example: pillion inject < app.yaml | kubectl apply -f -\n\n\
    The manifest comes on standard input. Each Deployment, StatefulSet, DaemonSet, Job, CronJob and Pod gets the sidecar; \
    a Service of the input that leads to the app's port leads to the sidecar. Everything else stays as it is. Documents \
    that change lose their comments. The configuration is the key pillion.toml of a ConfigMap:\n\n  \
    kubectl create configmap pillion --from-file=pillion.toml")]
pub(crate) struct Options {
    /// A native sidecar, for Kubernetes 1.30 and later (default)
    #[arg(long, conflicts_with = "classic")]
    pub native: bool,
    /// A container beside the app, for older clusters; not for Jobs, which would never end
    #[arg(long)]
    pub classic: bool,
    /// The container of the app, where several have ports or one has a hostPort
    #[arg(long, value_name = "NAME")]
    pub container: Option<String>,
    /// The port of the app, by name or number, where its container has several or none
    #[arg(long = "app-port", value_name = "PORT")]
    pub port: Option<String>,
    /// The image of the sidecar
    #[arg(long, value_name = "IMAGE", default_value = concat!("pillion:", env!("CARGO_PKG_VERSION")))]
    pub image: String,
    /// The ConfigMap that has pillion.toml
    #[arg(long, value_name = "NAME", default_value = "pillion")]
    pub config_map: String,
}
