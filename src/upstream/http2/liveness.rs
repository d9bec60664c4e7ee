//! Whether an HTTP/2 connection to an upstream is alive, told from what is read of it. A pure decision; time is
//! passed in.
//!
//! A connection can die without a word: a host that lost power, a firewall that forgot the flow. Requests would wait
//! on it for their whole timeout, and the next ones would follow them.

use std::time::Duration;

use crate::runtime::clock::Instant;

/// A request waits this long for a frame before the upstream is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(5);
/// The PING must be answered in this time (RFC 9113 6.7).
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// No second PING for this long: gRPC servers close a connection at the third within five minutes each
/// (gRPC A8). The second on top keeps two PINGs apart where the first was held up on its way.
const APART: Duration = Duration::from_secs(301);

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Liveness {
    /// When something was last read.
    heard: Instant,
    /// When the last PING was sent.
    pinged: Option<Instant>,
    /// Nothing was read since that PING.
    unacknowledged: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing before this moment; `None`: nothing while no request waits.
    Wait(Option<Instant>),
    Ping,
    Dead,
}

impl Liveness {
    /// Of a connection made at `now`.
    pub(super) fn new(now: Instant) -> Liveness {
        Liveness { heard: now, pinged: None, unacknowledged: false }
    }

    /// Something was read: any frame is a sign of life, not the answer to a PING alone.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.unacknowledged = false;
    }

    /// What is to be done at `now`, where a request has been waiting since `waiting`. After [`Step::Ping`] a PING
    /// counts as sent.
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
        // A stream that is quiet for six minutes lives, and is asked again once five of them are over.
        assert_eq!(liveness.step(Some(at(100)), at(113)), Step::Wait(Some(at(409))));
        assert_eq!(liveness.step(Some(at(100)), at(408)), Step::Wait(Some(at(409))));
        assert_eq!(liveness.step(Some(at(100)), at(409)), Step::Ping);
        assert_eq!(liveness.step(None, at(413)), Step::Wait(Some(at(414))), "whoever waited has left");
        assert_eq!(liveness.step(Some(at(100)), at(414)), Step::Dead);
    }
}
