//! A direct-mapped cache of recently rendered texts, for one worker. Each text has exactly one place, given by a hash
//! of its parts.

use std::ptr;

const PLACES: usize = 64;
/// Number of bits of a place's index.
const BITS: u32 = PLACES.ilog2();

/// Rendered texts, each with the values it was rendered from.
#[derive(Debug)]
pub(crate) struct DirectMappedCache<T>([Option<Box<T>>; PLACES]);

impl<T> DirectMappedCache<T> {
    pub(crate) const NONE: DirectMappedCache<T> = DirectMappedCache([const { None }; PLACES]);

    /// Returns the entry for which `is` holds. Otherwise renders one with `new`, in the place of the previous entry.
    /// `parts` are those inputs in which the entries of one service differ most.
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
    // The golden ratio spreads differences in the low bits over the highest bits, which are taken (Knuth, TAOCP 3,
    // 6.4).
    let mixed = parts.iter().fold(0, |mixed: u64, part| (mixed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (mixed >> (u64::BITS - BITS)) as usize
}

/// Returns the address of a text, for use as a part.
#[inline(always)]
pub(crate) fn stands(text: &str) -> u64 {
    text.as_ptr().addr() as u64
}

/// Returns whether both are `None` or the same static text, without reading it. Equal texts at different addresses may
/// give `false`.
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
