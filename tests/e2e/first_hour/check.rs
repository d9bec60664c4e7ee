//! `pillion check`: warnings with their places, exit status, output for programs, and what it hides.

use super::pillion;
use crate::harness::{Folder, printed};

const WARNED: &str =
    "[upstream]\nurl = \"http://10.0.0.1:3000\"\n[server]\ntrusted_proxies = [\"0.0.0.0/0\"] # all\n";
const WRONG: &str = "[upstream]\nurl = \"http://10.0.0.1:3000\"\nretires = 3\n";

struct Checked {
    code: i32,
    stdout: String,
    stderr: String,
}

fn check(config: &str, options: &[&str]) -> Checked {
    let folder = Folder::new();
    folder.write("pillion.toml", config);
    let output = pillion(&folder, &[&["check"], options].concat(), &[], "");
    Checked {
        code: output.status.code().unwrap(),
        stdout: printed(&output.stdout),
        stderr: printed(&output.stderr),
    }
}

#[test]
fn warning_has_its_place_line_caret_and_remedy() {
    let checked = check(WARNED, &[]);
    assert_eq!(checked.code, 0);
    let shown = "warning: server.trusted_proxies holds \"0.0.0.0/0\": every client may claim any address in X-Forwarded-For\n \
         --> pillion.toml:4:20\n  |\n\
         4 | trusted_proxies = [\"0.0.0.0/0\"] # all\n  |                    ^^^^^^^^^^^ name the networks of your \
         proxies, or \"private\"\npillion.toml: fine (routes: 0, upstreams: 1)\n";
    assert_eq!(checked.stdout, shown);
}

#[test]
fn strict_check_fails_for_a_warning_and_for_nothing_less() {
    let checked = check(WARNED, &["--strict"]);
    assert_eq!((checked.code, checked.stderr.trim()), (2, "1 warning in pillion.toml (--strict)"));
    assert_eq!(check("[upstream]\nurl = \"http://10.0.0.1:3000\"\n", &["--strict"]).code, 0);
    assert_eq!(check(WRONG, &["--strict"]).code, 2);
}

#[test]
fn check_takes_the_file_as_run_does() {
    for options in [&["-c", "pillion.toml"][..], &["--config", "pillion.toml"], &["pillion.toml"], &[]] {
        assert_eq!(check(WRONG, options).code, 2, "{options:?}");
        assert_eq!(check(WARNED, options).code, 0, "{options:?}");
    }
}

#[test]
fn json_has_every_remark_with_its_place() {
    let checked = check(WARNED, &["--format", "json"]);
    let document: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    let remark = &document["diagnostics"][0];
    assert_eq!((checked.code, &document["fine"], &remark["severity"]), (0, &true.into(), &"warning".into()));
    assert_eq!(
        (&remark["file"], &remark["line"], &remark["column"], &remark["end_column"]),
        (&"pillion.toml".into(), &4.into(), &20.into(), &31.into())
    );
    let checked = check(WRONG, &["--format", "json"]);
    let document: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!((checked.code, &document["fine"], checked.stderr.as_str()), (2, &false.into(), ""));
    let remark = &document["diagnostics"][0];
    assert_eq!(
        (&remark["severity"], &remark["help"]),
        (&"error".into(), &"did you mean \"retries\"?".into())
    );
}

#[test]
fn github_gets_workflow_commands() {
    let warned = check(WARNED, &["--format", "github", "--strict"]);
    let line = "::warning file=pillion.toml,line=4,col=20,endColumn=31::server.trusted_proxies holds ";
    assert!(warned.code == 2 && warned.stdout.starts_with(line), "{}", warned.stdout);
    let wrong = check(WRONG, &["--format", "github"]);
    let line = "::error file=pillion.toml,line=3,col=1,endColumn=8::unknown key \"retires\" in [upstream]; did you mean";
    assert!(wrong.code == 2 && wrong.stdout.starts_with(line), "{}", wrong.stdout);
}

#[test]
fn values_of_secrets_are_hidden_and_nothing_else() {
    const OTHERS: &str = "[identity]\nprincipal = [\"header:x-auth-token\", 7]\napi_key = \"cookie:key\" # a comment\n\
        [cache]\nignore_cookies = [\"session\", 8]\n[upstream]\nurl = \"ftp://a\"\nretires = \"3\"\n\
        [[routes]]\nmatch = \"GET /reset/{token\"\nset_response = { x-token-kind = \"a\\nb\", x-a = 9 }\n";
    let shown = check(OTHERS, &[]).stderr;
    for line in [
        "principal = [\"header:x-auth-token\", 7]",
        "api_key = \"cookie:key\" # a comment",
        "ignore_cookies = [\"session\", 8]",
        "url = \"ftp://a\"",
        "retires = \"3\"",
        "match = \"GET /reset/{token\"",
    ] {
        assert!(shown.contains(&format!(" | {line}\n")), "{line} in\n{shown}");
    }
    let shown = check("[upstream]\nurl = http://app:3000\n[server]\nadmin_token = S3CRET\n", &[]).stderr;
    assert!(shown.contains(" | url = http://app:3000\n") && !shown.contains("S3CRET"), "{shown}");
    const SECRETS: &str = "[server]\nadmin_token = [\"S3CRET\"]\n[identity]\nhash_key = \"S3CRET\" # short\n\
        [upstream]\nurl = \"http://me:S3CRET@a/x\"\n[[routes]]\nmatch = \"GET /\"\nset_request = { x = 53037 }\n";
    let shown = check(SECRETS, &[]).stderr;
    assert!(!shown.contains("S3CRET") && !shown.contains("53037"), "{shown}");
    assert!(shown.contains("hash_key = ******** # short"), "{shown}");
}
