//! Matching of names against patterns with `*`, for lists of names in the configuration.

/// Returns whether `pattern` matches the whole of `name`. `*` stands for any bytes, or none.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    compare(pattern, name, |one, other| one == other)
}

/// Returns the same as [`matches()`], ignoring the case of ASCII letters.
pub(crate) fn matches_without_case(pattern: &[u8], name: &[u8]) -> bool {
    compare(pattern, name, |one, other| one.eq_ignore_ascii_case(&other))
}

fn compare(pattern: &[u8], name: &[u8], same: impl Fn(u8, u8) -> bool) -> bool {
    let (mut at, mut from) = (0, 0);
    // Position of the last star, and how far into the name it has matched.
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if same(*byte, name[from]) => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((stood, taken)) => {
                    star = Some((stood, taken + 1));
                    (at, from) = (stood + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Returns whether some name matches both patterns, ignoring the case of ASCII letters. The time is proportional to the
/// product of the lengths, which is fine for patterns of the configuration.
pub(crate) fn overlap(one: &[u8], other: &[u8]) -> bool {
    // For each suffix of `other`: whether it and the suffix of `one` examined last have a matching name in common.
    let mut below = vec![false; other.len() + 1];
    for i in (0..=one.len()).rev() {
        let mut row = vec![false; other.len() + 1];
        for j in (0..=other.len()).rev() {
            row[j] = match (one.get(i), other.get(j)) {
                (None, None) => true,
                (Some(b'*'), next) => below[j] || (next.is_some() && row[j + 1]),
                (next, Some(b'*')) => row[j + 1] || (next.is_some() && below[j]),
                (Some(a), Some(b)) => a.eq_ignore_ascii_case(b) && below[j + 1],
                (None, Some(_)) | (Some(_), None) => false,
            };
        }
        below = row;
    }
    below[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn n1_6_patterns_that_take_a_name_in_common() {
        for (one, other, wanted) in [
            ("", "", true),
            ("*", "", true),
            ("a", "", false),
            ("a", "A", true),
            ("a*", "*b", true),
            ("my_*", "*_session", true),
            ("foo_b*", "foo_*", true),
            ("*_bc", "foo_*", true),
            ("foo_ab", "foo_*", true),
            ("_ga*", "connect.sid", false),
            ("a*c", "b*c", false),
            ("*a*b", "b*a", false),
            ("**", "x", true),
        ] {
            assert_eq!(overlap(one.as_bytes(), other.as_bytes()), wanted, "{one} {other}");
            assert_eq!(overlap(other.as_bytes(), one.as_bytes()), wanted, "{other} {one}");
        }
    }

    proptest! {
        #[test]
        fn n1_6_a_name_that_two_patterns_take_is_an_overlap(
            one in "[ab*]{0,5}",
            other in "[ab*]{0,5}",
        ) {
            // Longer names than both patterns together need no test, because a star can always match less.
            let names = (0..=10u32).flat_map(|length| {
                (0..1u32 << length).map(move |bits| -> Vec<u8> {
                    (0..length).map(|at| if bits >> at & 1 == 0 { b'a' } else { b'b' }).collect()
                })
            });
            let both = |name: &[u8]| matches(one.as_bytes(), name) && matches(other.as_bytes(), name);
            let found = names.into_iter().any(|name| both(&name));
            prop_assert_eq!(overlap(one.as_bytes(), other.as_bytes()), found);
        }
    }

    #[test]
    fn stars() {
        for (pattern, name, wanted) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abcbc", true),
            ("a*b*c", "axxbxc", true),
            ("a*b*c", "axxcxb", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), wanted, "{pattern} {name}");
            let upper = name.to_ascii_uppercase();
            assert_eq!(
                matches_without_case(pattern.as_bytes(), upper.as_bytes()),
                wanted,
                "{pattern} {upper}"
            );
        }
        assert!(!matches(b"a*", b"Ab"));
    }
}
