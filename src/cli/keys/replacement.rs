//! The atomic replacement of a key file, and the lock that keeps two writers apart.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};

/// Maximum symbolic links that are followed to the key file.
const MAX_LINKS: usize = 16;
/// The mode of a new file: its owner alone reads it.
const PRIVATE: u32 = 0o600;
/// The mode of a file that a group reads.
const FOR_GROUP: u32 = 0o640;

/// Readers see either the old or the new content, and file watchers see a replacement. The temporary file beside the key
/// file is locked, so the second of two writers fails and no key is lost. The lock ends with its process: a temporary
/// file that an interrupted command left is used again.
pub(super) struct Replacement {
    file: PathBuf,
    beside: PathBuf,
    new: File,
    done: bool,
}

/// The reason why the key file was not replaced.
#[derive(Debug)]
pub(super) enum ReplaceError {
    /// Another process replaces the file at this time.
    Locked,
    /// The temporary file belongs to another user, or is a link: its name.
    Foreign(PathBuf),
    /// The group could not be set.
    Group(u32, io::Error),
    Io(io::Error),
}

impl From<io::Error> for ReplaceError {
    fn from(error: io::Error) -> ReplaceError {
        ReplaceError::Io(error)
    }
}

impl std::fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReplaceError::Locked => f.write_str("another process is changing keys; run the command again"),
            ReplaceError::Foreign(beside) => {
                write!(f, "{} is a link or belongs to another user; remove it", beside.display())
            }
            ReplaceError::Group(group, error) => write!(
                f,
                "the file cannot be given to group {group}: {error}; only root and members of the group may do that"
            ),
            ReplaceError::Io(error) => error.fmt(f),
        }
    }
}

impl Replacement {
    /// Locks the key file until the replacement is committed or dropped. A symbolic link stays; its target is replaced.
    pub(super) fn begin(file: &Path) -> Result<Replacement, ReplaceError> {
        let mut file = file.to_path_buf();
        for _ in 0..MAX_LINKS {
            let Ok(target) = std::fs::read_link(&file) else { break };
            file = file.parent().unwrap_or(Path::new("")).join(target);
        }
        let beside = file.with_extension("new");
        let no_links = OFlags::NOFOLLOW.bits().cast_signed();
        let new = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .custom_flags(no_links)
            .open(&beside)
            .map_err(|error| match std::fs::symlink_metadata(&beside) {
                Ok(metadata) if metadata.is_symlink() => ReplaceError::Foreign(beside.clone()),
                _ => ReplaceError::Io(error),
            })?;
        match rustix::fs::flock(&new, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ReplaceError::Locked),
            Err(error) => return Err(ReplaceError::Io(error.into())),
        }
        // Another process may have renamed the file between opening and locking it: then it is the key file itself.
        let is_same = |one: &Metadata, other: &Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
        let opened = new.metadata()?;
        if !std::fs::symlink_metadata(&beside).is_ok_and(|named| is_same(&opened, &named)) {
            return Err(ReplaceError::Locked);
        }
        if opened.uid() != rustix::process::geteuid().as_raw() || opened.nlink() != 1 || !opened.is_file() {
            return Err(ReplaceError::Foreign(beside));
        }
        new.set_permissions(Permissions::from_mode(PRIVATE))?;
        new.set_len(0)?;
        Ok(Replacement { file, beside, new, done: false })
    }

    /// Writes the new content beside the file. Owner, group and mode of the file stay, so that Pillion can still read it;
    /// `group` makes the file readable by that group instead. Returns the mode that the file gets.
    pub(super) fn prepare(&mut self, content: &str, group: Option<u32>) -> Result<u32, ReplaceError> {
        self.new.write_all(content.as_bytes())?;
        let before = std::fs::metadata(&self.file).ok();
        let mode = match (&before, group) {
            (_, Some(_)) => FOR_GROUP,
            (Some(before), None) => before.permissions().mode() & 0o777,
            (None, None) => PRIVATE,
        };
        if let Some(before) = &before {
            // Only root can change the owner; other users own the file already.
            std::os::unix::fs::fchown(&self.new, Some(before.uid()), Some(before.gid()))?;
        }
        if let Some(group) = group {
            std::os::unix::fs::fchown(&self.new, None, Some(group))
                .map_err(|error| ReplaceError::Group(group, error))?;
        }
        self.new.set_permissions(Permissions::from_mode(mode))?;
        self.new.sync_all()?;
        Ok(mode)
    }

    /// Puts the new content in the place of the file.
    pub(super) fn commit(mut self) -> std::io::Result<()> {
        std::fs::rename(&self.beside, &self.file)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // The lock is held until the file is closed, which comes after this.
        if !self.done {
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}
