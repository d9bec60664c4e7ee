//! The file for Pillion, section by section.

use std::fmt::{Display, Write as _};

use super::values::{string, strings};

/// A key and its value in TOML.
pub(super) type Line = (String, String);

/// A converted configuration.
pub(crate) struct Converted {
    pub text: String,
    /// Places where nobody may come any more, because a guard has no equivalent.
    pub closed: Vec<String>,
    /// Guards that are lost: what they keep out is let through.
    pub open: Vec<String>,
}

/// An upstream.
#[derive(Clone, Debug, Default)]
pub(super) struct Upstream {
    pub name: String,
    /// URLs, the first of which is `url`.
    pub urls: Vec<String>,
    pub lines: Vec<Line>,
}

/// A route, with the comments above it.
#[derive(Clone, Debug, Default)]
pub(super) struct Route {
    pub comments: Vec<String>,
    pub pattern: String,
    pub lines: Vec<Line>,
}

/// The limit of a zone.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    pub key: Option<&'static str>,
    pub rate: String,
}

/// The file that is being made.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub server: Vec<Line>,
    pub tls_listen: Vec<String>,
    /// Certificates with their keys.
    pub certificates: Vec<(String, String)>,
    pub upstreams: Vec<Upstream>,
    pub routes: Vec<Route>,
    pub compression: Vec<Line>,
    pub cache: Vec<Line>,
    pub identity: Vec<Line>,
    /// Where limits count a caller: `rate_limit.key`.
    pub limit_key: Option<&'static str>,
    /// Limits of the one tier: name and value.
    pub limits: Vec<Line>,
    /// The file of the CA by which clients are checked.
    pub client_ca: Option<String>,
    /// Directives without an equivalent.
    pub notes: Vec<String>,
    /// Places where nobody may come any more, because a guard has no equivalent.
    pub closed: Vec<String>,
    /// Guards that are lost.
    pub open: Vec<String>,
}

impl Output {
    /// Notes a directive that has no equivalent, or needs none.
    pub(super) fn note(&mut self, place: &impl Display, directive: &str, why: &str) {
        let note = note(place, directive, why);
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Writes the file; `from` names the command.
    pub(super) fn text(&self, from: &str) -> String {
        let mut text = format!(
            "# Made by `pillion convert {from}`. Read the comments, then run `pillion check` and `pillion explain`.\n"
        );
        section(&mut text, "[server]", &self.server);
        if !self.tls_listen.is_empty() {
            let mut lines = vec![("listen".to_owned(), strings(&self.tls_listen))];
            let pairs = self.certificates.iter();
            let pairs: Vec<String> = pairs
                .map(|(cert, key)| format!("{{ cert = {}, key = {} }}", string(cert), string(key)))
                .collect();
            lines.push(("certificates".to_owned(), format!("[{}]", pairs.join(", "))));
            lines.extend(self.client_ca.iter().map(|file| ("client_ca".to_owned(), string(file))));
            section(&mut text, "[server.tls]", &lines);
        }
        for (at, upstream) in self.upstreams.iter().enumerate() {
            let name = match at {
                0 => "[upstream]".to_owned(),
                _ => format!("[upstreams.{}]", upstream.name),
            };
            let mut lines = Vec::new();
            if let Some((url, replicas)) = upstream.urls.split_first() {
                lines.push(("url".to_owned(), string(url)));
                if !replicas.is_empty() {
                    lines.push(("replicas".to_owned(), strings(replicas)));
                    // nginx gives every address requests of all methods.
                    lines.push(("writes_to".to_owned(), string("any")));
                }
            }
            lines.extend(upstream.lines.iter().cloned());
            section(&mut text, &name, &lines);
        }
        section(&mut text, "[compression]", &self.compression);
        section(&mut text, "[cache]", &self.cache);
        section(&mut text, "[identity]", &self.identity);
        if !self.limits.is_empty() {
            let key = self.limit_key.unwrap_or("ip");
            section(&mut text, "[rate_limit]", &[("key".to_owned(), format!("[\"{key}\"]"))]);
            section(&mut text, "[rate_limit.tiers.free.limits]", &self.limits);
        }
        for route in &self.routes {
            text.push('\n');
            for comment in &route.comments {
                let _ = writeln!(text, "# {comment}");
            }
            let _ = writeln!(text, "[[routes]]\nmatch = {}", string(&route.pattern));
            for (key, value) in &route.lines {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        if !self.notes.is_empty() {
            text.push_str("\n# Not converted:\n");
            for note in &self.notes {
                let _ = writeln!(text, "# {note}");
            }
        }
        text
    }
}

/// Returns the comment on a directive without an equivalent.
pub(super) fn note(place: &impl Display, directive: &str, why: &str) -> String {
    let directive = directive.split_whitespace().collect::<Vec<_>>().join(" ");
    match why {
        "" => format!("{place}: {directive}"),
        why => format!("{place}: {directive}: {why}"),
    }
}

fn section(text: &mut String, name: &str, lines: &[Line]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{name}");
    for (key, value) in lines {
        let _ = writeln!(text, "{key} = {value}");
    }
}
