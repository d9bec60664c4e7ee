//! Helpers that block others until a test releases them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::{PATIENCE, Script, ok};

/// Raises a flag when dropped, even if the test fails, so that threads waiting for it end.
pub(crate) struct Raise<'a>(pub &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Starts an app that reports the path of each request and responds only when told to.
pub(crate) fn holding() -> (Script, Receiver<String>, Sender<()>) {
    let (seen, requests) = channel();
    let (release, released) = channel();
    let released = Mutex::new(released);
    let app = Script::answering(move |request| {
        seen.send(request.line.split(' ').nth(1).unwrap().to_owned()).unwrap();
        let _ = released.lock().unwrap().recv_timeout(PATIENCE);
        ok("held")
    });
    (app, requests, release)
}
