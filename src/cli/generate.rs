//! The commands `pillion completions` and `pillion man`: files for packagers, generated from the command-line
//! arguments.

use std::io::{self, Write as _};

use clap::Command;
use clap_complete::Shell;

use super::output::{FAILED, OK, fail};

/// Writes the completion script for a shell.
pub(super) fn completions(mut command: Command, shell: Shell) -> u8 {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut command, "pillion", &mut out);
    write(&out)
}

/// Writes the man page.
pub(super) fn man(mut command: Command) -> u8 {
    command.build();
    write(super::man::page(&command).as_bytes())
}

/// Writes to standard output.
pub(super) fn write(out: &[u8]) -> u8 {
    match io::stdout().write_all(out) {
        Ok(()) => OK,
        Err(error) => fail(FAILED, &error),
    }
}
