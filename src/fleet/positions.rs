//! Positions in the log, and where the invalidation clock of this process stood when it had applied them: so a fetch of
//! one process is compared with the invalidations that another has applied.

use std::collections::VecDeque;

use crate::fleet::stream_id::StreamId;

/// Maximum number of spans. Responses that were fetched before the oldest are not used.
const MAX_SPANS: usize = 1 << 16;

/// Entries in a row that did not move the clock.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: StreamId,
    last: StreamId,
    /// Where the clock stood after each of them.
    number: u64,
}

/// The positions of one epoch of the log; see the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    epoch: Box<str>,
    spans: VecDeque<Span>,
}

impl Positions {
    /// Begins an epoch: positions of another one cannot be compared with those to come.
    pub(super) fn begin(&mut self, epoch: Box<str>) {
        self.spans.clear();
        self.epoch = epoch;
    }

    /// Notes where the clock stands after an entry was applied.
    pub(super) fn advance(&mut self, position: StreamId, number: u64) {
        match self.spans.back_mut() {
            // Entries that are read again change nothing.
            Some(last) if position <= last.last => return,
            Some(last) if last.number == number => {
                last.last = position;
                return;
            }
            _ => {}
        }
        self.spans.push_back(Span { first: position, last: position, number });
        if self.spans.len() > MAX_SPANS {
            self.spans.pop_front();
        }
    }

    /// Returns the epoch of the log.
    pub(crate) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Returns where the clock stood at a position: what was invalidated after that position has a number at least as
    /// great. `None` if that is not known any more.
    pub(crate) fn number_at(&self, position: StreamId) -> Option<u64> {
        let after = self.spans.partition_point(|span| span.first <= position);
        self.spans.get(after.checked_sub(1)?).map(|span| span.number)
    }

    /// Returns a position that was applied when a fetch began whose number is `begun`. `None` if that is not known any
    /// more.
    pub(crate) fn position_of(&self, begun: u64) -> Option<StreamId> {
        let after = self.spans.partition_point(|span| span.number <= begun);
        self.spans.get(after.checked_sub(1)?).map(|span| span.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(milliseconds: u64) -> StreamId {
        StreamId { milliseconds, sequence: 0 }
    }

    #[test]
    fn positions_and_numbers_are_found_on_the_safe_side() {
        let mut positions = Positions::default();
        assert_eq!((positions.number_at(id(1)), positions.position_of(1)), (None, None));
        positions.begin("a".into());
        for (position, number) in [(10, 5), (20, 5), (30, 8), (25, 9), (40, 8), (50, 9)] {
            positions.advance(id(position), number);
        }
        for (position, wanted) in [
            (9, None),
            (10, Some(5)),
            (29, Some(5)),
            (30, Some(8)),
            (45, Some(8)),
            (50, Some(9)),
            // Not applied yet: it counts as what is.
            (99, Some(9)),
        ] {
            assert_eq!(positions.number_at(id(position)), wanted, "{position}");
        }
        for (begun, wanted) in [(4, None), (5, Some(20)), (7, Some(20)), (8, Some(40)), (100, Some(50))] {
            assert_eq!(positions.position_of(begun), wanted.map(id), "{begun}");
        }
        positions.begin("b".into());
        assert_eq!((positions.epoch(), positions.number_at(id(50))), ("b", None));
    }

    #[test]
    fn positions_are_bounded() {
        let mut positions = Positions::default();
        (1..=MAX_SPANS as u64 + 1).for_each(|number| positions.advance(id(number), number));
        assert_eq!((positions.number_at(id(1)), positions.number_at(id(2))), (None, Some(2)));
    }
}
