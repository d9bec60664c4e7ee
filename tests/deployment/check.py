"""Checks rendered Kubernetes manifests for what schemas do not say.

check.py documents OUT FILE...        holds the rules below for each file of documents, which belong together, and writes the
                                     configurations of Pillion to OUT, for `pillion check`
check.py values CHART                 holds the schema of a chart's values to the values, both ways
check.py rules                        holds the copies of the alerts; UPDATE=1 writes them anew
"""

import json
import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/pillion.rules.yml"
CHART_RULES = ROOT / "deploy/helm/pillion/files/pillion.rules.yml"
PROMETHEUS_RULE = ROOT / "deploy/kubernetes/monitoring/prometheus-rule.yaml"
PROMETHEUS_RULE_HEAD = """\
# The groups are those of deploy/prometheus/pillion.rules.yml, which are tested there. `UPDATE=1 tests/manifests` copies them.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: app
  labels: { app.kubernetes.io/name: app }
spec:
"""


def hold(condition: bool, message: str) -> None:
    if not condition:
        sys.exit(f"FAILED: {message}")


def of_kind(documents: list[Document], *kinds: str) -> Iterator[Document]:
    return (document for document in documents if document["kind"] in kinds)


def seconds(text: str) -> int:
    """Returns the seconds of a duration such as "30s"."""
    hold(text.endswith("s") and text[:-1].isdigit(), f"{text} is no number of seconds")
    return int(text[:-1])


def configuration(documents: list[Document], pod: Document) -> tuple[str, str]:
    """Returns the name of the ConfigMap that a pod mounts for Pillion, and the configuration in it."""
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "pillion")
    name = volume["configMap"]["name"]
    maps = [document for document in of_kind(documents, "ConfigMap") if document["metadata"]["name"] == name]
    hold(len(maps) == 1, f"no ConfigMap is called {name}, which a pod mounts")
    return name, maps[0]["data"]["pillion.toml"]


def check_services(documents: list[Document], deployment: Document | None) -> None:
    """A Service names a port by its number: names in a native sidecar do not resolve before Kubernetes 1.33."""
    for service in of_kind(documents, "Service"):
        for port in service["spec"]["ports"]:
            target = port.get("targetPort")
            hold(isinstance(target, int), f"Service {service['metadata']['name']}: targetPort {target!r} is no number")
            hold(deployment is not None, "a Service without a Deployment")
            if deployment:
                hold(target in pillion_ports(deployment["spec"]["template"]["spec"]), f"{target} is no port of Pillion")
    for kind in of_kind(documents, "Service", "NetworkPolicy", "PodDisruptionBudget", "PodMonitor"):
        spec = kind["spec"]
        selector = spec.get("podSelector") or spec.get("selector")
        wanted = selector.get("matchLabels", selector)
        labels = deployment["spec"]["template"]["metadata"]["labels"] if deployment else {}
        hold(wanted.items() <= labels.items(), f"{kind['kind']} selects {wanted}, and the pods have {labels}")


def pillion_of(pod: Document) -> tuple[Document, bool]:
    """Returns Pillion's container, and whether it is a native sidecar."""
    for native, containers in ((True, pod.get("initContainers", [])), (False, pod["containers"])):
        for container in containers:
            if container["name"] == "pillion":
                return container, native
    sys.exit(f"FAILED: no container is called pillion: {pod}")


def pillion_ports(pod: Document) -> list[int]:
    return [port["containerPort"] for port in pillion_of(pod)[0].get("ports", [])]


def check_pod(documents: list[Document], pod: Document, kube: str) -> tuple[str, str]:
    pillion, native = pillion_of(pod)
    hold((pillion.get("restartPolicy") == "Always") == native, "a native sidecar, and it alone, has restartPolicy: Always")
    probe = pillion.get("startupProbe", {})
    asked = probe.get("httpGet", {}).get("path") or " ".join(probe.get("exec", {}).get("command", []))
    hold(not probe or "live" in asked, f"the startup probe asks {asked}; with /ready a sidecar waits for its app for ever")
    hold(not native or bool(probe), "a native sidecar has no startup probe, so the app may start before it")

    name, text = configuration(documents, pod)
    parsed = tomllib.loads(text)
    hold("health" in parsed["upstream"], f"{name}: no [upstream.health]")

    # The user of the app's image stands.
    hold(not {"runAsUser", "runAsGroup", "runAsNonRoot"} & pod.get("securityContext", {}).keys(), "the pod sets a user")
    user = pillion["securityContext"]["runAsUser"]
    hold(user == 65532, f"Pillion runs as {user}")

    slept = 0
    for container in pod["containers"]:
        hook = container.get("lifecycle", {}).get("preStop", {})
        command = hook.get("exec", {}).get("command", [])
        if "sleep" in hook:
            hold(minor(kube) >= 30, f"{container['name']}: Kubernetes {kube} has no sleep action")
            slept = hook["sleep"]["seconds"]
        elif command[:1] == ["sleep"]:
            slept = int(command[1])
    if "terminationGracePeriodSeconds" in pod:
        server = parsed["server"]
        needed = slept + seconds(server["drain_delay"]) + seconds(server["drain_timeout"])
        hold(slept > seconds(server["drain_delay"]), f"the app sleeps {slept} s, and requests come for longer")
        given = pod["terminationGracePeriodSeconds"]
        hold(given > needed, f"terminationGracePeriodSeconds is {given}, and the end takes {needed} s")

    secrets = {document["metadata"]["name"] for document in of_kind(documents, "Secret")}
    for volume in pod["volumes"]:
        secret = volume.get("secret", {})
        if secret and not secret.get("optional") and volume["name"] == "pillion-keys":
            hold(secret["secretName"] in secrets or secret["secretName"] == "existing-keys", f"no Secret for {volume}")
    mounted = {volume["name"] for volume in pod["volumes"]}
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        for mount in container.get("volumeMounts", []):
            hold(mount["name"] in mounted, f"no volume is called {mount['name']}")
            hold("subPath" not in mount, f"{mount['name']} is a single file, which never changes in a container")
    return name, text


def minor(kube: str) -> int:
    return int(kube.split(".")[1])


def check_rules_of(documents: list[Document]) -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    for rule in of_kind(documents, "PrometheusRule"):
        hold(rule["spec"]["groups"] == groups, "the PrometheusRule is not deploy/prometheus/pillion.rules.yml")


def check_documents(path: Path, out: Path) -> None:
    """The version of Kubernetes that the documents are for is in the name of the file: NAME-1.30.yaml."""
    kube = path.stem.rsplit("-", 1)[1]
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    deployment = next(of_kind(documents, "Deployment"), None)
    if deployment:
        selector = deployment["spec"]["selector"]["matchLabels"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        hold(selector.items() <= labels.items(), f"the Deployment selects {selector}, and its pods have {labels}")
    check_services(documents, deployment)
    check_rules_of(documents)
    pods = [document["spec"]["template"]["spec"] for document in of_kind(documents, "Deployment", "Job")]
    hold(bool(pods), f"{path}: no pod")
    for pod in pods:
        name, text = check_pod(documents, pod, kube)
        (out / f"{path.stem}-{name}.toml").write_text(text)


def check_values(chart: Path) -> None:
    """Every value has a place in the schema, and every key of the schema is a value: nothing is accepted and unread."""
    values = yaml.safe_load((chart / "values.yaml").read_text())
    schema = json.loads((chart / "values.schema.json").read_text())
    # Charts that have this one as a part share these with it.
    schema["properties"].pop("global")
    compare("values", schema, values)
    templates = "".join(path.read_text() for path in sorted((chart / "templates").iterdir()))
    for key in leaves(values, ""):
        # Maps that are written as a whole are named by their own name.
        names = [key[: -len(rest)] if rest else key for rest in suffixes(key)]
        used = any(f".Values{name}" in templates + values["config"] for name in names)
        hold(used, f"no template uses {key}")


def suffixes(key: str) -> Iterator[str]:
    parts = key.split(".")
    for count in range(len(parts) - 1):
        yield "".join(f".{part}" for part in parts[len(parts) - count :])


def leaves(values: Document, path: str) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}"


def compare(path: str, schema: Document, values: Document) -> None:
    declared = schema.get("properties")
    if declared is None:
        return
    hold(declared.keys() == values.keys(), f"{path}: schema and values differ in {declared.keys() ^ values.keys()}")
    for key, value in values.items():
        if isinstance(value, dict):
            compare(f"{path}.{key}", declared[key], value)


def check_copies() -> None:
    rules = RULES.read_text()
    body = rules[rules.index("groups:") :]
    indented = "".join(f"  {line}" if line.strip() else line for line in body.splitlines(keepends=True))
    for path, wanted in ((CHART_RULES, rules), (PROMETHEUS_RULE, PROMETHEUS_RULE_HEAD + indented)):
        if os.environ.get("UPDATE"):
            path.write_text(wanted)
        found = path.read_text() if path.exists() else ""
        hold(found == wanted, f"{path.relative_to(ROOT)} is old: run UPDATE=1 tests/manifests")


def main() -> None:
    match sys.argv[1:]:
        case ["documents", out, *files]:
            for file in files:
                check_documents(Path(file), Path(out))
        case ["values", chart]:
            check_values(Path(chart))
        case ["rules"]:
            check_copies()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
