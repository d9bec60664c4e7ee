//! An index of names with a prefix or a suffix: `@{scope}`, `{file}.css`. A lookup tries the lengths of the prefixes and
//! suffixes that occur and fit, so its time depends on the length of the segment and not on the number of names.

use std::collections::HashMap;

use super::segment::is_between;

/// Values by the prefix and the suffix of a segment.
#[derive(Debug)]
pub(super) struct Affixed<T>(ByLength<ByLength<T>>);

/// Values by a text, with the lengths of all texts in increasing order.
#[derive(Debug)]
struct ByLength<T> {
    lengths: Vec<usize>,
    values: HashMap<Box<str>, T>,
}

impl<T> Default for ByLength<T> {
    fn default() -> ByLength<T> {
        ByLength { lengths: Vec::new(), values: HashMap::new() }
    }
}

impl<T> Default for Affixed<T> {
    fn default() -> Affixed<T> {
        Affixed(ByLength::default())
    }
}

impl<T: Default> ByLength<T> {
    fn entry(&mut self, text: &str) -> &mut T {
        if let Err(at) = self.lengths.binary_search(&text.len()) {
            self.lengths.insert(at, text.len());
        }
        self.values.entry(text.into()).or_default()
    }
}

impl<T: Default> Affixed<T> {
    /// Returns the value of a prefix and a suffix, which is made if it is missing.
    pub(super) fn entry(&mut self, prefix: &str, suffix: &str) -> &mut T {
        self.0.entry(prefix).entry(suffix)
    }
}

impl<T> Affixed<T> {
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lengths.is_empty()
    }

    /// Calls `found` with the value of each prefix and suffix that the segment has around a name. Returns the number of
    /// texts that were looked up.
    pub(super) fn find(&self, segment: &str, found: &mut dyn FnMut(&T)) -> usize {
        let mut count = 0;
        for length in self.0.lengths.iter().take_while(|length| **length < segment.len()) {
            count += 1;
            let Some((prefix, rest)) = segment.split_at_checked(*length) else { continue };
            let Some(suffixes) = self.0.values.get(prefix) else { continue };
            for length in suffixes.lengths.iter().take_while(|length| **length < rest.len()) {
                count += 1;
                let Some((_, suffix)) = rest.split_at_checked(rest.len() - length) else { continue };
                if let Some(value) = suffixes.values.get(suffix).filter(|_| is_between(rest, "", suffix)) {
                    found(value);
                }
            }
        }
        count
    }
}
