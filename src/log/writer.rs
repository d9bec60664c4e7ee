//! Writes log lines out of the process, on a thread of its own. Each producer appends to a bounded buffer of its own.
//! If the reader is too slow or the disk is full, lines are dropped and counted; a producer never waits, because a
//! proxy must not stop when nobody reads its logs. The access log and the events both use it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rustix::event::{PollFd, PollFlags, poll};
use tracing_subscriber::fmt::MakeWriter;

use super::plain::printable_lines;

/// Maximum size of one buffer in bytes.
const BUFFER: usize = 1 << 20;
/// Time that lines are gathered, so that a busy worker causes at most one write in it.
const GATHER: Duration = Duration::from_millis(20);
/// Size in bytes at which a buffer is written at once, while its lines are still in the processor's cache.
const FLUSH_SIZE: usize = 128 * 1024;
/// Maximum time that the exit of the process waits for the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Output,
    Error,
}

impl Target {
    fn open(self) -> io::Result<File> {
        let fd = match self {
            Target::Output => io::stdout().as_fd().try_clone_to_owned(),
            Target::Error => io::stderr().as_fd().try_clone_to_owned(),
        };
        fd.map(File::from)
    }

    /// Returns the file that the stream goes to, if it is a file that somebody may rename.
    fn path(self) -> Option<PathBuf> {
        let file = self.open().ok()?;
        let link = match self {
            Target::Output => "/proc/self/fd/1",
            Target::Error => "/proc/self/fd/2",
        };
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let path = std::fs::read_link(link).ok()?;
        // The link of a file without a name says so.
        path.exists().then_some(path)
    }

    /// Replaces the stream of the process.
    fn replace(self, file: &File) -> io::Result<()> {
        match self {
            Target::Output => rustix::stdio::dup2_stdout(file)?,
            Target::Error => rustix::stdio::dup2_stderr(file)?,
        }
        Ok(())
    }
}

/// The destination of log lines.
trait Sink: Write {
    /// Blocks until the destination is writable again.
    fn wait(&self) -> io::Result<()>;
}

impl Sink for File {
    /// Blocks without a timeout, like a write to a blocking pipe. The pipe may be non-blocking because the flag belongs
    /// to the pipe, which the parent process shares.
    fn wait(&self) -> io::Result<()> {
        poll(&mut [PollFd::new(self, PollFlags::OUT)], None).map(drop).map_err(io::Error::from)
    }
}

/// The end where lines leave the process. A failing destination never stops the server.
struct Outlet<W> {
    to: W,
    /// Whether the last line was written only in part.
    cut: bool,
}

impl<W: Sink> Outlet<W> {
    /// Writes whole lines; returns the number of lines that were lost.
    fn write(&mut self, lines: &[u8]) -> u64 {
        let mut left = lines;
        if self.cut {
            // A line end separates the partial line from the next.
            self.cut = self.put(&mut &b"\n"[..]).is_err();
        }
        if self.cut || self.put(&mut left).is_err() {
            let written = &lines[..lines.len() - left.len()];
            self.cut |= written.last().is_some_and(|last| *last != b'\n');
            return left.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        0
    }

    fn put(&mut self, left: &mut &[u8]) -> io::Result<()> {
        while !left.is_empty() {
            match self.to.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => *left = &left[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.to.wait()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Shared {
    buffers: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    signal: (Mutex<Signal>, Condvar),
    done: (Mutex<bool>, Condvar),
}

#[derive(Default)]
struct Signal {
    waiting: bool,
    /// Whether a buffer has reached [`FLUSH_SIZE`].
    full: bool,
    /// Whether the thread sleeps until a line arrives. Otherwise it wakes up by itself.
    idle: bool,
    stopping: bool,
    /// The file that takes the place of the destination.
    next: Option<File>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The writer thread. Dropping it writes the remaining lines, if the reader takes them in time.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    target: Target,
    /// The file that the stream went to at the start.
    path: Option<PathBuf>,
    dropped: Counter,
}

impl Writer {
    /// Starts the thread. Lines that do not fit or that the destination does not take are counted in `dropped`.
    pub(crate) fn start(target: Target, dropped: Counter) -> io::Result<Writer> {
        let shared = Arc::new(Shared::default());
        let (theirs, lost) = (shared.clone(), dropped.clone());
        let outlet = Outlet { to: target.open()?, cut: false };
        std::thread::Builder::new().name("pillion-log".to_owned()).spawn(move || {
            run(&theirs, outlet, &lost);
            *lock(&theirs.done.0) = true;
            theirs.done.1.notify_one();
        })?;
        Ok(Writer { shared, target, path: target.path(), dropped })
    }

    /// Opens the file of the stream again by its name, after somebody renamed it to rotate it; makes it if it is not
    /// there. Returns its name, or `None` if the stream goes to no file.
    pub(crate) fn reopen(&self) -> io::Result<Option<&Path>> {
        let Some(path) = self.path.as_deref() else { return Ok(None) };
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        self.target.replace(&file)?;
        let mut signal = lock(&self.shared.signal.0);
        signal.next = Some(file);
        signal.waiting = true;
        drop(signal);
        self.shared.signal.1.notify_one();
        Ok(Some(path))
    }

    /// Returns a new queue with a buffer of its own.
    pub(crate) fn lines(&self) -> LogQueue {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        lock(&self.shared.buffers).push(buffer.clone());
        LogQueue { buffer, shared: self.shared.clone(), dropped: self.dropped.clone() }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.shared.signal.0).stopping = true;
        self.shared.signal.1.notify_one();
        // A reader that hangs must not keep the process alive. The thread ends with the process.
        let (done, condition) = &self.shared.done;
        drop(condition.wait_timeout_while(lock(done), LAST_WORDS, |done| !*done));
    }
}

fn run(shared: &Shared, mut outlet: Outlet<File>, lost: &Counter) {
    let mut out = Vec::new();
    let mut idle = true;
    loop {
        let (stopping, next) = {
            let (signal, condition) = (&shared.signal.0, &shared.signal.1);
            let mut guard = lock(signal);
            if idle {
                guard.idle = true;
                let guarded = condition.wait_while(guard, |signal| !signal.waiting && !signal.stopping);
                guard = guarded.unwrap_or_else(PoisonError::into_inner);
                guard.idle = false;
            }
            let gathering = |signal: &mut Signal| !signal.full && !signal.stopping;
            let gathered = condition.wait_timeout_while(guard, GATHER, gathering);
            let (mut guard, _) = gathered.unwrap_or_else(PoisonError::into_inner);
            (guard.waiting, guard.full) = (false, false);
            (guard.stopping, guard.next.take())
        };
        if let Some(file) = next {
            outlet = Outlet { to: file, cut: false };
        }
        let buffers = lock(&shared.buffers).clone();
        idle = true;
        for buffer in buffers {
            out.clear();
            std::mem::swap(&mut *lock(&buffer), &mut out);
            if !out.is_empty() {
                idle = false;
                lost.inc_by(outlet.write(&printable_lines(&out)));
            }
        }
        if stopping {
            return;
        }
    }
}

/// A queue that takes whole lines and never blocks.
#[derive(Clone)]
pub(crate) struct LogQueue {
    buffer: Arc<Mutex<Vec<u8>>>,
    shared: Arc<Shared>,
    dropped: Counter,
}

impl LogQueue {
    /// Lets `write` append lines. Lines that do not fit are dropped and counted.
    pub(crate) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let (before, after) = {
            let mut buffer = lock(&self.buffer);
            let before = buffer.len();
            write(&mut buffer);
            if buffer.len() > BUFFER {
                buffer.truncate(before);
                self.dropped.inc();
            }
            (before, buffer.len())
        };
        let (first, full) = (before == 0 && after > 0, before < FLUSH_SIZE && after >= FLUSH_SIZE);
        if first || full {
            let mut signal = lock(&self.shared.signal.0);
            signal.waiting = true;
            signal.full |= full;
            let awake = !full && !signal.idle;
            drop(signal);
            if !awake {
                self.shared.signal.1.notify_one();
            }
        }
    }
}

impl Write for LogQueue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(|buffer| buffer.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = LogQueue;

    fn make_writer(&'a self) -> LogQueue {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A destination that takes two bytes at a time, up to its room.
    struct Full {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room).min(2);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.taken.extend_from_slice(&bytes[..count]);
            self.room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink for Full {
        fn wait(&self) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[test]
    fn a_pipe_that_does_not_block_takes_all_lines_in_its_time() {
        let (mut from, to) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&to, true).unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            io::Read::read_to_end(&mut from, &mut text).unwrap();
            text
        });
        // More bytes than a pipe can hold.
        let lines = "a line\n".repeat(100_000);
        let mut outlet = Outlet { to: File::from(std::os::fd::OwnedFd::from(to)), cut: false };
        assert_eq!(outlet.write(lines.as_bytes()), 0);
        drop(outlet);
        assert!(reader.join().unwrap() == lines.as_bytes());
    }

    #[test]
    fn lines_that_nobody_takes_are_lost_whole_and_counted() {
        for (room, lost, taken) in [
            (9, 0, "aa\nbb\ncc\ndd\nee\n"),
            (8, 1, "aa\nbb\ncc\ndd\nee\n"),
            (7, 1, "aa\nbb\nc\ndd\nee\n"),
            (6, 1, "aa\nbb\ndd\nee\n"),
            (4, 2, "aa\nb\ndd\nee\n"),
            (0, 3, "dd\nee\n"),
        ] {
            let mut outlet = Outlet { to: Full { room, taken: Vec::new() }, cut: false };
            assert_eq!(outlet.write(b"aa\nbb\ncc\n"), lost, "{room}");
            if lost > 0 {
                assert_eq!(outlet.write(b"xx\nyy\n"), 2, "{room}");
            }
            outlet.to.room = 100;
            assert_eq!(outlet.write(b"dd\nee\n"), 0);
            assert_eq!(String::from_utf8(outlet.to.taken).unwrap(), taken, "{room}");
        }
    }
}
