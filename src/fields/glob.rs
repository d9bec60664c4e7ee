//! Names with `*` in them, for lists of names in the configuration.

/// Whether `pattern`, in which `*` stands for any bytes, also none, takes the whole of `name`.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    compare(pattern, name, |one, other| one == other)
}

/// The same without regard to the case of ASCII letters.
pub fn matches_without_case(pattern: &[u8], name: &[u8]) -> bool {
    compare(pattern, name, |one, other| one.eq_ignore_ascii_case(&other))
}

fn compare(pattern: &[u8], name: &[u8], same: impl Fn(u8, u8) -> bool) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where the last star stands, and how much it has taken.
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

#[cfg(test)]
mod tests {
    use super::*;

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
