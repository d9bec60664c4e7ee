//! Usage of the file systems that Pillion writes to. Pillion stores nothing on disk itself, but its logs may go to
//! files.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, fstat, fstatvfs};

/// Usage of one file system that a log is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    pub name: &'static str,
    /// Bytes in use, counted as `df` counts them.
    pub used: u64,
    /// Bytes in use plus bytes available to unprivileged users.
    pub total: u64,
}

/// Reads the file systems of the log files, each once. Output to a pipe or a terminal uses no disk and is skipped.
pub(super) fn read() -> Vec<Disk> {
    let (output, error) = (io::stdout(), io::stderr());
    let output = read_one("standard output", output.as_fd());
    let error = read_one("standard error", error.as_fd());
    match (output, error) {
        (Some((one, _)), Some((other, _))) if one == other => {
            output.into_iter().map(|(_, disk)| disk).collect()
        }
        _ => output.into_iter().chain(error).map(|(_, disk)| disk).collect(),
    }
}

/// Returns the device number and the file system's usage; `None` if the descriptor is not a regular file.
fn read_one(name: &'static str, fd: BorrowedFd<'_>) -> Option<(u64, Disk)> {
    let about = fstat(fd).ok()?;
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
        return None;
    }
    let system = fstatvfs(fd).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
    let used = bytes(system.f_blocks.saturating_sub(system.f_bfree));
    let disk = Disk { name, used, total: used.saturating_add(bytes(system.f_bavail)) };
    // Some file systems have no size of their own and report zero.
    (disk.total > 0).then_some((about.st_dev, disk))
}
