//! Directives that say who may come. One that has no equivalent never becomes an open route: the route is denied.

use super::read::Directive;
use crate::cli::convert::output::note;

/// Directives that begin like one that checks a client, and only set something for it.
const PARAMETERS: &[&str] =
    &["_file", "_set", "_key_request", "_leeway", "_type", "_name", "_servers", "_delay"];

/// The decision of the guards of a block about clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Anybody may come.
    Open,
    /// Clients with these addresses may.
    Allow(Vec<String>),
    /// Nobody may: with the status of nginx, and comments on the guards that have no equivalent.
    Closed(&'static str, Vec<String>),
}

impl Verdict {
    /// Returns who may come where both hold.
    pub(super) fn and(self, other: Verdict) -> Verdict {
        match (self, other) {
            (Verdict::Open, other) => other,
            (this, Verdict::Open) => this,
            (Verdict::Closed(status, mut comments), Verdict::Closed(_, more)) => {
                comments.extend(more);
                Verdict::Closed(status, comments)
            }
            (Verdict::Allow(one), Verdict::Allow(other)) if one == other => Verdict::Allow(one),
            (closed @ Verdict::Closed(..), _) | (_, closed @ Verdict::Closed(..)) => closed,
            (Verdict::Allow(_), Verdict::Allow(_)) => {
                Verdict::Closed("403", vec!["two lists of addresses, which both hold".to_owned()])
            }
        }
    }
}

/// The decision of `allow` and `deny`.
enum ByAddress {
    /// Nothing, about clients other than these.
    Nothing(Vec<String>),
    /// Anybody may come.
    All,
    /// Only these may.
    Only(Vec<String>),
    /// Nobody may: `deny all`, or what has no equivalent, with comments.
    Nobody(Vec<String>),
}

/// The guards of a block; blocks inside inherit them.
#[derive(Clone, Debug, Default)]
pub(super) struct Guards {
    /// `allow` and `deny`, in their order: whether it allows, whom, and the directive.
    access: Vec<(bool, String, String)>,
    /// Modules that decide about clients, each by its directive's name and a comment.
    checks: Vec<(String, String)>,
    /// Comments on conditions that refuse requests.
    conditions: Vec<String>,
    /// Whether one of `access` and `checks` is enough (`satisfy any`).
    any: bool,
    /// Whether the location is for redirects inside of nginx.
    internal: bool,
}

impl Guards {
    /// Takes the guards of a block: they replace the inherited ones of their kind. Conditions are added to the inherited
    /// ones, because those of a server hold for all its locations.
    pub(super) fn take(&mut self, directives: &[Directive]) {
        self.internal = directives.iter().any(|directive| directive.name == "internal");
        if directives.iter().any(|directive| matches!(directive.name.as_str(), "allow" | "deny")) {
            self.access.clear();
        }
        for directive in directives {
            let (name, first) = (directive.name.as_str(), directive.arg(0));
            let comment = note(&directive.place, &directive.shown(), "");
            match name {
                "allow" | "deny" => self.access.push((name == "allow", first.to_owned(), comment)),
                "satisfy" => self.any = first == "any",
                _ if is_check(name) => {
                    self.checks.retain(|(known, _)| known != name);
                    if first != "off" {
                        self.checks.push((name.to_owned(), comment));
                    }
                }
                "if" if refuses(directive) => self.conditions.push(comment),
                _ => {}
            }
        }
    }

    /// Adds a guard of a server, which no location lifts.
    pub(super) fn add(&mut self, comment: String) {
        self.conditions.push(comment);
    }

    /// Returns whether [`Guards::take`] takes a directive.
    pub(super) fn has(directive: &Directive) -> bool {
        let name = directive.name.as_str();
        matches!(name, "allow" | "deny" | "satisfy" | "internal")
            || is_check(name)
            || (name == "if" && refuses(directive))
    }

    /// Returns who may come.
    pub(super) fn verdict(&self) -> Verdict {
        if self.internal {
            return Verdict::Closed("404", Vec::new());
        }
        let checks = || self.checks.iter().map(|(_, comment)| comment.clone());
        let closed = |more: Vec<String>| {
            let comments = self.conditions.iter().cloned().chain(checks()).chain(more);
            Verdict::Closed("403", comments.collect())
        };
        let by_address = self.by_address();
        if let ByAddress::Nobody(comments) = by_address {
            return closed(comments);
        }
        // Conditions come before all else in nginx.
        if !self.conditions.is_empty() || (!self.any && !self.checks.is_empty()) {
            return closed(Vec::new());
        }
        match by_address {
            ByAddress::Only(who) => Verdict::Allow(who),
            ByAddress::All => Verdict::Open,
            _ if self.checks.is_empty() => Verdict::Open,
            // One is enough: those with such an address need no password, and nobody else comes.
            ByAddress::Nothing(who) if !who.is_empty() => Verdict::Allow(who),
            _ => closed(Vec::new()),
        }
    }

    /// Comments on checks that others than those with an allowed address could pass.
    pub(super) fn lost(&self) -> Vec<String> {
        match self.verdict() {
            Verdict::Allow(_) => self.checks.iter().map(|(_, comment)| comment.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// The first entry that fits a client decides (ngx_http_access_module).
    fn by_address(&self) -> ByAddress {
        let mut allowed = Vec::new();
        for (at, (allows, who, _)) in self.access.iter().enumerate() {
            match (allows, who.as_str()) {
                // No client of Pillion has such an address.
                (_, "unix:") => {}
                (false, "all") if allowed.is_empty() => return ByAddress::Nobody(Vec::new()),
                (false, "all") => return ByAddress::Only(allowed),
                // All may come who were not denied before.
                (true, "all") => return ByAddress::All,
                (true, who) => allowed.push(who.to_owned()),
                (false, _) => {
                    let denied = self.access[at..].iter().filter(|(allows, ..)| !allows);
                    return ByAddress::Nobody(denied.map(|(_, _, comment)| comment.clone()).collect());
                }
            }
        }
        ByAddress::Nothing(allowed)
    }
}

/// Whether a directive lets a module decide about clients.
fn is_check(name: &str) -> bool {
    let is_parameter = || PARAMETERS.iter().any(|end| name.ends_with(end));
    (name.starts_with("auth_") && !is_parameter())
        || matches!(name, "js_access")
        || (name.starts_with("access_by_lua") || name.starts_with("rewrite_by_lua"))
}

/// Whether an `if` refuses those requests that it is about.
fn refuses(condition: &Directive) -> bool {
    condition.inner().iter().any(|inner| match inner.name.as_str() {
        "return" => inner.arg(0).parse().is_ok_and(|status: u16| status >= 400),
        "deny" => true,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::convert::nginx::read;

    fn verdict(blocks: &[&str]) -> Verdict {
        let mut guards = Guards::default();
        for block in blocks {
            let folder = std::env::temp_dir().join(format!("pillion-guards-{}", fastrand::u64(..)));
            std::fs::write(&folder, block).unwrap();
            guards.take(&read::file(&folder).unwrap());
            std::fs::remove_file(&folder).unwrap();
        }
        guards.verdict()
    }

    #[test]
    fn the_first_entry_decides_and_a_block_replaces_what_it_inherits() {
        let allow = |who: &[&str]| Verdict::Allow(who.iter().map(|&who| who.to_owned()).collect());
        let closed = |verdict: &Verdict, count: usize| matches!(verdict, Verdict::Closed("403", all) if all.len() == count);
        for (blocks, wanted) in [
            (&["allow 10.0.0.0/8; allow ::1; deny all;"][..], allow(&["10.0.0.0/8", "::1"])),
            (&["allow 10.0.0.0/8;"], Verdict::Open),
            (&["allow all; deny all;"], Verdict::Open),
            (&["deny all;", "allow all;"], Verdict::Open),
            (&["deny all;", "allow 10.0.0.1; deny all;"], allow(&["10.0.0.1"])),
            (&["auth_basic x;", "auth_basic off;"], Verdict::Open),
            (&["auth_basic_user_file x; auth_request_set $a b;"], Verdict::Open),
            (&["satisfy any; allow 10.0.0.1; deny all; auth_basic x;"], allow(&["10.0.0.1"])),
            (&["satisfy any; allow all; auth_basic x;"], Verdict::Open),
            (&["satisfy any; allow 10.0.0.1; auth_basic x;"], allow(&["10.0.0.1"])),
            (&["internal;"], Verdict::Closed("404", Vec::new())),
            (&["internal;", ""], Verdict::Open),
            (&["if ($scheme = http) { return 301 https://$host$request_uri; }"], Verdict::Open),
        ] {
            assert_eq!(verdict(blocks), wanted, "{blocks:?}");
        }
        for (blocks, comments) in [
            (&["deny all;"][..], 0),
            (&["deny all;", ""], 0),
            (&["deny all; allow 10.0.0.1;"], 0),
            (&["deny 10.0.0.1; allow 10.0.0.0/8; deny all;"], 2),
            (&["deny 10.0.0.1;"], 1),
            (&["auth_basic x;"], 1),
            (&["satisfy any; auth_basic x;"], 1),
            (&["satisfy any; allow all; if ($a) { return 403; }"], 1),
            (&["auth_request /auth;", "proxy_pass http://a;"], 1),
            (&["allow 10.0.0.1; deny all; auth_jwt x;"], 1),
            (&["if ($a) { return 403; }", "if ($b) { return 444; }"], 2),
        ] {
            let verdict = verdict(blocks);
            assert!(closed(&verdict, comments), "{blocks:?}: {verdict:?}");
        }
    }
}
