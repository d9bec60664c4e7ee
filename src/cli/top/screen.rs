//! The terminal: raw mode, keys, and the repainted screen. The former mode comes back on every way out: the end of
//! [`show`], a panic, and SIGTERM, SIGHUP and SIGINT. Ctrl-C is a key in raw mode.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use super::layout::View;
use super::snapshot::Snapshot;
use crate::runtime::clock;

/// Switches to the alternate screen, without a cursor and without wrapping lines.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const TOP_LEFT: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const INVERSE: &str = "\x1b[7m";
const PLAIN: &str = "\x1b[0m";
/// Maximum wait between two looks at the size of the terminal.
const SIZE_CHECK: Duration = Duration::from_millis(250);
/// Maximum length of a filter, in characters.
const MAX_FILTER: usize = 100;
/// Size of a terminal that does not tell it.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// Returns the columns and rows of the terminal; `None` if it does not tell them.
pub(super) fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    let size = (usize::from(size.ws_col), usize::from(size.ws_row));
    (size.0 > 0 && size.1 > 0).then_some(size)
}

/// The former mode of the terminal.
struct Former(Termios);

impl Former {
    fn restore(&self) {
        let mut output = io::stdout();
        // A terminal that is gone needs no restoring.
        let _ = output.write_all(LEAVE.as_bytes()).and_then(|()| output.flush());
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Restores the terminal when it is dropped.
struct Raw(Arc<Former>);

impl Raw {
    fn enter() -> io::Result<Raw> {
        let former = tcgetattr(io::stdin())?;
        let mut raw = former.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        let raw = Raw(Arc::new(Former(former)));
        let former = raw.0.clone();
        // The message of a panic belongs on the usual screen.
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            former.restore();
            usual(panic);
        }));
        let mut output = io::stdout();
        output.write_all(ENTER.as_bytes())?;
        output.flush()?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.0.restore();
    }
}

/// Returns a stream that becomes readable when a signal asks the process to end.
fn signals() -> io::Result<UnixStream> {
    let (told, mut teller) = UnixStream::pair()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(entered);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        let _ = teller.write_all(b"x");
    })?;
    Ok(told)
}

/// The outcome of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    Repaint,
    Quit,
}

/// Applies the bytes of one read to the view. An escape sequence arrives in one read.
pub(super) fn key(view: &mut View, bytes: &[u8]) -> Act {
    match bytes {
        b"\x1b[A" | b"\x1bOA" => view.scroll = view.scroll.saturating_sub(1),
        b"\x1b[B" | b"\x1bOB" => view.scroll = view.scroll.saturating_add(1),
        b"\x1b" if view.typing => {
            view.typing = false;
            view.filter.clear();
        }
        // Any other escape sequence.
        [0x1b, ..] => {}
        _ => {
            for typed in String::from_utf8_lossy(bytes).chars() {
                if character(view, typed) == Act::Quit {
                    return Act::Quit;
                }
            }
        }
    }
    Act::Repaint
}

fn character(view: &mut View, typed: char) -> Act {
    match (typed, view.typing) {
        ('\u{3}', _) | ('q', false) => return Act::Quit,
        ('\r' | '\n', true) => view.typing = false,
        ('\u{7f}' | '\u{8}', true) => {
            view.filter.pop();
        }
        (typed, true) if !typed.is_control() && view.filter.chars().count() < MAX_FILTER => {
            view.filter.push(typed);
        }
        (_, true) => {}
        ('p', _) => view.paused = !view.paused,
        ('s', _) => view.sort = view.sort.next(),
        ('h' | '?', _) => view.help = !view.help,
        ('/', _) => view.typing = true,
        ('j', _) => view.scroll = view.scroll.saturating_add(1),
        ('k', _) => view.scroll = view.scroll.saturating_sub(1),
        _ => {}
    }
    Act::Repaint
}

fn paint(lines: &[String]) -> io::Result<()> {
    let mut text = TOP_LEFT.to_owned();
    for (at, line) in lines.iter().enumerate() {
        let is_status = at + 1 == lines.len();
        let (begin, end) = if is_status { (INVERSE, PLAIN) } else { ("", "") };
        text += &format!("{begin}{line}{end}{CLEAR_LINE}{}", if is_status { "" } else { "\r\n" });
    }
    let mut output = io::stdout();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Repaints the screen until a key or a signal ends it.
pub(super) fn show(
    mut snapshot: Snapshot,
    mut view: View,
    interval: Duration,
    fetch: impl Fn() -> Result<Snapshot, String>,
) -> io::Result<()> {
    let told = signals()?;
    let _raw = Raw::enter()?;
    let mut fetched = clock::now();
    let mut next = fetched + interval;
    let mut lost: Option<String> = None;
    loop {
        let now = clock::now();
        if now >= next && !view.paused {
            match fetch() {
                Ok(fresh) => (snapshot, lost, fetched) = (fresh, None, clock::now()),
                Err(why) => {
                    let age = clock::now().saturating_duration_since(fetched).as_secs();
                    lost = Some(format!("last update {age} s ago: {why}"));
                }
            }
            next = clock::now() + interval;
        }
        paint(&view.lines(&snapshot, lost.as_deref(), size().unwrap_or(USUAL_SIZE)))?;
        let wait = next.saturating_duration_since(clock::now()).min(SIZE_CHECK);
        let wait = if view.paused { SIZE_CHECK } else { wait };
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        let input = io::stdin();
        let mut ready = [PollFd::new(&input, PollFlags::IN), PollFd::new(&told, PollFlags::IN)];
        match poll(&mut ready, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [keys, signal] = ready.map(|ready| !ready.revents().is_empty());
        if signal {
            return Ok(());
        }
        if keys {
            let mut bytes = [0; 64];
            let length = rustix::io::read(&input, &mut bytes)?;
            if length == 0 || key(&mut view, &bytes[..length]) == Act::Quit {
                return Ok(());
            }
        }
    }
}
