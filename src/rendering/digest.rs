//! A number for a set of named values. Each value stands with its name and its length, so that no two sets read alike, and
//! a version byte tells one meaning of the names from the next. Other replicas compute the same numbers.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Collects the members of one digest.
#[derive(Debug)]
pub(crate) struct Digest(Vec<u8>);

impl Digest {
    /// Starts a digest of this kind. `version` changes with the meaning of its members.
    pub(crate) fn new(kind: &str, version: u8) -> Digest {
        let mut digest = Digest(vec![version]);
        digest.part(kind.as_bytes());
        digest
    }

    fn part(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn member(&mut self, name: &str, values: u32) {
        self.part(name.as_bytes());
        self.0.extend_from_slice(&values.to_be_bytes());
    }

    /// Adds the values of one member, in their order. An absent value is a member without values.
    pub(crate) fn list<T: AsRef<[u8]>>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        let values: Vec<T> = values.into_iter().collect();
        self.member(name, u32::try_from(values.len()).unwrap_or(u32::MAX));
        values.iter().for_each(|value| self.part(value.as_ref()));
    }

    /// Adds a member that is a text.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.list(name, [value]);
    }

    /// Adds a member that is a number; a duration is one in nanoseconds.
    pub(crate) fn number(&mut self, name: &str, value: impl Into<u128>) {
        self.list(name, [value.into().to_be_bytes()]);
    }

    /// Adds a member that is a number or absent.
    pub(crate) fn maybe_number(&mut self, name: &str, value: Option<impl Into<u128>>) {
        self.list(name, value.map(|value| value.into().to_be_bytes()));
    }

    /// Returns the digest in 64 bits.
    pub(crate) fn finish(&self) -> u64 {
        xxh3_64(&self.0)
    }

    /// Returns the digest in 128 bits.
    pub(crate) fn finish_wide(&self) -> u128 {
        xxh3_128(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other processes know these numbers: a change of them needs a new version.
    #[test]
    fn golden_values() {
        let mut digest = Digest::new("test", 1);
        assert_eq!(digest.finish(), GOLDEN[0]);
        digest.text("name", "value");
        digest.number("count", 7_u64);
        digest.list("names", ["a", "b"]);
        digest.maybe_number("absent", None::<u64>);
        assert_eq!(digest.finish(), GOLDEN[1]);
    }

    const GOLDEN: [u64; 2] = [13_081_274_413_186_804_327, 12_090_445_064_276_634_297];

    #[test]
    fn values_that_look_alike_differ() {
        let of = |add: &dyn Fn(&mut Digest)| {
            let mut digest = Digest::new("test", 1);
            add(&mut digest);
            digest.finish()
        };
        let all = [
            of(&|_| ()),
            of(&|digest| digest.list("a", ["bc"])),
            of(&|digest| digest.list("a", ["b", "c"])),
            of(&|digest| digest.list("ab", ["c"])),
            of(&|digest| digest.list("a", ["b", "c", ""])),
            of(&|digest| digest.list("a", Vec::<&str>::new())),
            of(&|digest| {
                digest.text("a", "b");
                digest.text("c", "");
            }),
            of(&|digest| digest.maybe_number("a", None::<u64>)),
            of(&|digest| digest.maybe_number("a", Some(0_u64))),
        ];
        for (at, one) in all.iter().enumerate() {
            let same = all.iter().enumerate().filter(|(other, number)| *other != at && *number == one);
            // A list without values and an absent number are both a member without values.
            assert!(same.count() <= 1, "{at}");
        }
        assert_eq!(all[5], all[7]);
        assert_ne!(Digest::new("test", 1).finish(), Digest::new("test", 2).finish());
    }
}
