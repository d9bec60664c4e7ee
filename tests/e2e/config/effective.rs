//! Tests of `pillion config`: the effective settings of a process and of a file.

use std::process::Command;

use serde_json::Value;

use crate::harness::script::upstream;
use crate::harness::{Folder, Pillion, Script, binary, eventually, printed, wire};

const TOKEN: &str = "S3CRET-of-the-operator";

/// The output of a command that starts with `pillion config`.
struct Shown {
    code: i32,
    out: String,
    said: String,
}

fn shown(args: &[&str], environment: &[(&str, &str)]) -> Shown {
    let mut command = Command::new(binary());
    command.arg("config").args(args).env_clear().envs(environment.iter().copied());
    let output = command.output().unwrap();
    Shown {
        code: output.status.code().unwrap(),
        out: printed(&output.stdout),
        said: printed(&[output.stdout, output.stderr].concat()),
    }
}

/// The line of a key, without the folder of its file.
#[track_caller]
fn line(out: &str, key: &str) -> String {
    let found = out.lines().find(|line| line.starts_with(&format!("{key} = ")));
    let line = found.unwrap_or_else(|| panic!("no {key} in\n{out}"));
    let (value, origin) = line.split_once("  # ").unwrap();
    format!("{value}  # {}", origin.rsplit('/').next().unwrap())
}

fn server(more: &str) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nadmin_token = \"{TOKEN}\"\n{more}\n"
    )
}

#[test]
fn config_of_a_process_shows_what_holds_since_the_last_reload() {
    let app = Script::echo();
    let first = format!("{}{}", server("idle_timeout = \"61s\""), upstream(&app));
    let pillion = Pillion::with(&first);
    let admin = pillion.admin.to_string();
    // The harness adds lines.
    let place = |key: &str| {
        let text = std::fs::read_to_string(pillion.folder.path("pillion.toml")).unwrap();
        let at = text.lines().position(|line| line.starts_with(&format!("{key} ="))).unwrap();
        format!("pillion.toml:{}", at + 1)
    };
    let config = |token: &str| shown(&["--admin", &admin, "--token", token], &[]);
    let refused = config("wrong");
    assert_eq!(refused.code, 1, "{}", refused.said);
    assert!(refused.said.contains("admin token"), "{}", refused.said);
    let before = config(TOKEN);
    assert_eq!(before.code, 0, "{}", before.said);
    assert_eq!(
        line(&before.out, "idle_timeout"),
        format!("idle_timeout = \"61s\"  # {}", place("idle_timeout"))
    );
    assert_eq!(
        line(&before.out, "admin_token"),
        format!("admin_token = \"****************\"  # {}", place("admin_token")),
        "masked"
    );
    assert_eq!(line(&before.out, "header_timeout"), "header_timeout = \"10s\"  # default");
    assert!(!before.said.contains("S3CRET"), "{}", before.said);
    pillion.reload(&first.replace("61s", "2m"));
    let wanted = format!("idle_timeout = \"2m\"  # {}", place("idle_timeout"));
    assert_eq!(line(&config(TOKEN).out, "idle_timeout"), wanted);
    pillion.reload("[upstream]\nurl = true\n");
    assert_eq!(line(&config(TOKEN).out, "idle_timeout"), wanted, "a rejected file changes nothing");
}

#[test]
fn config_endpoint_needs_the_token_and_chooses_its_form() {
    let app = Script::echo();
    let pillion = Pillion::with(&format!("{}{}", server(""), upstream(&app)));
    assert_eq!(wire::ask(pillion.admin, "GET /config", "").status, 401);
    let token = format!("authorization: Bearer {TOKEN}\r\n");
    for (line, more, kind) in [
        ("GET /config", "", "application/toml"),
        ("GET /config", "accept: application/json\r\n", "application/json"),
        ("GET /config?format=json", "", "application/json"),
        ("GET /config?format=toml", "accept: application/json\r\n", "application/toml"),
    ] {
        let answer = wire::ask(pillion.admin, line, &format!("{token}{more}"));
        assert_eq!(
            (answer.status, answer.field("content-type").as_deref()),
            (200, Some(kind)),
            "{line} {more}"
        );
        assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
    }
    assert_eq!(wire::ask(pillion.admin, "GET /config?format=yaml", &token).status, 400);
    assert_eq!(wire::ask(pillion.admin, "GET /config?as=json", &token).status, 400);
}

#[test]
fn config_of_a_file_is_a_file_that_check_accepts() {
    let folder = Folder::new();
    let text = "[upstream]\nurl = \"http://${APP_HOST:-localhost}:3000\"\nretries = \"${RETRIES}\"\n[[routes]]\nmatch = \
                \"GET /patients/{id}\"\nset_request = { authorization = \"Basic ${AUTH}\" }\ncache = { ttl = \"60s\" }\n";
    let file = folder.write("pillion.toml", text);
    let file = file.to_str().unwrap();
    let environment = [("RETRIES", "2"), ("AUTH", "S3CRET"), ("PILLION_ADMIN_TOKEN", "x")];
    let shown_of = |args: &[&str]| shown(args, &environment);
    let toml = shown_of(&[file]);
    assert_eq!(toml.code, 0, "{}", toml.said);
    assert_eq!(shown_of(&["--config", file]).out, toml.out);
    for (key, wanted) in [
        ("url", "url = \"http://localhost:3000\"  # pillion.toml:2 ${APP_HOST} (fallback)"),
        ("retries", "retries = 2  # pillion.toml:3 ${RETRIES}"),
        ("authorization", "authorization = \"****************\"  # pillion.toml:6 ${AUTH}"),
        ("ttl", "ttl = \"1m\"  # pillion.toml:7"),
        ("watch", "watch = true  # default"),
    ] {
        assert_eq!(line(&toml.out, key), wanted);
    }
    let written = folder.write("effective.toml", &toml.out);
    let checked = Command::new(binary()).arg("check").arg(&written).env_clear().output().unwrap();
    assert!(checked.status.success(), "{}", printed(&[checked.stdout, checked.stderr].concat()));
    let document: Value = serde_json::from_str(&shown_of(&[file, "--format", "json"]).out).unwrap();
    let settings = document["settings"].as_array().unwrap();
    let of = |key: &str| settings.iter().find(|setting| setting["key"] == key).unwrap();
    assert_eq!(of("routes[0].cache.ttl")["value"], "1m");
    assert_eq!(
        (&of("upstream.retries")["value"], &of("cache.enabled")["origin"]),
        (&2.into(), &"default".into())
    );
    assert_eq!(of("routes[0].set_request.authorization")["secret"], true);
    assert!(
        toml.out.contains(&format!("# digest {}\n", document["digest"].as_str().unwrap())),
        "{}",
        toml.out
    );
    assert!(!document.to_string().contains("S3CRET") && !toml.said.contains("S3CRET"));
}

#[test]
fn config_of_a_wrong_file_names_its_problems() {
    let folder = Folder::new();
    let file = folder.write("pillion.toml", "[upstream]\nurl = true\n");
    let wrong = shown(&[file.to_str().unwrap()], &[]);
    assert_eq!((wrong.code, wrong.out.as_str()), (2, ""), "{}", wrong.said);
    assert!(wrong.said.contains("pillion.toml:2:7"), "{}", wrong.said);
    let missing = shown(&[folder.path("none.toml").to_str().unwrap()], &[]);
    assert!(missing.code == 2 && missing.said.contains("cannot read"), "{}", missing.said);
}

/// The digest that the metric tells.
#[track_caller]
fn digest(pillion: &Pillion) -> String {
    let text = pillion.admin_get("/metrics").text();
    let series: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("pillion_config_info{digest=\"")).collect();
    let [one] = series.as_slice() else { panic!("{series:?}") };
    one.strip_suffix("\"} 1").unwrap().to_owned()
}

#[test]
fn digest_follows_the_settings_and_not_the_secrets() {
    let app = Script::echo();
    let first = format!("{}{}[log]\nformat = \"json\"\n", server("idle_timeout = \"1m\""), upstream(&app));
    let pillion = Pillion::with(&first);
    let before = digest(&pillion);
    assert!(pillion.log().contains(&format!("\"digest\":\"{before}\"")), "{}", pillion.log());
    pillion.reload(&first.replace(TOKEN, "another-S3CRET-token").replace("1m", "60s"));
    assert_eq!(digest(&pillion), before);
    pillion.reload("[upstream]\nurl = true\n");
    assert_eq!(digest(&pillion), before, "a rejected file changes nothing");
    pillion.reload(&first.replace("1m", "61s"));
    let after = digest(&pillion);
    assert_ne!(after, before);
    let told = format!("\"digest\":\"{after}\"");
    eventually("the reload tells the digest", || pillion.log().contains(&told).then_some(()));
    let token = format!("authorization: Bearer {TOKEN}\r\n");
    assert_eq!(wire::ask(pillion.admin, "GET /config?format=json", &token).json()["digest"], after.as_str());
}
