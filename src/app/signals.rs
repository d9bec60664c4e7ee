//! Signals and commands: SIGHUP reloads, SIGUSR1 opens log files again, SIGTERM and SIGINT stop.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;

use super::shutdown::Drain;
use super::start_error::StartError;
use crate::admin::control::Command;
use crate::log::Writer;
use crate::reload::{Cause, Reloader};
use crate::runtime::systemd;

/// The signals that the process heeds.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
}

impl Signals {
    /// Heeds them from here on.
    pub(super) fn listen() -> Result<Signals, StartError> {
        let system = |what| move |error| StartError::System(what, error);
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(system("cannot listen for SIGTERM"))?,
            interrupt: signal(SignalKind::interrupt()).map_err(system("cannot listen for SIGINT"))?,
            hangup: signal(SignalKind::hangup()).map_err(system("cannot listen for SIGHUP"))?,
            user1: signal(SignalKind::user_defined1()).map_err(system("cannot listen for SIGUSR1"))?,
        })
    }

    /// Reloads and drains as signals and commands say, until one of them ends the process.
    pub(super) async fn until_stopped(
        &mut self,
        received: &mut UnboundedReceiver<Command>,
        reloader: &Reloader,
        drain: &mut Drain,
        logs: [&Writer; 2],
    ) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hangup.recv() => {
                    let _ = supervised(reloader, Cause::Asked);
                }
                _ = self.user1.recv() => logs.into_iter().for_each(reopen),
                order = received.recv() => match order {
                    Some(Command::Reload(reply)) => {
                        let _ = reply.send(supervised(reloader, Cause::Asked));
                    }
                    Some(Command::Settings { as_json, reply }) => {
                        let _ = reply.send(reloader.settings(as_json));
                    }
                    Some(Command::Compare { marks, reply }) => {
                        let _ = reply.send(reloader.compare(&marks));
                    }
                    Some(Command::Drain) => drain.announce(),
                    Some(Command::Quit) | None => break,
                },
            }
        }
    }

    /// Waits for one more signal to stop.
    pub(super) async fn second(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Opens a log file again that was renamed to rotate it.
fn reopen(log: &Writer) {
    match log.reopen() {
        Ok(Some(file)) => tracing::info!(file = %file.display(), "log file opened again"),
        Ok(None) => {}
        Err(error) => {
            tracing::error!(%error, "the log file cannot be opened again; the old one stays in use")
        }
    }
}

/// Reloads the configuration, and notifies systemd of the start and the outcome.
pub(super) fn supervised(reloader: &Reloader, cause: Cause) -> Result<String, String> {
    systemd::reloading();
    let result = reloader.reload(cause);
    let generation = reloader.generation();
    match &result {
        Ok(_) => systemd::ready(generation),
        Err(_) => systemd::refused(generation),
    }
    result
}
