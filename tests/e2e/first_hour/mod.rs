//! Tests of a newcomer's first hour: addresses as people write them, a first file, what a start says, and what `check`
//! says of wrong files.

mod addresses;
mod check;
mod init;
mod logs;
mod saves;
mod start;
mod wrong;

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::harness::{Folder, binary};

/// Runs a command in a folder of its own, with nothing but `environment`, and with `input` on standard input.
pub(crate) fn pillion(folder: &Folder, args: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(args).current_dir(&folder.0).env_clear().envs(environment.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that does not ask may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}
