//! The law of leases, on a model of the server and of several processes: in any time W at most
//! `burst + rate x (W + 2 x life) + processes` requests are admitted, whatever answers are late or lost; and under twice
//! the rate nearly all that is allowed is admitted.

use std::num::NonZeroU32;
use std::time::Duration;

use super::lease::{Demand, Grant, Lease, Look, Terms};
use crate::limit::gcra::Quota;

const MICROSECOND: u64 = 1000;
const SECOND: u64 = 1_000_000_000;

/// The bucket of one caller on the server, as `take.lua` has it, in microseconds.
#[derive(Default)]
struct Server {
    tat: f64,
    full: f64,
    scripts: usize,
}

impl Server {
    fn take(&mut self, demand: &Demand, live: usize, now: u64) -> (u64, Grant) {
        self.scripts += 1;
        let Demand { terms, cost, wanted, back, since } = *demand;
        let here = now / MICROSECOND;
        let now = here as f64;
        let step = terms.step as f64 / 1000.0;
        let (life, live) = (terms.life as f64 / 1000.0, live as f64);
        let depth = f64::from(terms.burst) * step;
        let (mut tat, mut full) = (self.tat, self.full);
        if back > 0 && since as f64 >= full {
            tat -= f64::from(back) * step;
        }
        if tat <= now {
            (tat, full) = (now, now);
        }
        tat = tat.min(now + depth + life);
        let left = ((now + depth - tat) / step + 0.001).floor();
        let cost = f64::from(cost);
        let lacks = left < cost;
        let wait = if lacks { tat + cost * step - depth - now } else { 0.0 };
        let tokens = if lacks {
            0.0
        } else {
            f64::from(wanted).min(cost.max((left / (2.0 * live)).floor())).min(left)
        };
        tat += tokens * step;
        let first = tat + step - depth - now;
        let mut slots = 0.0;
        if life > 0.0 && left - tokens < live {
            let share = (life / (step * live)).ceil().max(1.0);
            let ahead = ((life - first) / step).floor() + 1.0;
            slots = share.min(ahead).max(0.0);
            tat += slots * step;
        }
        (self.tat, self.full) = (tat, full);
        let time = |microseconds: f64| (microseconds.max(0.0) as u64) * MICROSECOND;
        let left = ((now + depth - tat) / step + 0.001).floor().max(0.0) as u32;
        let grant = Grant {
            tokens: tokens as u32,
            slots: slots as u32,
            first: time(first),
            left,
            full: time(tat - now),
            wait: time(wait),
        };
        (here, grant)
    }
}

/// A question on its way.
struct Question {
    demand: Demand,
    sent: u64,
    arrives: u64,
    returns: u64,
    /// Whether the response is lost on its way back.
    is_lost: bool,
    response: Option<(u64, Grant)>,
}

struct Process {
    lease: Lease,
    question: Option<Question>,
}

struct World {
    quota: Quota,
    terms: Terms,
    server: Server,
    processes: Vec<Process>,
    now: u64,
    admitted: Vec<u64>,
}

impl World {
    fn new(quota: Quota, processes: usize, exact: bool) -> World {
        let process = || Process { lease: Lease::new(1), question: None };
        World {
            quota,
            terms: Terms::new(1, &quota, exact),
            server: Server::default(),
            processes: std::iter::repeat_with(process).take(processes).collect(),
            // The clock of the server is never near its origin.
            now: 1_000_000 * SECOND,
            admitted: Vec::new(),
        }
    }

    /// Delivers what has arrived until now.
    fn deliver(&mut self) {
        let live = self.processes.len();
        for process in &mut self.processes {
            let Some(question) = &mut process.question else { continue };
            if question.response.is_none() && question.arrives <= self.now {
                question.response = Some(self.server.take(&question.demand, live, question.arrives));
            }
            if question.returns <= self.now {
                if let (Some((there, grant)), false) = (question.response, question.is_lost) {
                    process.lease.take(question.demand.terms, &grant, question.sent, self.now, there);
                }
                process.question = None;
            }
        }
    }

    /// A request at one process; it is gone if it would have to wait.
    fn request(&mut self, at: usize, delays: (u64, u64), is_lost: bool) {
        self.deliver();
        let process = &mut self.processes[at];
        match process.lease.look(1, self.now) {
            Look::Conforms => {
                process.lease.spend(1, self.now);
                self.admitted.push(self.now);
            }
            Look::Refused(_) => {}
            Look::Ask if process.question.is_some() => {}
            Look::Ask => {
                let demand = process.lease.demand(self.terms, 1, self.now);
                let (there, back) = delays;
                let arrives = self.now + there;
                let response = None;
                let sent = self.now;
                process.question =
                    Some(Question { demand, sent, arrives, returns: arrives + back, is_lost, response });
            }
        }
    }

    /// The most that were admitted beyond what the law allows in any time; negative if never.
    fn excess(&self) -> f64 {
        let interval = self.quota.interval() as f64;
        let lives = 2.0 * (if self.terms.life == 0 { 0.1e9 } else { self.terms.life as f64 });
        let fixed = f64::from(self.quota.burst.get()) + lives / interval + self.processes.len() as f64;
        // The number from i to j is j - i + 1: the worst begin is that with the min `number - time / interval`.
        let (mut min, mut worst) = (f64::INFINITY, f64::NEG_INFINITY);
        for (number, at) in self.admitted.iter().enumerate() {
            let balance = number as f64 - (*at - 1_000_000 * SECOND) as f64 / interval;
            min = min.min(balance);
            worst = worst.max(balance - min + 1.0);
        }
        worst - fixed
    }
}

fn quota(count: u32, seconds: u64, burst: u32) -> Quota {
    Quota::new(count, Duration::from_secs(seconds), NonZeroU32::new(burst).unwrap()).unwrap()
}

#[test]
fn no_schedule_admits_more_than_the_law() {
    // Each schedule has some thousand steps; all together more than a million.
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let burst = random.u32(1..200);
        let quota = quota(random.u32(1..500), [1, 10, 60][random.usize(..3)], burst);
        let processes = random.usize(1..6);
        let exact = burst < 4 * processes as u32;
        let mut world = World::new(quota, processes, exact);
        let interval = quota.interval();
        let delay = [50_000, 2_000_000, 40_000_000][random.usize(..3)];
        for _ in 0..3000 {
            world.now += match random.u32(..100) {
                0 => random.u64(..interval * u64::from(burst) + SECOND),
                _ => random.u64(..interval),
            };
            // A flood at one moment.
            for _ in 0..random.u32(..4) {
                let delays = (random.u64(1..delay), random.u64(1..delay));
                world.request(random.usize(..processes), delays, random.u32(..20) == 0);
            }
        }
        let excess = world.excess();
        assert!(excess <= 0.0, "seed {seed}: {excess} too many with {quota:?} in {processes} processes");
    }
}

#[test]
fn nearly_all_that_is_allowed_is_admitted_and_few_ask() {
    for (count, seconds, burst, processes) in [
        (100, 1, 100, 3),
        (60, 60, 60, 3),
        (20, 1, 20, 3),
        (1000, 1, 2000, 5),
        (20, 60, 20, 2),
        (100, 1, 20, 1),
    ] {
        let quota = quota(count, seconds, burst);
        let mut world = World::new(quota, processes, false);
        let begin = world.now;
        let time = quota.interval() * u64::from(burst) * 50;
        // Twice the limit, evenly over the processes, each response within 200 us.
        let gap = quota.interval() / 2;
        let mut number = 0;
        while world.now < begin + time {
            world.now += gap;
            for _ in 0..2 {
                // A request that waits comes again at once when the response is there.
                world.request(number % processes, (100_000, 100_000), false);
                if world.processes[number % processes].question.is_some() {
                    world.now += 200_000.min(gap / 4);
                    world.request(number % processes, (100_000, 100_000), false);
                }
                number += 1;
            }
        }
        let elapsed = (world.now - begin) as f64 / quota.interval() as f64;
        let allowed = f64::from(burst) + elapsed;
        let share = world.admitted.len() as f64 / allowed;
        let lives = (world.now - begin) as f64 / world.terms.life as f64;
        let scripts = world.server.scripts as f64 / processes as f64 / lives;
        let shown = format!(
            "{count}/{seconds} s, burst {burst}, {processes} processes: {share:.3}, {scripts:.2} scripts"
        );
        assert!(share >= 0.97 && scripts <= 1.2, "{shown}");
        assert!(world.excess() <= 0.0, "{shown}");
    }
}
