//! Invalidations that are made once more after a while, for apps that read from replicas that lag.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::invalidation::{Invalidation, Mode};
use super::marks::Mark;
use crate::clock::Instant;

/// So many wait at once. Beyond that the last of them becomes one of everything, which errs towards a fetch.
const MOST: usize = 10_000;

#[derive(Debug)]
struct Pending {
    due: Instant,
    mode: Mode,
    marks: Vec<Mark>,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Settling(Mutex<VecDeque<Pending>>);

impl Settling {
    /// Makes it again after `after`.
    pub fn add(
        &self,
        invalidation: &Invalidation,
        after: Duration,
        mode: Mode,
        marks: Vec<Mark>,
        now: Instant,
    ) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = now + after;
        if pending.len() >= MOST
            && let Some(last) = pending.back_mut()
        {
            last.due = last.due.max(due);
            last.mode = Mode::Hard;
            last.marks = vec![invalidation.marker.everything()];
            return;
        }
        pending.push_back(Pending { due, mode, marks });
    }

    /// Makes those that are due.
    pub fn run(&self, invalidation: &Invalidation, now: Instant) {
        let mut due = Vec::new();
        {
            let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if pending.is_empty() {
                return;
            }
            let (ready, rest) = std::mem::take(&mut *pending).into_iter().partition(|one| one.due <= now);
            let ready: VecDeque<Pending> = ready;
            *pending = rest;
            due.extend(ready);
        }
        due.iter().for_each(|one| invalidation.stamp(&one.marks, one.mode, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::invalidation::Validity;
    use crate::clock;

    #[test]
    fn a_second_stamp_comes_later() {
        let now = clock::now();
        let invalidation = Invalidation::new(1, now);
        let settling = Settling::default();
        let marks = vec![invalidation.marker.tag("a")];
        let begun = invalidation.begin(now);
        settling.add(&invalidation, Duration::from_secs(2), Mode::Hard, marks.clone(), now);
        settling.run(&invalidation, now + Duration::from_secs(1));
        assert_eq!(invalidation.validity(&marks, begun, now), Validity::Valid);
        settling.run(&invalidation, now + Duration::from_secs(2));
        assert_eq!(invalidation.validity(&marks, begun, now), Validity::Gone);
        for _ in 0..=MOST {
            settling.add(&invalidation, Duration::ZERO, Mode::Hard, marks.clone(), now);
        }
        let everything = [invalidation.marker.everything()];
        let begun = invalidation.begin(now);
        settling.run(&invalidation, now);
        assert_eq!(invalidation.validity(&everything, begun, now), Validity::Gone);
    }
}
