//! Request fields for which apps give a fragment of a page.

use http::HeaderName;

/// Returns whether upstreams use this field to select a fragment or other data at the same URL: browser libraries send
/// it, and many upstreams omit it from Vary.
pub(crate) fn is_fragment(name: &HeaderName) -> bool {
    const EXACT: [&str; 20] = [
        "x-requested-with",
        "turbo-frame",
        "rsc",
        "next-url",
        "next-action",
        "x-nextjs-data",
        "x-barba",
        "x-alpine-request",
        "x-alpine-target",
        "datastar-request",
        "faces-request",
        "turbolinks-referrer",
        "wicket-ajax",
        "x-ajax",
        "x-microsoftajax",
        "x-splade",
        "x-fragment",
        "x-partial",
        "x-spf-referer",
        "x-spf-request",
    ];
    const PREFIXES: [&str; 7] =
        ["hx-", "x-inertia", "x-pjax", "x-livewire", "x-up-", "x-swup", "next-router-"];
    let name = name.as_str();
    // Rules out nearly every name before the slower comparisons.
    let may_be = matches!(
        name.as_bytes(),
        [b'x', ..]
            | [b'h', b'x', ..]
            | [b't', b'u', ..]
            | [b'r', b's', ..]
            | [b'n', b'e', ..]
            | [b'd', b'a', b't', b'a', ..]
            | [b'f', b'a', ..]
            | [b'w', b'i', ..]
    );
    may_be && (EXACT.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n2_4_fields_of_fragments() {
        for name in [
            "x-requested-with",
            "hx-request",
            "hx-target",
            "turbo-frame",
            "x-inertia",
            "x-inertia-partial-data",
        ] {
            assert!(is_fragment(&HeaderName::from_static(name)), "{name}");
        }
        for name in [
            "x-pjax",
            "x-pjax-container",
            "x-livewire",
            "x-up-target",
            "rsc",
            "next-router-prefetch",
            "next-url",
            "x-swup",
            "x-fragment",
            "x-partial",
            "x-spf-referer",
        ] {
            assert!(is_fragment(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["host", "accept", "x-request-id", "x-upstream", "next", "hx", "referer", "traceparent"] {
            assert!(!is_fragment(&HeaderName::from_static(name)), "{name}");
        }
    }
}
