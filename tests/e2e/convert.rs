//! Tests of `pillion convert`: what it prints is kept beside what it reads, and `pillion check` takes it.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::*;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/convert/nginx"))
}

fn convert(file: &std::path::Path) -> std::process::Output {
    Command::new(binary()).args(["convert", "nginx"]).arg(file).output().unwrap()
}

#[test]
fn nginx_configurations_are_converted_as_they_are_kept() {
    for name in ["app", "shop", "sites"] {
        let output = convert(&folder().join(name).join("nginx.conf"));
        assert!(output.status.success(), "{}", printed(&output.stderr));
        let kept = folder().join(format!("{name}.toml"));
        let made = printed(&output.stdout);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&kept, &made).unwrap();
        }
        assert_eq!(made, std::fs::read_to_string(&kept).unwrap(), "{name}: UPDATE=1 writes it");
    }
}

#[test]
fn converted_configurations_pass_the_check() {
    for (name, missing) in [("app", true), ("shop", false), ("sites", false)] {
        let output =
            Command::new(binary()).arg("check").arg(folder().join(format!("{name}.toml"))).output().unwrap();
        let problems = printed(&output.stderr);
        // The certificate is on no other machine; nothing else may be wrong.
        match missing {
            true => {
                assert!(problems.contains("fullchain.pem") && problems.contains("1 problem"), "{problems}")
            }
            false => assert!(output.status.success(), "{problems}"),
        }
    }
}

#[test]
fn an_nginx_configuration_that_is_not_one_is_told_with_its_place() {
    let folder = Folder::new();
    for (text, told) in [
        ("server {\n  listen 80\n}\n", "nginx.conf:2: the directive has no ; at its end"),
        ("server {\n", "nginx.conf:2: a block is not closed"),
        ("a \"b\n", "nginx.conf:1: a quote is not closed"),
        ("}\n", "nginx.conf:1: a directive is missing"),
        ("include nginx.conf;\n", "include each other"),
    ] {
        let output = convert(&folder.write("nginx.conf", text));
        let said = printed(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(told), "{said}");
    }
    let output = convert(std::path::Path::new("/nowhere.conf"));
    assert!(printed(&output.stderr).contains("/nowhere.conf: No such file"), "{}", printed(&output.stderr));
}
