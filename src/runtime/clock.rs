//! The only module that reads a clock.
//!
//! All other code takes an [`Instant`] as an argument or calls [`now`], so that decisions about time are tables of
//! cases and no test sleeps. Not here: the meaning of a timeout, which belongs to its owner.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use std::time::Instant;

use tokio::time::Sleep;

/// Returns the present time of the monotonic clock.
#[allow(clippy::disallowed_methods, reason = "this is the room that reads it")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns the present time of the wall clock.
#[allow(clippy::disallowed_methods, reason = "this is the room that reads it")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Time for which the two clocks are assumed to run alike.
const ALIKE: Duration = Duration::from_secs(1);

thread_local! {
    /// One moment on both clocks; the wall clock's is the time since the Unix epoch.
    static BOTH: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// Returns the wall clock time of a moment in the last seconds, as the time since the Unix epoch, without reading the
/// wall clock each time.
pub(crate) fn unix_at(moment: Instant) -> Duration {
    if let Some((then, unix)) = BOTH.get() {
        match moment.checked_duration_since(then) {
            Some(since) if since < ALIKE => return unix + since,
            Some(_) => (),
            // A moment before the comparison was not long before it.
            None => return unix.saturating_sub(then.saturating_duration_since(moment)),
        }
    }
    let (then, unix) = (now(), wall().duration_since(UNIX_EPOCH).unwrap_or_default());
    BOTH.set(Some((then, unix)));
    (unix + moment.saturating_duration_since(then)).saturating_sub(then.saturating_duration_since(moment))
}

/// Returns the seconds since the Unix epoch, with a fraction.
pub(crate) fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Returns a duration in nanoseconds, saturating at five centuries.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Length in bytes of an IMF-fixdate (RFC 9110 5.6.7), which never varies.
const DATE_LENGTH: usize = 29;

struct DateCache {
    second: u64,
    text: String,
}

thread_local! {
    static DATE: RefCell<DateCache> =
        const { RefCell::new(DateCache { second: 0, text: String::new() }) };
}

/// Calls `with` with the current `Date` field value, which is formatted at most once a second per thread.
pub(crate) fn with_date<R>(with: impl FnOnce(&str) -> R) -> R {
    let wall = wall();
    let second = wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|cache| {
        if cache.second != second || cache.text.len() != DATE_LENGTH {
            cache.second = second;
            cache.text = httpdate::fmt_http_date(wall);
        }
        with(&cache.text)
    })
}

/// A deadline that is moved far more often than it expires.
///
/// The timer is only touched when the deadline comes nearer; a timer that fires too early is set again. A connection
/// with a thousand responses a second pays for a timer about once per timeout instead of twice per request.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    due: Option<Instant>,
    armed: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Expires at `due`, replacing the deadline set before.
    pub(crate) fn set(&mut self, due: Instant) {
        self.due = Some(due);
    }

    /// Expires once `after` has passed from now.
    pub(crate) fn set_after(&mut self, after: Duration) {
        self.due = Some(now() + after);
    }

    /// Clears the deadline, which then never expires until it is set again.
    pub(crate) fn clear(&mut self) {
        self.due = None;
    }

    /// Returns whether a deadline is set.
    pub(crate) fn is_set(&self) -> bool {
        self.due.is_some()
    }

    /// Returns whether the deadline has passed at `now`, for loops that never wait.
    pub(crate) fn has_passed(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// Waits until the deadline has passed; forever while no deadline is set.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else { return Poll::Pending };
        loop {
            let sleep = match (&mut self.sleep, self.armed) {
                (Some(sleep), Some(armed)) if armed <= due => sleep,
                (Some(sleep), _) => {
                    self.armed = Some(due);
                    sleep.as_mut().reset(due.into());
                    sleep
                }
                (None, _) => {
                    self.armed = Some(due);
                    self.sleep.insert(Box::pin(tokio::time::sleep_until(due.into())))
                }
            };
            std::task::ready!(sleep.as_mut().poll(cx));
            if now() >= due {
                self.due = None;
                self.armed = None;
                self.sleep = None;
                return Poll::Ready(());
            }
            self.armed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_an_imf_fixdate() {
        let text = with_date(str::to_owned);
        assert_eq!(text.len(), DATE_LENGTH);
        assert!(text.ends_with(" GMT"), "{text}");
    }

    #[test]
    fn both_clocks_go_alike() {
        let begun = now();
        for after in [0, 10, 990, 1_500, 5_000] {
            let moment = begun + Duration::from_millis(after);
            let wall = wall().duration_since(UNIX_EPOCH).unwrap();
            let off = unix_at(moment).abs_diff(wall + moment.saturating_duration_since(now()));
            assert!(off < Duration::from_millis(500), "{after}: {off:?}");
        }
        // A moment before the clocks were compared.
        let before = begun.checked_sub(Duration::from_secs(1)).unwrap_or(begun);
        assert!(unix_at(before) <= unix_at(begun));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_away_does_not_expire_early() {
        let mut deadline = Deadline::default();
        assert!(!deadline.is_set());
        deadline.set_after(Duration::from_millis(1));
        let polled = std::future::poll_fn(|cx| Poll::Ready(deadline.poll_expired(cx))).await;
        assert!(polled.is_pending());
        deadline.set_after(Duration::from_secs(3600));
        tokio::time::advance(Duration::from_millis(5)).await;
        let polled = std::future::poll_fn(|cx| Poll::Ready(deadline.poll_expired(cx))).await;
        assert!(polled.is_pending());
        deadline.set(now());
        std::future::poll_fn(|cx| deadline.poll_expired(cx)).await;
        assert!(!deadline.is_set());
    }
}
