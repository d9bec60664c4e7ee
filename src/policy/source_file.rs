//! The files a policy was made from, and how a replaced one is told from the one that was read.

use std::path::PathBuf;
use std::time::SystemTime;

/// A file a policy was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    pub path: PathBuf,
    /// A hash of what it held when it was read as part of a policy; not compared by `watch`, which does not
    /// read.
    pub content: Option<u128>,
    /// What it was just before it was read: a replacement on the way is seen as one.
    pub identity: Option<FileIdentity>,
}

/// What tells a file from another put in its place: the device and the inode, behind every symbolic
/// link, and when it was made, as the number of an inode that is free again goes to the next file. A save in place keeps
/// them.
pub(crate) type FileIdentity = (u64, u64, Option<SystemTime>);

impl SourceFile {
    /// As it is now.
    pub fn now(path: &std::path::Path) -> SourceFile {
        use std::os::unix::fs::MetadataExt as _;
        let identity = |of: std::fs::Metadata| (of.dev(), of.ino(), of.created().ok());
        let identity = std::fs::metadata(path).ok().map(identity);
        SourceFile { path: path.to_path_buf(), content: None, identity }
    }

    /// As it is now, with its content.
    pub fn read(path: &std::path::Path) -> SourceFile {
        let content = std::fs::read(path).ok().map(|content| xxhash_rust::xxh3::xxh3_128(&content));
        SourceFile { content, ..SourceFile::now(path) }
    }

    /// Whether it is the same file, whatever it holds.
    pub fn is_same_file(&self, other: &SourceFile) -> bool {
        self.path == other.path && self.identity == other.identity
    }
}
