//! Adaptive concurrency: the number of requests that an upstream should have at once, derived from its latency.
//!
//! The gradient of Netflix's concurrency-limits and of Envoy's adaptive concurrency filter: the latency without
//! queueing (`baseline`) over the current latency. While both are close the limit grows by its square root; when the
//! upstream slows down it shrinks in proportion. The baseline is the minimum over the recent past. The limit is halved
//! for a moment now and then (BBR's ProbeRTT), so that the queue of an upstream under constant load is not taken for
//! its latency.
//!
//! The latency of cheap pages says nothing about expensive reports. So requests fall into classes by their target, each
//! with its own baseline, and the total time of all responses is compared with the total of their baselines: neither a
//! changed mix of requests nor a flood of cheap ones looks like overload. If most responses are of rare classes, all
//! are compared as one class. The computation is pure: time and samples are arguments.

use std::time::Duration;

use crate::runtime::clock::Instant;

/// Limit at the start, and the minimum.
const INITIAL: f64 = 8.0;
const MIN: f64 = 2.0;
/// Factor over the baseline at which an upstream counts as overloaded.
const TOLERANCE: f64 = 2.0;
/// Minimum factor by which the limit shrinks at once.
const STEEPEST: f64 = 0.5;
/// Number of request classes; further ones share.
const CLASSES: usize = 256;
/// The baseline of a class is the minimum over means of this many responses.
const MEAN_OF: u32 = 10;
/// A window is judged after at least this many samples and this much time, or after the maximum time.
const SAMPLES: u32 = 10;
const WINDOW: Duration = Duration::from_millis(100);
const MAX_WINDOW: Duration = Duration::from_secs(2);
/// The baseline is the minimum over two spans. The first span is short and each is twice as long as the one before, up
/// to the maximum, because the first latencies of an upstream may include its queue already.
const FIRST_SPAN: Duration = Duration::from_secs(1);
const MAX_SPAN: Duration = Duration::from_secs(15);
/// How long the limit is halved at the end of a span.
const PROBE: Duration = Duration::from_millis(300);

/// The adaptive limit of one upstream's concurrent requests, derived from its latency.
#[derive(Debug)]
pub(crate) struct Gradient {
    limit: f64,
    max: f64,
    window: Option<Window>,
    classes: Box<[Class]>,
    all: Class,
    span: Span,
    probe_until: Option<Instant>,
    /// When the limit last shrank; requests sent before say nothing about the new limit. `None`: it never shrank.
    shrank: Option<Instant>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    count: u32,
    /// Maximum number of requests in flight during the window.
    inside: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Class {
    /// The minimum means of the last span and of this one, in seconds.
    before: Option<f64>,
    now: Option<f64>,
    /// Number and total seconds of responses towards the next mean, and the arrival of the first.
    gathered: (u32, f64),
    gathering: Option<Instant>,
    window: (u32, f64),
}

impl Class {
    fn baseline(&self) -> Option<f64> {
        match (self.before, self.now) {
            (Some(before), Some(now)) => Some(before.min(now)),
            (before, now) => before.or(now),
        }
    }

    /// Adds a response. A mean that took longer than `within` to gather does not count: so rare a class would miss the
    /// moments in which the upstream does not queue.
    fn add(&mut self, seconds: f64, now: Instant, within: Duration) {
        let count = |(count, sum): (u32, f64)| (count + 1, sum + seconds);
        (self.window, self.gathered) = (count(self.window), count(self.gathered));
        let began = *self.gathering.get_or_insert(now);
        if self.gathered.0 < MEAN_OF {
            return;
        }
        if now.saturating_duration_since(began) <= within {
            let mean = self.gathered.1 / f64::from(MEAN_OF);
            self.now = Some(self.now.map_or(mean, |known| known.min(mean)));
        }
        (self.gathered, self.gathering) = ((0, 0.0), None);
    }
}

/// A period over which the minimum of the baseline is taken.
#[derive(Debug)]
struct Span {
    began: Instant,
    length: Duration,
}

impl Gradient {
    /// Creates a limit of at most `max` requests.
    pub(crate) fn new(max: usize, now: Instant) -> Gradient {
        let max = (max as f64).max(MIN);
        Gradient {
            limit: INITIAL.min(max),
            max,
            window: None,
            classes: vec![Class::default(); CLASSES].into(),
            all: Class::default(),
            span: Span { began: now, length: FIRST_SPAN },
            probe_until: None,
            shrank: None,
        }
    }

    /// Returns the maximum number of requests in flight.
    pub(crate) fn limit(&self) -> usize {
        let share = if self.probe_until.is_some() { 0.5 } else { 1.0 };
        (self.limit * share).max(MIN) as usize
    }

    /// Returns whether such a latency of a class shows that the upstream is overloaded.
    pub(crate) fn is_slow(&self, class: u64, took: Duration) -> bool {
        let class = self.classes.get(at(class)).and_then(Class::baseline).or(self.all.baseline());
        class.is_some_and(|min| took.as_secs_f64() > TOLERANCE * min)
    }

    /// Records a response whose head arrived or timed out, with `inside` requests in flight at that moment.
    pub(crate) fn sample(&mut self, class: u64, sent: Instant, now: Instant, inside: usize) {
        if self.probe_until.is_some_and(|until| now >= until) {
            self.probe_until = None;
        }
        if self.shrank.is_some_and(|shrank| sent < shrank) {
            return;
        }
        let seconds = now.saturating_duration_since(sent).as_secs_f64();
        self.classes[at(class)].add(seconds, now, PROBE);
        self.all.add(seconds, now, Duration::MAX);
        let window = self.window.get_or_insert(Window { began: now, count: 0, inside: 0 });
        window.count += 1;
        window.inside = window.inside.max(inside);
        let age = now.saturating_duration_since(window.began);
        if (window.count < SAMPLES || age < WINDOW) && age < MAX_WINDOW {
            return;
        }
        let inside = window.inside;
        self.window = None;
        self.judge(inside, now);
    }

    /// Returns the total time of the window's responses over the sum of their baselines.
    fn slowdown(&mut self) -> Option<f64> {
        let (mut known, mut took, mut would) = (0, 0.0, 0.0);
        for class in &mut self.classes {
            let (count, seconds) = std::mem::take(&mut class.window);
            if let Some(baseline) = class.baseline() {
                known += count;
                took += seconds;
                would += baseline * f64::from(count);
            }
        }
        let (count, seconds) = std::mem::take(&mut self.all.window);
        if 2 * known < count {
            took = seconds;
            would = self.all.baseline()? * f64::from(count);
        }
        (would > 0.0).then(|| took / would)
    }

    /// Begins a new span if the current one is over; returns whether it was.
    fn turn(&mut self, now: Instant) -> bool {
        let ended = now.saturating_duration_since(self.span.began) >= self.span.length;
        if ended {
            let length = (2 * self.span.length).min(MAX_SPAN);
            self.span = Span { began: now, length };
            for class in self.classes.iter_mut().chain([&mut self.all]) {
                (class.before, class.now) = (class.now, None);
            }
        }
        ended
    }

    fn judge(&mut self, inside: usize, now: Instant) {
        let pressed = inside >= self.limit();
        let slowdown = self.slowdown();
        if self.turn(now) && pressed && self.probe_until.is_none() {
            self.probe_until = Some(now + PROBE);
            self.shrank = Some(now);
        }
        // With far fewer requests in flight than the limit, slowness is not caused by the limit.
        if self.probe_until.is_some() || (inside as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = slowdown.map_or(1.0, |slowdown| (TOLERANCE / slowdown).clamp(STEEPEST, 1.0));
        let growth = match (pressed && gradient >= 1.0, self.shrank) {
            (false, _) => 0.0,
            // Until the limit shrinks for the first time it grows fast (TCP's slow start).
            (true, None) => self.limit,
            (true, Some(_)) => self.limit.sqrt(),
        };
        let limit = (self.limit * gradient + growth).clamp(MIN, self.max);
        if limit < self.limit {
            self.shrank = Some(now);
        }
        self.limit = limit;
    }
}

/// Returns the index of a class.
fn at(class: u64) -> usize {
    (class % CLASSES as u64) as usize
}

/// Returns the maximum queue length for rank `rank` of `ranks`: the lowest ranks find the queue full first. The queue
/// holds as many requests as are in flight, so that none waits much longer than one response takes, and a minimum for
/// bursts.
pub(crate) fn max_waiting(limit: usize, rank: usize, ranks: usize) -> usize {
    const SOME: usize = 32;
    let ranks = ranks.max(1);
    (limit.max(SOME) * (rank.min(ranks - 1) + 1) / ranks).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::runtime::clock;

    /// An upstream by the universal scalability law: `n` requests at once have a throughput of n / (1 + a(n-1) +
    /// bn(n-1)) times that of one.
    #[derive(Clone, Copy)]
    struct App {
        alone: f64,
        a: f64,
        b: f64,
    }

    impl App {
        fn throughput(self, n: usize) -> f64 {
            let n = n as f64;
            n / (self.alone * (1.0 + self.a * (n - 1.0) + self.b * n * (n - 1.0)))
        }

        fn best(self) -> f64 {
            (1..1000).map(|n| self.throughput(n)).fold(0.0, f64::max)
        }
    }

    struct Run {
        /// Number of responses a second that arrived within a second.
        good: f64,
        served: [usize; 2],
        asked: [usize; 2],
    }

    /// Runs requests at an even `rate`, a share of them of the higher of two ranks. `capped`: the maximum number in
    /// flight, else the gradient decides.
    fn run(app: App, rate: f64, high_share: f64, seconds: f64, capped: Option<usize>) -> Run {
        run_in_classes(app, rate, high_share, seconds, capped, 1)
    }

    /// Runs the same, with the requests in `classes` classes by turns.
    fn run_in_classes(
        app: App,
        rate: f64,
        high_share: f64,
        seconds: f64,
        capped: Option<usize>,
        classes: u64,
    ) -> Run {
        const STEP: f64 = 0.0005;
        let origin = clock::now();
        let at = |time: f64| origin + Duration::from_secs_f64(time);
        let mut gradient = Gradient::new(4096, origin);
        // Arrival, sending, progress and rank of each request.
        let mut inside: Vec<(f64, f64, f64, usize)> = Vec::new();
        let mut waiting: VecDeque<(f64, usize)> = VecDeque::new();
        let (mut time, mut due, mut high, mut class) = (0.0, 0.0, 0.0, 0u64);
        let mut run = Run { good: 0.0, served: [0; 2], asked: [0; 2] };
        while time < seconds {
            time += STEP;
            let limit = capped.unwrap_or_else(|| gradient.limit());
            due += rate * STEP;
            while due >= 1.0 {
                due -= 1.0;
                high += high_share;
                let rank = usize::from(high >= 1.0);
                high -= rank as f64;
                run.asked[rank] += 1;
                let max = if capped.is_some() { 1024 } else { max_waiting(limit, rank, 2) };
                if inside.len() < limit {
                    inside.push((time, time, 0.0, rank));
                } else if waiting.len() < max {
                    waiting.push_back((time, rank));
                }
            }
            let pace = app.throughput(inside.len().max(1)) / inside.len().max(1) as f64 * STEP;
            let there = inside.len();
            inside.iter_mut().for_each(|request| request.2 += pace);
            let done: Vec<_> = inside.extract_if(.., |request| request.2 >= 1.0).collect();
            for (came, sent, _, rank) in done {
                class += 1;
                gradient.sample(class % classes, at(sent), at(time), there);
                // The first second is for finding the limit.
                if time - came <= 1.0 && time > 1.0 {
                    run.good += 1.0 / (seconds - 1.0);
                }
                run.served[rank] += 1;
            }
            while inside.len() < limit
                && let Some((came, rank)) = waiting.pop_front()
            {
                // A request that waited for a second was refused.
                if time - came < 1.0 {
                    inside.push((came, time, 0.0, rank));
                }
            }
        }
        run
    }

    /// Best throughput with 32 at once; ten times the latency with about a hundred.
    const CONTENDED: App = App { alone: 0.01, a: 0.02, b: 0.98 / 1024.0 };

    #[test]
    fn goodput_stays_where_it_would_collapse() {
        for app in [CONTENDED, App { alone: 0.002, ..CONTENDED }, App { alone: 0.05, a: 0.0, b: 1.0 / 256.0 }]
        {
            let best = app.best();
            let without = run(app, 4.0 * best, 0.0, 30.0, Some(256)).good / best;
            let with = run(app, 4.0 * best, 0.0, 30.0, None).good / best;
            assert!(with >= 0.8, "{with} of the best, {without} without");
            assert!(without < 0.5, "{without}: it would not collapse");
            for classes in [3, 50, 100_000] {
                let with = run_in_classes(app, 4.0 * best, 0.0, 30.0, None, classes).good / best;
                assert!(with >= 0.8, "{with} of the best in {classes} classes");
            }
        }
    }

    #[test]
    fn an_app_that_is_not_overloaded_is_left_alone() {
        let best = CONTENDED.best();
        let run = run(CONTENDED, 0.6 * best, 0.0, 20.0, None);
        assert!(run.served[0] + 100 >= run.asked[0], "{} of {}", run.served[0], run.asked[0]);
        // An upstream that scales without bound gets an ever higher limit.
        let flat = App { alone: 0.01, a: 0.0, b: 0.0 };
        let run = super::tests::run(flat, 50_000.0, 0.0, 10.0, None);
        assert!(run.good > 40_000.0, "{}", run.good);
    }

    #[test]
    fn the_lowest_are_shed_first() {
        let best = CONTENDED.best();
        // Requests at twice the capacity of the upstream; those of the higher tier alone at half of it.
        let run = run(CONTENDED, 2.0 * best, 0.25, 30.0, None);
        let share = |rank: usize| run.served[rank] as f64 / run.asked[rank] as f64;
        assert!(share(1) > 0.97, "{}", share(1));
        assert!(share(0) < 0.45 && share(0) > 0.2, "{}", share(0));
    }

    #[test]
    fn an_app_that_became_slow_for_good_is_believed_after_a_while() {
        let origin = clock::now();
        let mut gradient = Gradient::new(1000, origin);
        let mut time = Duration::ZERO;
        let mut go = |gradient: &mut Gradient, latency: u64, seconds: u64| {
            let end = time + Duration::from_secs(seconds);
            while time < end {
                time += Duration::from_millis(10);
                let sent = origin + time.saturating_sub(Duration::from_millis(latency));
                gradient.sample(0, sent, origin + time, usize::MAX);
            }
        };
        go(&mut gradient, 5, 20);
        let before = gradient.limit();
        go(&mut gradient, 50, 5);
        assert!(gradient.limit() < before / 4, "{} of {before}", gradient.limit());
        go(&mut gradient, 50, 60);
        assert!(gradient.limit() > 50, "{}", gradient.limit());
    }

    #[test]
    fn a_few_slow_responses_are_no_overload() {
        let origin = clock::now();
        let mut gradient = Gradient::new(1000, origin);
        let before = gradient.limit();
        // One request a second: a page of 5 ms, or a report of two seconds.
        for second in 1..300u64 {
            let now = origin + Duration::from_secs(second);
            let took = Duration::from_millis(if second % 3 == 0 { 2000 } else { 5 });
            gradient.sample(0, now - took, now, 1);
        }
        assert_eq!(gradient.limit(), before);
    }

    #[test]
    fn a_flood_of_cheap_requests_does_not_make_dear_ones_look_slow() {
        let origin = clock::now();
        let mut gradient = Gradient::new(1000, origin);
        let dear = Duration::from_millis(200);
        for tick in 1..6000u64 {
            // A hundred expensive responses a second, twenty at once; for 0.3 of 5 seconds a flood of cheap ones.
            let now = origin + Duration::from_millis(10 * tick);
            gradient.sample(1, now - dear.min(now - origin), now, 20);
            if tick % 500 < 30 {
                (0..10).for_each(|_| gradient.sample(2, now - Duration::from_micros(100), now, 20));
            }
        }
        assert!(gradient.limit() >= 20, "{}", gradient.limit());
    }

    #[test]
    fn lines() {
        assert_eq!([0, 1, 2].map(|rank| max_waiting(90, rank, 3)), [30, 60, 90]);
        assert_eq!(max_waiting(90, usize::MAX, 3), 90);
        assert_eq!(max_waiting(2, 0, 0), 32);
    }
}
