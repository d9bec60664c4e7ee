//! Tests of what packages contain and what services pass to the process: the man page, completions, credentials, and the
//! environment variables of OpenTelemetry.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::*;

fn pillion(arguments: &[&str]) -> String {
    let output = Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    printed(&output.stdout)
}

fn said(output: &Output) -> String {
    format!("{}{}", printed(&output.stdout), printed(&output.stderr))
}

/// Runs a program with a text as its standard input.
fn piped(program: &str, arguments: &[&str], text: &str) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
    let mut input = child.stdin.take().unwrap();
    let text = text.to_owned();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output
}

#[test]
fn man_page_is_one_page_that_groff_renders_without_a_warning() {
    let page = pillion(&["man"]);
    assert_eq!(page.matches(".TH ").count(), 1);
    let output = piped("groff", &["-man", "-Tascii", "-P-c", "-P-b", "-P-u", "-ww", "-rLL=100n"], &page);
    assert!(output.status.success());
    assert_eq!(printed(&output.stderr), "");
    let text = printed(&output.stdout);
    let mut rest = text.as_str();
    for section in [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "COMMANDS",
        "EXAMPLES",
        "FILES",
        "ENVIRONMENT",
        "SIGNALS",
        "EXIT STATUS",
    ] {
        let at = rest.find(&format!("\n{section}\n")).unwrap_or_else(|| panic!("{section}: {text}"));
        rest = &rest[at + 1..];
    }
    for part in [
        "pillion run",
        "pillion keys add",
        "pillion check [FILE]",
        "-u, --upstream URL",
        "PILLION_ADMIN_TOKEN",
        "CREDENTIALS_DIRECTORY",
        "OTEL_RESOURCE_ATTRIBUTES",
        "SIGHUP",
        "SIGTERM, SIGINT",
        "'Authorization: Bearer abc'",
        "/etc/pillion/pillion.toml",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Every command that help lists has an entry.
    for command in pillion(&["--help"])
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Explanations that are continued are indented more.
        .filter(|line| !line.starts_with("    "))
    {
        let name = command.split_whitespace().next().unwrap();
        assert!(name == "help" || text.contains(&format!("pillion {name}")), "{name}");
    }
}

/// Every option in a man page's example is one that the command has.
#[test]
fn man_page_shows_examples_that_the_command_line_accepts() {
    let page = pillion(&["man"]);
    let examples: Vec<String> = page
        .split(".nf\n")
        .skip(1)
        .map(|block| {
            block.split("\n.fi").next().unwrap().replace("\\-", "-").replace("\\(aq", "'").replace("\\&", "")
        })
        .collect();
    assert!(examples.len() >= 5, "{examples:?}");
    for example in examples {
        // `--help` ends a command after its options are parsed up to there, so an unknown one before it is an error.
        let line = format!("{example} --help").replacen("pillion", binary(), 1);
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert!(output.status.success(), "{example}: {}", said(&output));
    }
}

/// Returns what bash offers for the last of the words: the words of the script, or files where it has none and says
/// `-o default`.
fn completed(script: &Path, folder: &Path, words: &[&str]) -> Vec<String> {
    let text = format!(
        "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _pillion pillion \"${{COMP_WORDS[-1]}}\" \
         \"${{COMP_WORDS[-2]}}\" 2>/dev/null; \
         if [ ${{#COMPREPLY[@]}} = 0 ]; then complete -p pillion | grep -q -e '-o default' && compgen -f \"${{COMP_WORDS[-1]}}\"; \
         else printf '%s\\n' \"${{COMPREPLY[@]}}\"; fi",
        script.display(),
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len() - 1
    );
    let output = Command::new("bash").args(["-c", &text]).current_dir(folder).output().unwrap();
    printed(&output.stdout).lines().map(str::to_owned).filter(|word| !word.is_empty()).collect()
}

#[test]
fn completions_offer_commands_options_files_and_names() {
    let folder = Folder::new();
    let script = folder.write("pillion.bash", pillion(&["completions", "bash"]));
    folder.write("shop.toml", "");
    for (words, expected) in [
        (&["pillion", "che"][..], &["check"][..]),
        (&["pillion", "run", "--ups"], &["--upstream"]),
        (&["pillion", "run", "--config", "sh"], &["shop.toml"]),
        (&["pillion", "check", "sh"], &["shop.toml"]),
        (&["pillion", "explain", "GET", "/", "--config", "sh"], &["shop.toml"]),
        (&["pillion", "keys", "list", "--file", "sh"], &["shop.toml"]),
        (&["pillion", "health", "mem"], &["memory"]),
        (&["pillion", "health", "file"], &["file_descriptors"]),
        (&["pillion", "schema", "--format", "m"], &["markdown"]),
    ] {
        assert_eq!(completed(&script, &folder.0, words), expected, "{words:?}");
    }
}

/// A name that completions do not offer is asked for all the same.
#[test]
fn health_of_an_unknown_check_is_asked_for() {
    let output = Command::new(binary())
        .args(["health", "--admin", &absent_app().to_string(), "upstream:media"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

fn check(folder: &Folder, text: &str, variables: &[(&str, &str)]) -> (bool, String) {
    let file = folder.write("pillion.toml", text);
    let mut command = Command::new(binary());
    command.arg("check").arg(file).env_remove("ADMIN_TOKEN").envs(variables.iter().copied());
    let output = command.output().unwrap();
    (output.status.success(), said(&output))
}

#[test]
fn credentials_of_the_service_fill_references() {
    let folder = Folder::new();
    let text = "[server]\nadmin = \"0.0.0.0:9900\"\nadmin_token = \"${ADMIN_TOKEN}\"\n\
                [upstream]\nurl = \"http://127.0.0.1:1\"\n\
                [rate_limit]\nkeys = \"${CREDENTIALS_DIRECTORY}/keys.toml\"\n\
                [rate_limit.tiers.free.limits]\nrequests = { rate = \"10/min\" }\n";
    let credentials = Folder::new();
    let place = credentials.0.to_str().unwrap().to_owned();
    let (fine, said) = check(&folder, text, &[("CREDENTIALS_DIRECTORY", &place)]);
    assert!(!fine && said.contains("ADMIN_TOKEN is not set"), "{said}");
    credentials.write("ADMIN_TOKEN", "a-long-word-for-a-token\n");
    credentials.write("keys.toml", "");
    let (fine, said) = check(&folder, text, &[("CREDENTIALS_DIRECTORY", &place)]);
    assert!(fine, "{said}");
}

#[test]
fn resource_attributes_that_are_none_are_an_error() {
    let folder = Folder::new();
    let text =
        "[upstream]\nurl = \"http://127.0.0.1:1\"\n[tracing]\notlp_endpoint = \"http://127.0.0.1:2\"\n";
    for (value, expected) in [
        ("deployment.environment=prod", None),
        ("", None),
        ("prod", Some("$OTEL_RESOURCE_ATTRIBUTES is not a list of attributes: \"prod\" has no \"=\"")),
    ] {
        let (fine, said) = check(&folder, text, &[("OTEL_RESOURCE_ATTRIBUTES", value)]);
        assert_eq!(fine, expected.is_none(), "{value}: {said}");
        assert!(expected.is_none_or(|expected| said.contains(expected)), "{value}: {said}");
    }
}
