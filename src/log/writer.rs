//! Lines on their way out of the process, written by a thread of its own.
//!
//! Whoever has a line appends it to a bounded buffer of its own; when the reader at the other end is
//! behind, lines are dropped and counted, never waited for. The same for the access log and for events:
//! a proxy must not stop because nobody reads what it says.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

/// The most bytes one buffer holds.
const BUFFER: usize = 1 << 20;
/// Lines are gathered for this long, so that a busy worker costs one write in as long.
const GATHER: Duration = Duration::from_millis(20);
/// How long the end of the process waits for the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Target {
    fn write(self, bytes: &[u8]) {
        // A closed end is no reason to stop serving.
        let _ = match self {
            Target::Output => io::stdout().lock().write_all(bytes).and_then(|()| io::stdout().lock().flush()),
            Target::Error => io::stderr().lock().write_all(bytes),
        };
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
    stopping: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread; dropping this writes what is left, as far as the reader takes it in time.
pub struct Writer {
    shared: Arc<Shared>,
    dropped: Counter,
}

impl Writer {
    /// Starts it. Lines that find no room are counted in `dropped`.
    pub fn start(target: Target, dropped: Counter) -> io::Result<Writer> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        std::thread::Builder::new().name("pillion-log".to_owned()).spawn(move || {
            run(&theirs, target);
            *lock(&theirs.done.0) = true;
            theirs.done.1.notify_one();
        })?;
        Ok(Writer { shared, dropped })
    }

    /// A buffer of one's own.
    pub fn lines(&self) -> Lines {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        lock(&self.shared.buffers).push(buffer.clone());
        Lines { buffer, shared: self.shared.clone(), dropped: self.dropped.clone() }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.shared.signal.0).stopping = true;
        self.shared.signal.1.notify_one();
        // A reader that hangs must not keep the process: the thread ends with it.
        let (done, condition) = &self.shared.done;
        drop(condition.wait_timeout_while(lock(done), LAST_WORDS, |done| !*done));
    }
}

fn run(shared: &Shared, target: Target) {
    let mut out = Vec::new();
    loop {
        let stopping = {
            let (signal, condition) = (&shared.signal.0, &shared.signal.1);
            let guard = condition.wait_while(lock(signal), |signal| !signal.waiting && !signal.stopping);
            let mut guard = guard.unwrap_or_else(PoisonError::into_inner);
            guard.waiting = false;
            guard.stopping
        };
        if !stopping {
            std::thread::sleep(GATHER);
        }
        let buffers = lock(&shared.buffers).clone();
        for buffer in buffers {
            out.clear();
            std::mem::swap(&mut *lock(&buffer), &mut out);
            if !out.is_empty() {
                target.write(&out);
            }
        }
        if stopping {
            return;
        }
    }
}

/// Takes whole lines and never waits.
#[derive(Clone)]
pub struct Lines {
    buffer: Arc<Mutex<Vec<u8>>>,
    shared: Arc<Shared>,
    dropped: Counter,
}

impl Lines {
    /// Appends lines, or drops and counts them.
    pub fn append(&self, text: &[u8]) {
        let first = {
            let mut buffer = lock(&self.buffer);
            if buffer.len() + text.len() > BUFFER {
                self.dropped.inc();
                return;
            }
            let first = buffer.is_empty();
            buffer.extend_from_slice(text);
            first
        };
        if first {
            lock(&self.shared.signal.0).waiting = true;
            self.shared.signal.1.notify_one();
        }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}
