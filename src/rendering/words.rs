//! Enums whose variants are words of the contract: each word is written once, and the list of all words is always
//! complete.

/// Declares an enum of words: `Variant => "word",`. It gets `ALL`, every variant in the order declared, and `as_str`.
///
/// Users match these words in logs, metrics, fields and documents, so `tests/contract.txt` holds them.
macro_rules! words {
    (
        $(#[$of:meta])*
        $seen:vis enum $name:ident {
            $($(#[$about:meta])* $variant:ident => $word:literal,)+
        }
    ) => {
        $(#[$of])*
        $seen enum $name {
            $($(#[$about])* $variant,)+
        }

        impl $name {
            /// Every variant, in declaration order.
            #[allow(dead_code, reason = "not each list is shown as one")]
            $seen const ALL: [$name; [$($word),+].len()] = [$($name::$variant),+];

            /// Returns the word that users see.
            $seen const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }
    };
}

pub(crate) use words;
