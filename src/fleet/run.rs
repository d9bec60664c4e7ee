//! The three tasks of a process in its fleet.

use std::cell::RefCell;

use super::process::Fleet;
use super::progress::Progress;
use super::server::Server;
use super::tracker::Tracker;
use super::{publisher, reader, reporter};

/// Publishes, reads and reports until the process leaves the fleet. It runs on the thread of Redis.
pub(crate) async fn run<S: Server>(fleet: &Fleet, server: &S) {
    let tracker = RefCell::new(Tracker::default());
    let progress = Progress::default();
    tokio::select! {
        () = publisher::run(fleet, server, &progress) => {}
        () = reader::run(fleet, server, &tracker, &progress) => {}
        () = reporter::run(fleet, server, &tracker, &progress) => {}
    }
    fleet.left.send_replace(true);
}
