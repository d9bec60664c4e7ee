//! Hit ratios of the store on a Zipf trace, beside an ideal LRU of the same size.
//!
//! `cargo bench --bench hit_ratio` prints them. A million requests over 100,000 objects of 1 KiB, at 10,000 requests
//! a second of simulated time, which matters because what is used moves to the front at most once a second.

use lru::LruCache;
use pillion::internals::store::Objects;

const OBJECTS: usize = 100_000;
const REQUESTS: usize = 1_000_000;
const CONTENT: usize = 1024;
const A_SECOND: usize = 10_000;

/// Which object each request is for: rank r is asked for in proportion to r to the power of minus `exponent`.
fn trace(exponent: f64) -> Vec<usize> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut sums = Vec::with_capacity(OBJECTS);
    let mut sum = 0.0;
    for rank in 1..=OBJECTS {
        sum += (rank as f64).powf(-exponent);
        sums.push(sum);
    }
    // Ranks are given to objects at random, so that neighbours have nothing in common.
    let mut objects: Vec<usize> = (0..OBJECTS).collect();
    random.shuffle(&mut objects);
    let mut pick = || {
        let at = random.f64() * sum;
        objects[sums.partition_point(|below| *below < at).min(OBJECTS - 1)]
    };
    (0..REQUESTS).map(|_| pick()).collect()
}

fn store(trace: &[usize], most: usize) -> f64 {
    let store = Objects::new(most, CONTENT);
    let second = |at: usize| u32::try_from(at / A_SECOND).expect("a trace is short") + 1;
    let hits = trace.iter().enumerate().filter(|(at, object)| store.ask(**object, second(*at))).count();
    hits as f64 / trace.len() as f64
}

fn ideal(trace: &[usize], objects: usize) -> f64 {
    let mut lru = LruCache::new(objects.try_into().expect("not none"));
    let mut hits = 0;
    for object in trace {
        if lru.get(object).is_some() {
            hits += 1;
        } else {
            lru.put(*object, ());
        }
    }
    f64::from(hits) / trace.len() as f64
}

fn main() {
    println!("{REQUESTS} requests over {OBJECTS} objects of {CONTENT} bytes");
    println!("| exponent | store | pillion | ideal LRU |\n|---|---|---|---|");
    for exponent in [0.8, 1.0] {
        let trace = trace(exponent);
        for share in [1, 5, 20] {
            let objects = OBJECTS * share / 100;
            let (ours, theirs) = (store(&trace, objects * Objects::weight(CONTENT)), ideal(&trace, objects));
            println!("| {exponent:.1} | {share} % | {:.2} % | {:.2} % |", ours * 100.0, theirs * 100.0);
        }
    }
}
