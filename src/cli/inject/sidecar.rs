//! The sidecar as a container of a pod.

use super::options::Options;
use super::ports::Ports;
use crate::yaml::{Node, YamlError, parse};

/// The name of the sidecar's container and of the volume with its configuration.
pub(super) const NAME: &str = "pillion";

/// Where the configuration is mounted.
const FILE: &str = "/etc/pillion/pillion.toml";

/// Security, size and configuration, the same in all forms. Measured: 9 MiB idle, 18 us of CPU for a request that is
/// passed through, so 50m bear 2,500 requests a second. The cache takes at most a quarter of the memory limit.
const REST: &str = "\
resources:
  requests:
    cpu: 50m
    memory: 64Mi
  limits:
    memory: 256Mi
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop:
      - ALL
  seccompProfile:
    type: RuntimeDefault
volumeMounts:
  - name: pillion
    mountPath: /etc/pillion
    readOnly: true
";

/// Returns the sidecar of a pod that takes requests.
pub(super) fn in_front(options: &Options, ports: Ports) -> Result<Node, YamlError> {
    let Ports { app, listen, probes } = ports;
    let restart = if options.classic { "" } else { "restartPolicy: Always\n" };
    container(
        options,
        &format!(
            "\
{restart}args:
  - run
  - --config
  - {FILE}
  - --listen
  - \"[::]:{listen}\"
  - --probes
  - \"[::]:{probes}\"
  - --upstream
  - http://127.0.0.1:{app}
ports:
  - name: pillion
    containerPort: {listen}
  - name: pillion-probes
    containerPort: {probes}
startupProbe:
  httpGet:
    path: /live
    port: {probes}
  periodSeconds: 1
  failureThreshold: 30
livenessProbe:
  httpGet:
    path: /live
    port: {probes}
  periodSeconds: 10
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /ready
    port: {probes}
  periodSeconds: 2
  failureThreshold: 1
lifecycle:
  preStop:
    exec:
      command:
        - /pillion
        - drain
"
        ),
    )
}

/// Returns the sidecar of a job, which sends its own requests through it.
pub(super) fn of_job(options: &Options) -> Result<Node, YamlError> {
    container(
        options,
        &format!(
            "\
restartPolicy: Always
args:
  - run
  - --config
  - {FILE}
startupProbe:
  exec:
    command:
      - /pillion
      - health
      - --live
  periodSeconds: 1
  failureThreshold: 30
"
        ),
    )
}

fn container(options: &Options, part: &str) -> Result<Node, YamlError> {
    let mut node = Node::mapping();
    node.set("name", Node::plain(NAME));
    node.set("image", text(&options.image));
    for part in [part, REST] {
        for document in parse(part)? {
            for (key, value) in document.root.entries() {
                node.set(key.text().unwrap_or(""), value.clone());
            }
        }
    }
    Ok(node)
}

/// Returns the volume with the configuration.
pub(super) fn volume(options: &Options) -> Node {
    let mut reference = Node::mapping();
    reference.set("name", text(&options.config_map));
    let mut volume = Node::mapping();
    volume.set("name", Node::plain(NAME));
    volume.set("configMap", reference);
    volume
}

/// Returns the hook that keeps the app running while requests still come: after its pod is marked as ending, until all
/// others have heard of it. Kubernetes has the action since 1.30; older clusters get the command.
pub(super) fn sleep(options: &Options) -> Result<Node, YamlError> {
    let hook = match options.classic {
        // As long as Pillion needs to end: drain_delay, and the longest request.
        true => "preStop:\n  exec:\n    command:\n      - sleep\n      - \"15\"\n",
        false => "preStop:\n  sleep:\n    seconds: 8\n",
    };
    Ok(parse(hook)?.remove(0).root)
}

/// Returns a string from the command line.
fn text(text: &str) -> Node {
    Node { tag: None, value: crate::yaml::Value::Scalar(text.to_owned(), crate::yaml::Style::Quoted) }
}
