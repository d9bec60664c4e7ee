//! The three tasks of a process in its fleet.

use std::cell::{Cell, RefCell};

use super::process::Fleet;
use super::server::Server;
use super::tracker::Tracker;
use super::{publisher, reader, reporter};

/// Publishes, reads and reports until the process leaves the fleet. It runs on the thread of Redis.
pub(crate) async fn run<S: Server>(fleet: &Fleet, server: &S) {
    let tracker = RefCell::new(Tracker::default());
    let published = Cell::new(0);
    tokio::select! {
        () = publisher::run(fleet, server, &published) => {}
        () = reader::run(fleet, server, &tracker) => {}
        () = reporter::run(fleet, server, &tracker, &published) => {}
    }
    fleet.left.send_replace(true);
}
