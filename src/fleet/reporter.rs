//! Writes the record of this process, and learns from those of the others who is alive and how far each has read.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::entry::Sender;
use super::member::{self, About, Member};
use super::process::Fleet;
use super::progress::{Failures, Progress};
use super::server::Server;
use super::tracker::Tracker;
use crate::runtime::clock;

/// Interval at which missing numbers are looked for.
const LOOK: Duration = Duration::from_millis(250);
/// Interval between reports while a purge waits for others.
const AWAITING: Duration = Duration::from_millis(20);
/// Time without an entry after which a process without a recent record counts as gone.
const SILENT: Duration = Duration::from_secs(6);

/// Reports until the process leaves the fleet.
pub(super) async fn run<S: Server>(
    fleet: &Fleet,
    server: &S,
    tracker: &RefCell<Tracker>,
    progress: &Progress,
) {
    let failures = Failures::default();
    let mut due = clock::now();
    loop {
        let now = clock::now();
        let awaiting = fleet.awaiting.load(Ordering::SeqCst) > 0;
        let wait = if awaiting { AWAITING } else { LOOK };
        let early = tokio::select! {
            () = tokio::time::sleep(wait.min(due.saturating_duration_since(now))) => awaiting,
            () = fleet.report.notified() => true,
        };
        let now = clock::now();
        let overdue = tracker.borrow_mut().overdue(now);
        if let Some(loss) = overdue {
            fleet.lose(loss);
        }
        if !early && now < due {
            continue;
        }
        let about = About {
            name: fleet.name.clone(),
            version: fleet.version.to_owned(),
            published: progress.published.get(),
            applied: fleet.view.borrow().applied.to_string(),
        };
        let record = about.to_bytes(&fleet.keys, fleet.sender);
        let (there, records) = match server.report(&fleet.sender.0, &record).await {
            Ok(reported) => reported,
            Err(error) => {
                failures.count("report to the fleet", &error);
                due = clock::now() + LOOK;
                continue;
            }
        };
        failures.end();
        let (members, unreadable) = member::members(&fleet.keys, there, &records);
        if let Some(error) = unreadable {
            tracing::debug!(%error, "the record of a process of the fleet cannot be read");
        }
        let now = clock::now();
        for member in &members {
            tracker.borrow_mut().has_published(member.sender, member.about.published, now);
        }
        bury(fleet, &mut tracker.borrow_mut(), &members);
        due = now + member::interval(members.len());
        let here = i64::try_from(clock::unix_at(now).as_millis()).unwrap_or(i64::MAX);
        let clock_offset = i64::try_from(there).unwrap_or(i64::MAX).saturating_sub(here);
        let live = members.iter().filter(|member| member.live).count();
        fleet.process_count.store(live, Ordering::Relaxed);
        fleet.view.send_modify(|view| {
            view.members = members;
            view.clock_offset = clock_offset;
        });
    }
}

/// Invalidates what processes announced that are not alive any more and did not take leave.
fn bury(fleet: &Fleet, tracker: &mut Tracker, members: &[Member]) {
    let now = clock::now();
    let is_live = |sender| members.iter().any(|member| member.live && member.sender == sender);
    let gone: Vec<Sender> =
        tracker.silent(SILENT, now).filter(|sender| *sender != fleet.sender && !is_live(*sender)).collect();
    for sender in gone {
        let abandoned = tracker.abandoned_by(sender);
        if abandoned.is_empty() {
            continue;
        }
        tracing::warn!(
            process = %sender,
            writes = abandoned.len(),
            "a process of the fleet ended before the outcome of its writes was known; what they name is invalidated"
        );
        for names in abandoned {
            fleet.cache.apply_abandoned(&names, now);
        }
    }
}
