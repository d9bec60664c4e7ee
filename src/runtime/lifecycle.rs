//! The shutdown of a process as its connections see it: one phase per worker, and a way to wake every connection of
//! that worker when it changes. Not here: the decision to stop (`app`).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

/// The progress of shutdown. Phases only go forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    /// `drain_delay`: requests are served, and every response announces the end of its connection.
    Announcing,
    /// New connections are refused, idle ones and endless streams are closed, the rest may finish.
    Draining,
}

#[derive(Default)]
struct PhaseWatchers {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// The phase of one worker, and the connections to wake when it changes.
pub(crate) struct Lifecycle {
    phase: Cell<Phase>,
    phase_watchers: RefCell<PhaseWatchers>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle { phase: Cell::new(Phase::Running), phase_watchers: RefCell::default() }
    }
}

impl Lifecycle {
    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Advances to `phase` and wakes all watchers. An earlier phase is ignored.
    pub(crate) fn advance(&self, phase: Phase) {
        if phase <= self.phase.get() {
            return;
        }
        self.phase.set(phase);
        let wakers: Vec<Waker> = self.phase_watchers.borrow().wakers.iter().flatten().cloned().collect();
        wakers.iter().for_each(Waker::wake_by_ref);
    }
}

/// One task's registration for changes of the phase.
pub(crate) struct PhaseWatcher {
    lifecycle: Rc<Lifecycle>,
    place: usize,
}

impl PhaseWatcher {
    pub(crate) fn new(lifecycle: Rc<Lifecycle>) -> PhaseWatcher {
        let place = {
            let mut phase_watchers = lifecycle.phase_watchers.borrow_mut();
            phase_watchers.free.pop().unwrap_or_else(|| {
                phase_watchers.wakers.push(None);
                phase_watchers.wakers.len() - 1
            })
        };
        PhaseWatcher { lifecycle, place }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lifecycle.phase()
    }

    /// Returns the present phase, and registers the task of `cx` to be woken when it changes.
    pub(crate) fn watch(&self, cx: &mut Context<'_>) -> Phase {
        let mut phase_watchers = self.lifecycle.phase_watchers.borrow_mut();
        if let Some(slot) = phase_watchers.wakers.get_mut(self.place) {
            match slot {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                slot => *slot = Some(cx.waker().clone()),
            }
        }
        self.lifecycle.phase()
    }

    /// Creates another watcher of the same worker.
    pub(crate) fn another(&self) -> PhaseWatcher {
        PhaseWatcher::new(self.lifecycle.clone())
    }

    /// Waits until the phase is at least `phase`.
    pub(crate) async fn reached(&self, phase: Phase) {
        std::future::poll_fn(|cx| {
            if self.watch(cx) >= phase { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

impl Drop for PhaseWatcher {
    fn drop(&mut self) {
        let mut phase_watchers = self.lifecycle.phase_watchers.borrow_mut();
        if let Some(slot) = phase_watchers.wakers.get_mut(self.place) {
            *slot = None;
        }
        phase_watchers.free.push(self.place);
    }
}
