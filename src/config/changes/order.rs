//! Finds in two orders what is in both, and what stands at another place.

use std::collections::{HashMap, VecDeque};

/// Pairs the places of what is in both lists, in the order of the second. Of several that are equal, the first is paired
/// with the first.
pub(super) fn pairs<T: std::hash::Hash + Eq>(old: &[T], new: &[T]) -> Vec<(usize, usize)> {
    let mut places: HashMap<&T, VecDeque<usize>> = HashMap::new();
    for (at, item) in old.iter().enumerate() {
        places.entry(item).or_default().push_back(at);
    }
    let pair = |(at, item)| Some((places.get_mut(item)?.pop_front()?, at));
    new.iter().enumerate().filter_map(pair).collect()
}

/// Returns the pairs that have to move so that the first order becomes the second: as few as possible.
pub(super) fn moved(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // The longest row of pairs whose old places increase stays (patience sorting).
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (at, (old, _)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].0 < *old);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        if length == ends.len() {
            ends.push(at);
        } else {
            ends[length] = at;
        }
    }
    let mut stays = vec![false; pairs.len()];
    let mut last = ends.last().copied();
    while let Some(at) = last {
        stays[at] = true;
        last = before[at];
    }
    pairs.iter().zip(stays).filter(|(_, stays)| !stays).map(|(pair, _)| *pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_both_is_paired_once_and_the_fewest_move() {
        for (old, new, paired, moves) in [
            ("abc", "abc", 3, 0),
            ("abc", "cab", 3, 1),
            ("abcd", "badc", 4, 2),
            ("abc", "xbz", 1, 0),
            ("aab", "aba", 3, 1),
            ("a", "aa", 1, 0),
            ("", "ab", 0, 0),
            ("abcde", "edcba", 5, 4),
        ] {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            let pairs = pairs(&letters(old), &letters(new));
            assert_eq!((pairs.len(), moved(&pairs).len()), (paired, moves), "{old} {new}");
        }
    }
}
