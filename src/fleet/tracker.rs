//! What a reader of the log knows about each sender: the numbers it has read, those that are missing, and the writes
//! that the sender has announced. It decides when something may have been missed; then everything is invalidated.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::cache::invalidation::name::Name;
use crate::cache::invalidation::outbox::WriteId;
use crate::fleet::entry::{Content, Sender};
use crate::rendering::words::words;
use crate::runtime::clock::Instant;

/// Maximum number of senders that are known at once.
const MAX_SENDERS: usize = 4096;
/// How long a silent sender is known.
const KEPT: Duration = Duration::from_secs(3600);
/// How long a missing number may come late.
const LATE: Duration = Duration::from_secs(1);
/// Maximum number of separate gaps of one sender.
const MAX_GAPS: usize = 16;
/// How long a known sender may take to send its recent entries again in a new epoch.
const RESENDS: Duration = Duration::from_secs(5);
/// Maximum number of announced writes of one sender.
const MAX_ANNOUNCED: usize = 10_000;

words! {
    /// The reason why everything was invalidated.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) enum Loss {
        /// Numbers of a sender are missing.
        Missing => "missing",
        /// A sender was first read after its first entry.
        UnknownSender => "unknown-sender",
        /// The log was trimmed before it was read.
        Trimmed => "trimmed",
        /// A sender did not send its recent entries again after a failover.
        NotResent => "not-resent",
        /// An entry cannot be read.
        Unreadable => "unreadable",
        /// A sender has more of something than is remembered.
        TooMany => "too-many",
    }
}

/// What to do with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Apply,
    /// It was read before.
    Repeated,
    /// It is to be applied, and something before it may have been missed.
    ApplyAfter(Loss),
}

#[derive(Debug)]
struct Known {
    /// The greatest number that was read.
    last: u64,
    /// Missing numbers: the first and the last of each gap, and when it was found.
    gaps: BTreeMap<u64, (u64, Instant)>,
    seen: Instant,
    announced: HashMap<WriteId, Vec<Name>>,
    /// By when it must have sent its recent entries again.
    resends_by: Option<Instant>,
}

/// The senders that a reader knows; see the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    senders: HashMap<Sender, Known>,
    /// Whether entries are read that were written before this process began: nothing is stored that they concern.
    caught_up: bool,
    /// Whether the log is read at the moment; otherwise nothing can be late.
    reading: bool,
    /// When the last read began that succeeded. Only then can a number be missing that was found before.
    read_from: Option<Instant>,
}

impl Tracker {
    /// Records an entry that was read, and decides what to do with it.
    pub(crate) fn read(&mut self, sender: Sender, number: u64, content: &Content, now: Instant) -> Verdict {
        let first = !self.senders.contains_key(&sender);
        if first && self.senders.len() >= MAX_SENDERS {
            return Verdict::ApplyAfter(Loss::TooMany);
        }
        let caught_up = self.caught_up;
        let known = self.senders.entry(sender).or_insert_with(|| Known {
            last: if caught_up { 0 } else { number.saturating_sub(1) },
            gaps: BTreeMap::new(),
            seen: now,
            announced: HashMap::new(),
            resends_by: None,
        });
        known.seen = now;
        if content.resent_for.is_some() {
            known.resends_by = None;
        }
        let verdict = known.place(number, first, now);
        if verdict == Verdict::Repeated {
            return verdict;
        }
        for (id, names) in &content.batch.announced {
            known.announced.insert(*id, names.clone());
        }
        for id in &content.batch.done {
            known.announced.remove(id);
        }
        let too_many = known.announced.len() > MAX_ANNOUNCED;
        if too_many {
            known.announced.clear();
        }
        if too_many { Verdict::ApplyAfter(Loss::TooMany) } else { verdict }
    }

    /// Tells that everything is read that was there when this process began.
    pub(crate) fn catch_up(&mut self) {
        self.caught_up = true;
    }

    /// Tells whether the log is read from here on. What was missing before may still come.
    pub(crate) fn set_reading(&mut self, reading: bool, now: Instant) {
        self.reading = reading;
        for known in self.senders.values_mut() {
            known.gaps.values_mut().for_each(|(_, found)| *found = now);
            known.resends_by = known.resends_by.map(|_| now + RESENDS);
        }
    }

    /// Tells that everything was read that was in the log at a moment.
    pub(crate) fn has_read_from(&mut self, began: Instant) {
        self.read_from = Some(began);
    }

    pub(crate) fn has_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Tells that the log begins a new epoch: every known sender must send its recent entries again.
    pub(crate) fn begin_epoch(&mut self, own: Sender, now: Instant) {
        for (sender, known) in &mut self.senders {
            known.resends_by = (*sender != own).then_some(now + RESENDS);
        }
    }

    /// Tells the greatest number that a sender says it has published: what was not read of it comes soon, or is missing.
    pub(crate) fn has_published(&mut self, sender: Sender, number: u64, now: Instant) {
        let Some(known) = self.senders.get_mut(&sender).filter(|_| self.reading) else { return };
        if number > known.last {
            known.gaps.entry(known.last + 1).or_insert((number, now));
        }
    }

    /// Returns what was certainly missed until now, and forgets silent senders.
    pub(crate) fn overdue(&mut self, now: Instant) -> Option<Loss> {
        if !self.reading {
            return None;
        }
        let mut loss = None;
        let read_from = self.read_from;
        for known in self.senders.values_mut() {
            let before = known.gaps.len();
            known.gaps.retain(|_, (last, found)| {
                let late = now.saturating_duration_since(*found) >= LATE
                    && read_from.is_some_and(|began| began >= *found);
                if late {
                    known.last = known.last.max(*last);
                }
                !late
            });
            if known.gaps.len() != before {
                loss = Some(Loss::Missing);
            }
            if known.resends_by.take_if(|by| *by <= now).is_some() {
                loss = Some(Loss::NotResent);
            }
        }
        let is_kept = |known: &Known| now.saturating_duration_since(known.seen) < KEPT;
        self.senders.retain(|_, known| is_kept(known) || !known.announced.is_empty());
        loss
    }

    /// Returns the writes that a sender announced and whose outcome nobody will tell, as it has gone.
    pub(crate) fn abandoned_by(&mut self, sender: Sender) -> Vec<Vec<Name>> {
        let known = self.senders.get_mut(&sender);
        known.map(|known| known.announced.drain().map(|(_, names)| names).collect()).unwrap_or_default()
    }

    /// Returns the number up to which everything of a sender was read.
    pub(crate) fn applied(&self, sender: Sender) -> u64 {
        let Some(known) = self.senders.get(&sender) else { return 0 };
        known.gaps.first_key_value().map_or(known.last, |(first, _)| first - 1)
    }

    /// Forgets a sender that took leave.
    pub(crate) fn forget(&mut self, sender: Sender) {
        self.senders.remove(&sender);
    }

    /// Returns the senders of which nothing was read for a time.
    pub(crate) fn silent(&self, since: Duration, now: Instant) -> impl Iterator<Item = Sender> {
        let is_silent = move |known: &Known| now.saturating_duration_since(known.seen) >= since;
        self.senders.iter().filter(move |(_, known)| is_silent(known)).map(|(sender, _)| *sender)
    }

    /// Returns the number of known senders.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.senders.len()
    }
}

impl Known {
    /// Places a number among those that were read.
    fn place(&mut self, number: u64, first: bool, now: Instant) -> Verdict {
        if number > self.last {
            let expected = self.last + 1;
            self.last = number;
            // Numbers that were reported and not read are in a gap already, which ends here.
            let covered =
                self.gaps.range(..=number).next_back().is_some_and(|(_, (last, _))| *last >= number);
            if covered {
                self.take_from_gap(number);
                return Verdict::Apply;
            }
            if number == expected {
                return Verdict::Apply;
            }
            if first {
                return Verdict::ApplyAfter(Loss::UnknownSender);
            }
            if self.gaps.len() >= MAX_GAPS {
                self.gaps.clear();
                return Verdict::ApplyAfter(Loss::TooMany);
            }
            // What was reported as published is known to be missing for longer.
            let reported = self.gaps.remove(&expected).map_or(now, |(_, found)| found);
            self.gaps.insert(expected, (number - 1, reported));
            return Verdict::Apply;
        }
        if self.take_from_gap(number) { Verdict::Apply } else { Verdict::Repeated }
    }

    /// Takes a number out of the gap that it is in; returns false if it is in none.
    fn take_from_gap(&mut self, number: u64) -> bool {
        let Some((&start, &(end, found))) = self.gaps.range(..=number).next_back() else { return false };
        if end < number {
            return false;
        }
        self.gaps.remove(&start);
        if start < number {
            self.gaps.insert(start, (number - 1, found));
        }
        if number < end {
            self.gaps.insert(number + 1, (end, found));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::invalidation::outbox::Batch;
    use crate::runtime::clock;

    const ONE: Sender = Sender([1; 16]);
    const OTHER: Sender = Sender([2; 16]);

    fn caught_up() -> Tracker {
        let mut tracker = Tracker::default();
        tracker.catch_up();
        tracker.set_reading(true, clock::now());
        tracker
    }

    fn read(tracker: &mut Tracker, number: u64, now: Instant) -> Verdict {
        tracker.read(ONE, number, &Content::default(), now)
    }

    #[test]
    fn numbers_without_holes_are_applied_once() {
        let (mut tracker, now) = (caught_up(), clock::now());
        for number in 1..=3 {
            assert_eq!(read(&mut tracker, number, now), Verdict::Apply);
            assert_eq!(read(&mut tracker, number, now), Verdict::Repeated);
        }
        assert_eq!((tracker.applied(ONE), tracker.applied(OTHER)), (3, 0));
        assert_eq!(tracker.overdue(now + LATE), None);
    }

    #[test]
    fn a_hole_may_be_filled_for_a_second() {
        let (mut tracker, now) = (caught_up(), clock::now());
        read(&mut tracker, 1, now);
        assert_eq!(read(&mut tracker, 5, now), Verdict::Apply);
        assert_eq!(tracker.applied(ONE), 1);
        for number in [3, 2, 4] {
            assert_eq!(read(&mut tracker, number, now), Verdict::Apply, "{number}");
        }
        assert_eq!((tracker.applied(ONE), tracker.overdue(now + LATE)), (5, None));
        read(&mut tracker, 7, now);
        assert_eq!(tracker.overdue(now + LATE), None, "the link may be dead");
        tracker.has_read_from(now);
        assert_eq!(tracker.overdue(now + LATE - Duration::from_millis(1)), None);
        assert_eq!(tracker.overdue(now + LATE), Some(Loss::Missing));
        assert_eq!((tracker.overdue(now + LATE), tracker.applied(ONE)), (None, 7), "it is told once");
    }

    #[test]
    fn numbers_that_a_sender_published_and_nobody_read_are_missing() {
        let (mut tracker, now) = (caught_up(), clock::now());
        read(&mut tracker, 1, now);
        tracker.has_published(ONE, 1, now);
        tracker.has_published(OTHER, 9, now);
        assert_eq!(tracker.overdue(now + LATE), None);
        tracker.has_published(ONE, 3, now);
        assert_eq!(read(&mut tracker, 2, now), Verdict::Apply);
        assert_eq!(tracker.applied(ONE), 2);
        let later = now + LATE / 2;
        assert_eq!(read(&mut tracker, 4, later), Verdict::Apply);
        tracker.has_read_from(later);
        assert_eq!(tracker.overdue(now + LATE), Some(Loss::Missing), "as long as it was reported first");
        assert_eq!(tracker.applied(ONE), 4);
    }

    #[test]
    fn nothing_is_late_while_the_log_is_not_read() {
        let (mut tracker, now) = (caught_up(), clock::now());
        read(&mut tracker, 1, now);
        read(&mut tracker, 3, now);
        tracker.set_reading(false, now);
        tracker.has_published(ONE, 9, now);
        assert_eq!(tracker.overdue(now + 5 * LATE), None);
        let later = now + 5 * LATE;
        tracker.set_reading(true, later);
        assert_eq!(tracker.overdue(later), None);
        assert_eq!((read(&mut tracker, 2, later), tracker.applied(ONE)), (Verdict::Apply, 3));
        assert_eq!(tracker.overdue(later + LATE), None);
    }

    #[test]
    fn an_unknown_sender_must_begin_at_one() {
        let now = clock::now();
        assert_eq!(read(&mut caught_up(), 2, now), Verdict::ApplyAfter(Loss::UnknownSender));
        let mut tracker = Tracker::default();
        assert_eq!(read(&mut tracker, 100, now), Verdict::Apply, "what was trimmed concerned nothing stored");
        assert_eq!(read(&mut tracker, 101, now), Verdict::Apply);
    }

    #[test]
    fn a_sender_that_does_not_send_again_after_a_failover_is_a_loss() {
        let (mut tracker, now) = (caught_up(), clock::now());
        read(&mut tracker, 1, now);
        tracker.read(OTHER, 1, &Content::default(), now);
        tracker.begin_epoch(OTHER, now);
        assert_eq!(tracker.overdue(now + RESENDS - LATE), None);
        assert_eq!(tracker.overdue(now + RESENDS), Some(Loss::NotResent));
        tracker.begin_epoch(OTHER, now);
        let mark = Content { resent_for: Some("epoch".into()), ..Content::default() };
        assert_eq!(tracker.read(ONE, 2, &mark, now), Verdict::Apply);
        assert_eq!(tracker.overdue(now + RESENDS), None);
        tracker.begin_epoch(OTHER, now);
        tracker.forget(ONE);
        assert_eq!((tracker.overdue(now + RESENDS), tracker.len()), (None, 1));
    }

    #[test]
    fn announced_writes_are_known_until_their_outcome() {
        let (mut tracker, now) = (caught_up(), clock::now());
        let names = |id: WriteId| vec![Name::Tag(id.to_string().into())];
        let announced = Batch { announced: vec![(1, names(1)), (2, names(2))], ..Batch::default() };
        tracker.read(ONE, 1, &Content { batch: announced, ..Content::default() }, now);
        let done = Batch { done: vec![1], ..Batch::default() };
        tracker.read(ONE, 2, &Content { batch: done, ..Content::default() }, now);
        assert_eq!(tracker.overdue(now + KEPT), None);
        assert_eq!(tracker.abandoned_by(ONE), [names(2)], "it is kept as long as a write is open");
        assert!(tracker.abandoned_by(ONE).is_empty() && tracker.abandoned_by(OTHER).is_empty());
        tracker.overdue(now + KEPT);
        assert_eq!(tracker.len(), 0);
    }

    #[test]
    fn senders_and_gaps_are_bounded() {
        let (mut tracker, now) = (caught_up(), clock::now());
        for number in (1..).step_by(2).take(MAX_GAPS + 1) {
            assert_eq!(read(&mut tracker, number, now), Verdict::Apply);
        }
        let beyond = 2 * MAX_GAPS as u64 + 3;
        assert_eq!(read(&mut tracker, beyond, now), Verdict::ApplyAfter(Loss::TooMany));
        for count in 0..MAX_SENDERS as u128 {
            tracker.read(Sender((count + 1000).to_be_bytes()), 1, &Content::default(), now);
        }
        assert_eq!(tracker.len(), MAX_SENDERS);
        let further = tracker.read(Sender([9; 16]), 1, &Content::default(), now);
        assert_eq!(further, Verdict::ApplyAfter(Loss::TooMany));
    }

    /// Whatever is lost, repeated or late: each number is applied, or a loss is reported after it was sent.
    #[test]
    fn every_number_is_applied_or_a_loss_is_reported() {
        const SENT: u64 = 12;
        let begin = clock::now();
        for seed in 0..100_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut tracker, mut applied) = (caught_up(), [false; SENT as usize + 1]);
            let mut now = begin;
            let mut lost_until = 0;
            let mut sent = 0;
            let mut on_their_way: Vec<u64> = Vec::new();
            while sent < SENT || !on_their_way.is_empty() {
                now += Duration::from_millis(random.u64(0..300));
                match random.u8(0..10) {
                    0..=3 if sent < SENT => {
                        sent += 1;
                        // Lost, sent once or sent twice.
                        (0..random.u8(0..3)).for_each(|_| on_their_way.push(sent));
                    }
                    4 => tracker.has_published(ONE, sent, now),
                    _ if on_their_way.is_empty() => {}
                    _ => {
                        let at = random.usize(..on_their_way.len().min(3));
                        let number = on_their_way.remove(at);
                        match read(&mut tracker, number, now) {
                            Verdict::Repeated => {}
                            Verdict::Apply => applied[number as usize] = true,
                            Verdict::ApplyAfter(_) => {
                                applied[number as usize] = true;
                                lost_until = sent;
                            }
                        }
                    }
                }
                tracker.has_read_from(now);
                if tracker.overdue(now).is_some() {
                    lost_until = sent;
                }
            }
            read(&mut tracker, SENT + 1, now);
            tracker.has_read_from(now);
            if tracker.overdue(now + LATE).is_some() {
                lost_until = SENT;
            }
            let missed = (1..=SENT).find(|number| !applied[*number as usize] && *number > lost_until);
            assert_eq!(missed, None, "seed {seed}");
            assert_eq!(tracker.applied(ONE), SENT + 1, "seed {seed}");
        }
    }
}
