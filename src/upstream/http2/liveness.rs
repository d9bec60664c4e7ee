//! Decides whether an HTTP/2 connection to an upstream is alive, from what is read from it. It is a pure decision with
//! time as an argument.
//!
//! A connection can die silently: the host lost power, or a firewall forgot the flow. Requests would wait on it for
//! their whole timeout, and further ones would follow.

use std::time::Duration;

use crate::runtime::clock::Instant;

/// Time that a request waits for a frame before the upstream gets a PING.
const SILENCE: Duration = Duration::from_secs(5);
/// Maximum time for the acknowledgment of a PING (RFC 9113 6.7).
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum time between two PINGs: gRPC servers close a connection at the third PING that comes less than five minutes
/// after the one before (gRPC A8). The additional second keeps PINGs apart if the first was delayed on its way.
const APART: Duration = Duration::from_secs(301);

/// The knowledge about whether one HTTP/2 connection is alive.
#[derive(Debug)]
pub(super) struct Liveness {
    /// Time of the last read.
    heard: Instant,
    /// Time of the last PING.
    pinged: Option<Instant>,
    /// Whether nothing was read since that PING.
    unacknowledged: bool,
}

/// The driver's next action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait until this time, or without a limit while no request waits.
    Wait(Option<Instant>),
    Ping,
    Dead,
}

impl Liveness {
    /// Creates the state of a connection opened at `now`.
    pub(super) fn new(now: Instant) -> Liveness {
        Liveness { heard: now, pinged: None, unacknowledged: false }
    }

    /// Records a read: any frame is a sign of life, not only the acknowledgment of a PING.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.unacknowledged = false;
    }

    /// Returns the next action at `now`, with a request waiting since `waiting`. After [`Step::Ping`] a PING counts as
    /// sent.
    pub(super) fn step(&mut self, waiting: Option<Instant>, now: Instant) -> Step {
        if let (true, Some(pinged)) = (self.unacknowledged, self.pinged) {
            let due = pinged + ACK_TIMEOUT;
            return if now >= due { Step::Dead } else { Step::Wait(Some(due)) };
        }
        let Some(waiting) = waiting else { return Step::Wait(None) };
        let silent = self.heard.max(waiting) + SILENCE;
        let due = self.pinged.map_or(silent, |pinged| silent.max(pinged + APART));
        if now < due {
            return Step::Wait(Some(due));
        }
        self.pinged = Some(now);
        self.unacknowledged = true;
        Step::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn n4_2_one_ping_for_a_spell_of_silence() {
        let begin = clock::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(begin);
        assert_eq!(liveness.step(None, at(100)), Step::Wait(None), "nobody waits");
        assert_eq!(liveness.step(Some(at(100)), at(100)), Step::Wait(Some(at(105))));
        liveness.heard(at(103));
        assert_eq!(liveness.step(Some(at(100)), at(105)), Step::Wait(Some(at(108))), "frames came");
        assert_eq!(liveness.step(Some(at(100)), at(108)), Step::Ping);
        assert_eq!(liveness.step(Some(at(100)), at(109)), Step::Wait(Some(at(113))));
        liveness.heard(at(110));
        // A stream that is quiet for six minutes is alive, and gets another PING once five of them have passed.
        assert_eq!(liveness.step(Some(at(100)), at(113)), Step::Wait(Some(at(409))));
        assert_eq!(liveness.step(Some(at(100)), at(408)), Step::Wait(Some(at(409))));
        assert_eq!(liveness.step(Some(at(100)), at(409)), Step::Ping);
        assert_eq!(liveness.step(None, at(413)), Step::Wait(Some(at(414))), "whoever waited has left");
        assert_eq!(liveness.step(Some(at(100)), at(414)), Step::Dead);
    }
}
