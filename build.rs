//! Tells the release build which commit it is of. What is built without a repository (a crate, an image) says so by
//! itself: `PILLION_VERSION`.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=PILLION_VERSION");
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Everybody's test binaries would be built anew after each commit.
    if !is("PROFILE", "release") || std::env::var_os("PILLION_VERSION").is_some() {
        return;
    }
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    // A crate that was unpacked within somebody else's repository is not of their commit.
    let top = git(&["rev-parse", "--show-toplevel"]);
    if top.as_deref() != std::env::var("CARGO_MANIFEST_DIR").ok().as_deref() {
        return;
    }
    if let (Some(commit), Some(log)) =
        (git(&["rev-parse", "--short", "HEAD"]), git(&["rev-parse", "--git-path", "logs/HEAD"]))
    {
        println!("cargo:rerun-if-changed={log}");
        println!("cargo:rustc-env=PILLION_VERSION={} ({commit})", env!("CARGO_PKG_VERSION"));
    }
}
