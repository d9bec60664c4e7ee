//! What a supervisor is told of this process (systemd's `Type=notify`, sd_notify(3)). Without one nothing happens.

use sd_notify::NotifyState;

/// It serves, by this configuration.
pub(crate) fn ready(generation: u64) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("serving by configuration {generation}"))]);
}

/// It reads its configuration again; [`ready`] or [`refused`] follows.
pub(crate) fn reloading() {
    let now = NotifyState::monotonic_usec_now().ok();
    tell(&[NotifyState::Reloading].into_iter().chain(now).collect::<Vec<_>>());
}

/// It goes on by this configuration, as the new one is wrong.
pub(crate) fn refused(generation: u64) {
    let status = format!("serving by configuration {generation}; a newer one was refused, the log says why");
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// It hands its connections back.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// It is alive, where `WatchdogSec` asks for that.
pub(crate) fn alive() {
    if sd_notify::watchdog_enabled().is_some() {
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the supervisor is not told");
    }
}
