//! The end of a process as its connections see it: one phase a worker, and a way to wake every
//! connection of that worker when it changes. Not here: who decides to stop (`app`).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

/// How far stopping has come. Phases only go forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    /// `drain_delay`: everything is served, and every answer says that the connection ends.
    Announcing,
    /// No new connections; idle ones and endless streams are closed, the rest may finish.
    Draining,
}

#[derive(Default)]
struct Sleepers {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// The phase of one worker and the connections to wake when it changes.
pub(crate) struct Lifecycle {
    phase: Cell<Phase>,
    sleepers: RefCell<Sleepers>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle { phase: Cell::new(Phase::Running), sleepers: RefCell::default() }
    }
}

impl Lifecycle {
    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Goes on to `phase` and wakes whoever waits; going back does nothing.
    pub(crate) fn advance(&self, phase: Phase) {
        if phase <= self.phase.get() {
            return;
        }
        self.phase.set(phase);
        let wakers: Vec<Waker> = self.sleepers.borrow().wakers.iter().flatten().cloned().collect();
        wakers.iter().for_each(Waker::wake_by_ref);
    }
}

/// One task's place among those woken by a change of phase.
pub(crate) struct Sleeper {
    lifecycle: Rc<Lifecycle>,
    place: usize,
}

impl Sleeper {
    pub(crate) fn new(lifecycle: Rc<Lifecycle>) -> Sleeper {
        let place = {
            let mut sleepers = lifecycle.sleepers.borrow_mut();
            sleepers.free.pop().unwrap_or_else(|| {
                sleepers.wakers.push(None);
                sleepers.wakers.len() - 1
            })
        };
        Sleeper { lifecycle, place }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lifecycle.phase()
    }

    /// The phase now; the task of `cx` is woken when it changes.
    pub(crate) fn watch(&self, cx: &mut Context<'_>) -> Phase {
        let mut sleepers = self.lifecycle.sleepers.borrow_mut();
        if let Some(slot) = sleepers.wakers.get_mut(self.place) {
            match slot {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                slot => *slot = Some(cx.waker().clone()),
            }
        }
        self.lifecycle.phase()
    }

    /// Another place at the same worker.
    pub(crate) fn another(&self) -> Sleeper {
        Sleeper::new(self.lifecycle.clone())
    }

    /// Waits until the phase is at least `phase`.
    pub(crate) async fn reached(&self, phase: Phase) {
        std::future::poll_fn(|cx| {
            if self.watch(cx) >= phase { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let mut sleepers = self.lifecycle.sleepers.borrow_mut();
        if let Some(slot) = sleepers.wakers.get_mut(self.place) {
            *slot = None;
        }
        sleepers.free.push(self.place);
    }
}
