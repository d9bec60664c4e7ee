//! What holds others up until a test lets go.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::{PATIENCE, Script, ok};

/// Raises a flag also when the test fails, so that the threads that wait for it end.
pub(crate) struct Raise<'a>(pub &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// An app that reports the path of each request and answers it only when told to.
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
