//! Manifests as people have them, and what becomes of them.

use super::{Options, inject};
use crate::yaml::{Node, parse};

/// Returns the options of the command without arguments.
fn options() -> Options {
    Options {
        native: false,
        classic: false,
        container: None,
        port: None,
        image: "pillion:1".to_owned(),
        config_map: "pillion".to_owned(),
    }
}

const DEPLOYMENT: &str = "\
# The app.
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, tier: front}}
    spec:
      containers:
        - name: app
          image: app:1.10
          ports: [{name: http, containerPort: 3000}]
          volumeMounts: [{name: data, mountPath: /data}]
      volumes:
        - name: data
          configMap: {name: data, defaultMode: 0644}
";
const SERVICE: &str = "\
---
# Stays as it is written, but for its target.
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports:
    - {name: http, port: 80, targetPort: http}
";

fn made(text: &str, options: &Options) -> Vec<Node> {
    let (output, _) = inject(text, options).unwrap();
    parse(&output).unwrap().into_iter().map(|document| document.root).collect()
}

fn problem(text: &str, options: &Options) -> String {
    inject(text, options).unwrap_err().to_string()
}

const POD: [&str; 3] = ["spec", "template", "spec"];

#[test]
fn a_deployment_gets_a_native_sidecar() {
    let roots = made(DEPLOYMENT, &options());
    let pod = roots[0].at(&POD).unwrap();
    let sidecar = &pod.get("initContainers").unwrap().items()[0];
    assert_eq!(sidecar.get("restartPolicy").unwrap().text(), Some("Always"));
    let args: Vec<_> = sidecar.get("args").unwrap().items().iter().filter_map(Node::text).collect();
    assert!(args.ends_with(&["--upstream", "http://127.0.0.1:3000"]), "{args:?}");
    assert_eq!(sidecar.at(&["startupProbe", "httpGet", "path"]).unwrap().text(), Some("/live"));
    assert_eq!(pod.get("containers").unwrap().items().len(), 1);
    let app = &pod.get("containers").unwrap().items()[0];
    assert_eq!(app.at(&["lifecycle", "preStop", "sleep", "seconds"]).unwrap().text(), Some("8"));
    let volume = &pod.get("volumes").unwrap().items()[1];
    assert_eq!(volume.at(&["configMap", "name"]).unwrap().text(), Some("pillion"));
    assert_eq!(pod.get("terminationGracePeriodSeconds").unwrap().text(), Some("60"));
}

#[test]
fn values_of_the_workload_stay_as_they_were_written() {
    let (output, _) = inject(DEPLOYMENT, &options()).unwrap();
    assert!(output.contains("defaultMode: 0644\n") && output.contains("image: app:1.10\n"), "{output}");
}

#[test]
fn a_service_of_the_input_leads_to_the_sidecar() {
    let both = format!("{DEPLOYMENT}{SERVICE}");
    let target = |roots: &[Node]| {
        let ports = roots[1].at(&["spec", "ports"]).unwrap();
        ports.items()[0].get("targetPort").unwrap().text().unwrap().to_owned()
    };
    assert_eq!(target(&made(&both, &options())), "8080");
    // Before the workload too.
    let service_first = format!("{}---\n{DEPLOYMENT}", SERVICE.trim_start_matches("---\n"));
    let roots = made(&service_first, &options());
    assert_eq!(
        roots[0].at(&["spec", "ports"]).unwrap().items()[0].get("targetPort").unwrap().text(),
        Some("8080")
    );
    for other in [
        both.replace("selector: {app: web}\n  ports", "selector: {app: other}\n  ports"),
        both.replace("Service\nmetadata: {name: web, namespace: shop}", "Service\nmetadata: {name: web}"),
        both.replace("targetPort: http", "targetPort: admin"),
    ] {
        assert_ne!(target(&made(&other, &options())), "8080");
    }
}

#[test]
fn what_leads_past_the_sidecar_is_told() {
    let notes = |text: &str| inject(text, &options()).unwrap().1.join("\n");
    assert!(notes(DEPLOYMENT).contains("no Service of the input leads to its port 3000"));
    let both = format!("{DEPLOYMENT}{SERVICE}");
    assert!(!notes(&both).contains("no Service"), "{}", notes(&both));
    let headless = both.replace(
        "spec:\n  selector: {app: web}\n  ports",
        "spec:\n  clusterIP: None\n  selector: {app: web}\n  ports",
    );
    assert!(notes(&headless).contains("is headless"), "{}", notes(&headless));
    assert_eq!(made(&headless, &options())[1], parse(&headless).unwrap()[1].root);
}

#[test]
fn applying_twice_changes_nothing() {
    for classic in [false, true] {
        let options = Options { classic, ..options() };
        let (once, _) = inject(&format!("{DEPLOYMENT}{SERVICE}"), &options).unwrap();
        let (twice, notes) = inject(&once, &options).unwrap();
        assert_eq!(twice, once);
        assert!(notes[0].contains("already"), "{notes:?}");
    }
}

#[test]
fn documents_that_do_not_change_keep_their_comments() {
    let other = "---\n# A comment.\nkind: ConfigMap   # and another\nmetadata: {name: x}\n";
    let (output, _) = inject(&format!("{other}---\n{DEPLOYMENT}"), &options()).unwrap();
    assert!(output.starts_with(other), "{output}");
}

#[test]
fn a_classic_sidecar_stands_beside_the_app() {
    let roots = made(DEPLOYMENT, &Options { classic: true, ..options() });
    let pod = roots[0].at(&POD).unwrap();
    assert!(pod.get("initContainers").is_none());
    let sidecar = &pod.get("containers").unwrap().items()[1];
    assert!(sidecar.get("restartPolicy").is_none());
    let hook = pod.get("containers").unwrap().items()[0].at(&["lifecycle", "preStop", "exec", "command"]);
    assert_eq!(hook.unwrap().items()[0].text(), Some("sleep"));
}

#[test]
fn a_native_sidecar_starts_before_other_init_containers() {
    let text = DEPLOYMENT.replace(
        "      containers:\n",
        "      initContainers: [{name: migrate, image: m}]\n      containers:\n",
    );
    let roots = made(&text, &options());
    let names: Vec<_> = roots[0].at(&POD).unwrap().get("initContainers").unwrap().items().iter().collect();
    assert_eq!(
        names.iter().filter_map(|c| c.get("name")?.text()).collect::<Vec<_>>(),
        ["pillion", "migrate"]
    );
}

#[test]
fn a_job_sends_its_requests_through_the_sidecar() {
    for (text, place) in [
        ("kind: Job\nmetadata: {name: j}\nspec: {template: {spec: {containers: [{name: j}]}}}\n", &POD[..]),
        (
            "kind: CronJob\nmetadata: {name: j}\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{name: j}]}}}}}\n",
            &["spec", "jobTemplate", "spec", "template", "spec"],
        ),
    ] {
        let roots = made(text, &options());
        let sidecar = &roots[0].at(place).unwrap().get("initContainers").unwrap().items()[0];
        assert!(sidecar.get("readinessProbe").is_none() && sidecar.get("startupProbe").is_some());
        assert!(problem(text, &Options { classic: true, ..options() }).contains("would never end"));
    }
}

#[test]
fn a_pod_and_the_items_of_a_list_get_the_sidecar() {
    let pod =
        "kind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, ports: [{containerPort: 80}]}]}\n";
    assert!(made(pod, &options())[0].at(&["spec", "initContainers"]).is_some());
    let list = "kind: List\nitems:\n  - {kind: Pod, metadata: {name: p}, spec: {containers: [{name: a, ports: [{containerPort: 80}]}]}}\n";
    let roots = made(list, &options());
    assert!(roots[0].get("items").unwrap().items()[0].at(&["spec", "initContainers"]).is_some());
}

#[test]
fn an_app_on_the_port_of_the_sidecar_keeps_it() {
    let text = DEPLOYMENT.replace("3000", "8080").replace(
        "containers:",
        "containers:\n        - {name: x, ports: [{containerPort: 9901, protocol: TCP}]}",
    );
    let roots = made(&text, &Options { container: Some("app".to_owned()), ..options() });
    let sidecar = &roots[0].at(&POD).unwrap().get("initContainers").unwrap().items()[0];
    let args: Vec<_> = sidecar.get("args").unwrap().items().iter().filter_map(Node::text).collect();
    assert_eq!(
        args[3..],
        ["--listen", "[::]:18080", "--probes", "[::]:19901", "--upstream", "http://127.0.0.1:8080"]
    );
}

#[test]
fn a_host_port_moves_to_the_sidecar_if_the_container_is_named() {
    let text =
        DEPLOYMENT.replace("containerPort: 3000", "hostIP: 10.0.0.1, containerPort: 3000, hostPort: 80");
    assert!(problem(&text, &options()).contains("--container app"));
    let roots = made(&text, &Options { container: Some("app".to_owned()), ..options() });
    let pod = roots[0].at(&POD).unwrap();
    let port = |list: &str| pod.get(list).unwrap().items()[0].get("ports").unwrap().items()[0].clone();
    assert!(port("containers").get("hostPort").is_none() && port("containers").get("hostIP").is_none());
    assert_eq!(port("initContainers").get("hostPort").unwrap().text(), Some("80"));
    assert_eq!(port("initContainers").get("hostIP").unwrap().text(), Some("10.0.0.1"));
}

#[test]
fn the_service_tells_which_of_several_ports_is_the_apps() {
    let text = DEPLOYMENT.replace("ports: [{", "ports: [{name: metrics, containerPort: 9100}, {");
    assert!(
        problem(&text, &options()).contains("several ports (9100, 3000); name the app's with --app-port")
    );
    let roots = made(&format!("{text}{SERVICE}"), &options());
    assert_eq!(
        roots[1].at(&["spec", "ports"]).unwrap().items()[0].get("targetPort").unwrap().text(),
        Some("8080")
    );
    let roots = made(&text, &Options { port: Some("metrics".to_owned()), ..options() });
    let sidecar = &roots[0].at(&POD).unwrap().get("initContainers").unwrap().items()[0];
    assert!(format!("{sidecar}").contains("http://127.0.0.1:9100"));
}

#[test]
fn a_hook_and_a_grace_period_of_the_app_stay() {
    let text = DEPLOYMENT
        .replace(
            "image: app:1.10\n",
            "image: app:1.10\n          lifecycle: {preStop: {exec: {command: [bye]}}}\n",
        )
        .replace("      containers:\n", "      terminationGracePeriodSeconds: 300\n      containers:\n");
    let roots = made(&text, &options());
    let pod = roots[0].at(&POD).unwrap();
    assert_eq!(pod.get("terminationGracePeriodSeconds").unwrap().text(), Some("300"));
    assert!(pod.get("containers").unwrap().items()[0].at(&["lifecycle", "preStop", "exec"]).is_some());
    assert!(pod.get("containers").unwrap().items()[0].at(&["lifecycle", "preStop", "sleep"]).is_none());
}

#[test]
fn a_manifest_that_gets_no_sidecar_is_told_why() {
    let with = |from: &str, to: &str| DEPLOYMENT.replace(from, to);
    for (text, told) in [
        ("kind: ConfigMap\n".to_owned(), "no Deployment"),
        (String::new(), "no Deployment"),
        ("a: [\n".to_owned(), "not valid YAML: line"),
        (with("ports: [{name: http, containerPort: 3000}]\n", "\n"), "listens with --app-port"),
        (
            with("containers:\n", "containers:\n        - {name: b, ports: [{containerPort: 1}]}\n"),
            "one of b, app",
        ),
        (with("      containers:\n", "      hostNetwork: true\n      containers:\n"), "hostNetwork"),
        (with("name: data\n          configMap", "name: pillion\n          configMap"), "volume"),
        (with("containerPort: 3000", "containerPort: 9900"), "port 9900"),
    ] {
        let problem = problem(&text, &options());
        assert!(problem.contains(told), "{problem}");
    }
    let nobody = Options { container: Some("x".to_owned()), ..options() };
    assert!(problem(DEPLOYMENT, &nobody).contains("no workload has a container \"x\""));
    let nothing = Options { port: Some("5000".to_owned()), ..options() };
    assert!(problem(DEPLOYMENT, &nothing).contains("has a port \"5000\""));
}
