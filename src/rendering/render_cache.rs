//! What a worker writes again and again, put together once: texts it had lately, each at the one place that is there for
//! those of its kind.

use std::ptr;

const PLACES: usize = 64;
/// The bits of a number that names a place.
const BITS: u32 = PLACES.ilog2();

/// Texts, each with what it was put together from.
#[derive(Debug)]
pub(crate) struct DirectMappedCache<T>([Option<Box<T>>; PLACES]);

impl<T> DirectMappedCache<T> {
    pub(crate) const NONE: DirectMappedCache<T> = DirectMappedCache([const { None }; PLACES]);

    /// The one that `is` what is looked for, or what `new` puts together, in place of another. `parts` are some of what
    /// it is put together from: those in which the ones of a service differ most.
    #[inline(always)]
    pub(crate) fn get<const PARTS: usize>(
        &mut self,
        parts: [u64; PARTS],
        is: impl FnOnce(&T) -> bool,
        new: impl FnOnce() -> Box<T>,
    ) -> &T {
        let place = &mut self.0[place(parts)];
        if place.as_ref().is_some_and(|known| !is(known)) {
            *place = None;
        }
        place.get_or_insert_with(new)
    }
}

#[inline(always)]
fn place<const PARTS: usize>(parts: [u64; PARTS]) -> usize {
    // The golden ratio spreads what differs in its lower bits only; the highest are taken (Knuth, TAOCP 3, 6.4).
    let mixed = parts.iter().fold(0, |mixed: u64, part| (mixed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (mixed >> (u64::BITS - BITS)) as usize
}

/// Where a text stands, as a part.
#[inline(always)]
pub(crate) fn stands(text: &str) -> u64 {
    text.as_ptr().addr() as u64
}

/// Whether both are nothing, or stand in the same place for good, which can be said without reading either. Of texts
/// that are equal it may be not.
#[inline(always)]
pub(crate) fn same(one: Option<&'static str>, other: Option<&'static str>) -> bool {
    one.map(ptr::from_ref) == other.map(ptr::from_ref)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_what_was_looked_for() {
        let mut all = DirectMappedCache::NONE;
        let (mut made, count) = (0, 3 * PLACES as u64);
        for _ in 0..2 {
            for number in 0..count {
                let new = || {
                    made += 1;
                    Box::new(number)
                };
                assert_eq!(*all.get([number, 7], |known| *known == number, new), number);
                assert_eq!(*all.get([number, 7], |known| *known == number, || unreachable!()), number);
            }
        }
        assert!(all.0.iter().all(Option::is_some), "every place is used");
        assert!(made > count, "some had to make room");
    }
}
