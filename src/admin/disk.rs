//! Room on the disks Pillion writes to: it keeps nothing there itself, but its logs may go into files.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, fstat, fstatvfs};

/// A file system that something is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    pub name: &'static str,
    /// Bytes that are taken, as `df` counts.
    pub used: u64,
    /// Bytes there are for those who are not root.
    pub total: u64,
}

/// Those that logs go to, each once; what goes into a pipe or to a terminal is on no disk of ours.
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

/// The device, and the file system on it; `None` where this is no file.
fn read_one(name: &'static str, fd: BorrowedFd<'_>) -> Option<(u64, Disk)> {
    let about = fstat(fd).ok()?;
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
        return None;
    }
    let system = fstatvfs(fd).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
    let used = bytes(system.f_blocks.saturating_sub(system.f_bfree));
    let disk = Disk { name, used, total: used.saturating_add(bytes(system.f_bavail)) };
    // File systems without a size of their own say nought.
    (disk.total > 0).then_some((about.st_dev, disk))
}
