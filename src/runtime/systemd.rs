//! Notifications to a supervisor (systemd's `Type=notify`, sd_notify(3)). Without a supervisor they do nothing.

use sd_notify::NotifyState;

/// Reports that this process serves with configuration `generation`.
pub(crate) fn ready(generation: u64) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("serving by configuration {generation}"))]);
}

/// Reports that this process reads its configuration again; [`ready`] or [`refused`] follows.
pub(crate) fn reloading() {
    let now = NotifyState::monotonic_usec_now().ok();
    tell(&[NotifyState::Reloading].into_iter().chain(now).collect::<Vec<_>>());
}

/// Reports that configuration `generation` stays in force, because the new one was rejected.
pub(crate) fn refused(generation: u64) {
    let status = format!("serving by configuration {generation}; a newer one was rejected, the log says why");
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Reports that this process drains its connections.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Reports that this process is alive, if `WatchdogSec` is set.
pub(crate) fn alive() {
    if sd_notify::watchdog_enabled().is_some() {
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be notified");
    }
}
