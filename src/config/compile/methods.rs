//! Methods that patterns name: which of them people mean, and which are slips.

use http::Method;

use super::Compiler;
use crate::config::table_reader::{Spanned, nearest};

/// IANA's registry of methods (RFC 9110 16.1.1), with QUERY (RFC 10008).
const REGISTERED: [&str; 40] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// Methods in use that nobody registered.
const IN_USE: [&str; 9] =
    ["BAN", "LIST", "M-SEARCH", "NOTIFY", "PURGE", "REFRESH", "SUBSCRIBE", "UNSUBSCRIBE", "VIEW"];

/// Maximum edits by which a name is taken for a slip of a registered method.
const SLIPS: usize = 2;

impl Compiler<'_> {
    pub(super) fn check_methods(&mut self, methods: &[Method], written: &Spanned<String>) {
        for method in methods {
            let name = method.as_str();
            if *method == Method::CONNECT {
                self.fail(written.span.as_ref(), "CONNECT is always rejected", "remove it from match");
            } else if matches!(name, "ANY" | "ALL") {
                self.fail(
                    written.span.as_ref(),
                    format!("{method} is not a method"),
                    "write * for any method",
                );
            } else if let Some(meant) = meant(name) {
                let help = format!("did you mean {meant}?");
                self.fail(written.span.as_ref(), format!("{method} is not a registered method"), help);
            } else if !REGISTERED.contains(&name) && !IN_USE.contains(&name) {
                let near = nearest(name, &REGISTERED)
                    .map_or_else(String::new, |near| format!("; did you mean {near}?"));
                let message = format!("{:?}: {method} is not a method in common use{near}", written.value);
                self.warn(written.span.as_ref(), message, "correct it, unless clients do send it");
            }
        }
    }
}

/// The registered method that was most likely meant by one that nobody uses.
fn meant(name: &str) -> Option<&'static str> {
    if REGISTERED.contains(&name) || IN_USE.contains(&name) {
        return None;
    }
    let near = REGISTERED.iter().map(|known| (strsim::damerau_levenshtein(name, known), *known)).min()?;
    (near.0 <= SLIPS).then_some(near.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n2_7_slips() {
        for (name, wanted) in [
            ("GTE", Some("GET")),
            ("PSOT", Some("POST")),
            ("DELTE", Some("DELETE")),
            ("PACTH", Some("PATCH")),
            ("OPTION", Some("OPTIONS")),
            ("GET", None),
            ("PURGE", None),
            ("BAN", None),
            ("FROBNICATE", None),
        ] {
            assert_eq!(meant(name), wanted, "{name}");
        }
    }
}
