//! The files that a policy was read from, and how a replacement of such a file is detected.

use std::path::PathBuf;
use std::time::SystemTime;

/// A file that a policy was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    pub path: PathBuf,
    /// A hash of the content that was read. The file watch does not compare it, because it does not read files.
    pub content: Option<u128>,
    /// The identity of the file just before it was read, so that a replacement during the read is detected.
    pub identity: Option<FileIdentity>,
}

/// The identity of a file: device and inode after following symbolic links, and the creation time, because a freed
/// inode number is reused for the next file. Saving a file in place does not change its identity.
pub(crate) type FileIdentity = (u64, u64, Option<SystemTime>);

impl SourceFile {
    /// Returns the current state of a file, without its content.
    pub fn now(path: &std::path::Path) -> SourceFile {
        use std::os::unix::fs::MetadataExt as _;
        let identity = |of: std::fs::Metadata| (of.dev(), of.ino(), of.created().ok());
        let identity = std::fs::metadata(path).ok().map(identity);
        SourceFile { path: path.to_path_buf(), content: None, identity }
    }

    /// Returns the current state of a file, with its content.
    pub fn read(path: &std::path::Path) -> SourceFile {
        let content = std::fs::read(path).ok().map(|content| xxhash_rust::xxh3::xxh3_128(&content));
        SourceFile { content, ..SourceFile::now(path) }
    }

    /// Returns the same file with the content that was read of it.
    pub(crate) fn holding(self, content: &[u8]) -> SourceFile {
        SourceFile { content: Some(xxhash_rust::xxh3::xxh3_128(content)), ..self }
    }

    /// Returns whether both are the same file, with any content.
    pub fn is_same_file(&self, other: &SourceFile) -> bool {
        self.path == other.path && self.identity == other.identity
    }
}
