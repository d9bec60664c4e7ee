//! One vocabulary: identifiers and comments use the field's words, and behaviors stand where they are looked for first.

use super::source::{self, Source, all};

/// Identifiers of an earlier vocabulary, and the word that replaced each.
fn banned(word: &str, is_function: bool, room: &str) -> Option<&'static str> {
    let lower = word.to_ascii_lowercase();
    let part = |wanted: &str| lower.split('_').any(|part| part == wanted);
    let begins = |prefix: &str| lower.starts_with(prefix);
    if lower.contains("answer") {
        Some("response")
    } else if ["most", "least", "longest"].contains(&&*lower)
        || begins("most_")
        || (begins("least_") && lower != "least_requests")
        || begins("longest_")
    {
        Some("max or min")
    } else if part("patience") {
        Some("timeout")
    } else if lower == "enough" {
        Some("limit")
    } else if is_function && word == "of" {
        Some("new, from or parse")
    } else if begins("app_") && room != "app" && lower != "app_only" {
        Some("upstream")
    } else {
        None
    }
}

#[test]
fn identifiers_are_the_words_of_the_field() {
    let mut found = Vec::new();
    for source in all() {
        let mut before = "";
        for (line, word) in source::words(&source.code) {
            // `n3_4_...` are the names of tests.
            let is_test = word.starts_with('n') && word.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
            if !is_test && let Some(instead) = banned(word, before == "fn", source.room()) {
                found.push(format!("{}:{line}: {word}: write {instead}", source.path.display()));
            }
            before = word;
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

const OPENERS: &[&str] = &[
    "What ",
    "Who ",
    "Whoever ",
    "Whose ",
    "Whom ",
    "So many ",
    "So much ",
    "So long ",
    "For so long ",
    "As many ",
];

/// The text of a comment line.
fn comment(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("//")?;
    Some(rest.trim_start_matches(['/', '!']).trim())
}

/// The comment lines that open a sentence.
fn openings(source: &Source) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let opening = |at: usize| {
        let text = comment(lines[at])?;
        let before = at.checked_sub(1).and_then(|before| comment(lines[before])).unwrap_or_default();
        (before.is_empty() || before.ends_with(['.', ':', '!', '?'])).then_some((at + 1, text))
    };
    (0..lines.len()).filter_map(opening).collect()
}

/// At most one comment line in 200 opens with such a word.
#[test]
fn comments_name_their_subject() {
    let (mut lines, mut found) = (0, Vec::new());
    for source in all() {
        lines += source.text.lines().filter(|line| comment(line).is_some()).count();
        for (line, text) in openings(&source) {
            if OPENERS.iter().any(|opener| text.starts_with(opener)) {
                found.push(format!("{}:{line}: {text}", source.path.display()));
            }
        }
    }
    assert!(found.len() * 200 <= lines, "{} of {lines} lines: {found:#?}", found.len());
}

/// At most one documentation block in ten has four words or fewer.
#[test]
fn documentation_is_made_of_sentences() {
    let (mut blocks, mut short) = (0, Vec::new());
    for source in all() {
        let mut block = String::new();
        for line in source.text.lines().chain([""]) {
            if let Some(text) = line.trim_start().strip_prefix("///") {
                block.push_str(text);
            } else if !block.is_empty() {
                blocks += 1;
                if block.split_whitespace().count() <= 4 {
                    short.push(format!("{}: {block}", source.path.display()));
                }
                block.clear();
            }
        }
    }
    assert!(short.len() * 10 <= blocks, "{} of {blocks}: {short:#?}", short.len());
}

/// Where a stranger looks first.
const MAP: &[(&str, &str)] = &[
    ("request collapsing", "cache/collapse.rs"),
    ("hit-for-miss", "cache/hit_for_miss.rs"),
    ("whether a stored response may be used", "cache/rules/reuse.rs"),
    ("whether a response may be stored", "cache/rules/storability.rs"),
    ("freshness lifetimes", "cache/rules/freshness.rs"),
    ("bypass reasons", "cache/rules/eligibility.rs"),
    ("304 and HEAD freshening", "cache/rules/freshen.rs"),
    ("tags of a response", "cache/invalidation/tags.rs"),
    ("the shared-route tripwire", "cache/tripwire.rs"),
    ("Retry-After", "layer/rescue/mod.rs"),
    ("retry decision and budget", "upstream/retry.rs"),
    ("waiting line, permits", "upstream/queue.rs"),
    ("adaptive gate", "upstream/admission.rs"),
    ("gzip level", "represent/encoder.rs"),
    ("slow HTTP/1 client cut", "http1/server/timeouts.rs"),
    ("slow HTTP/2 client cut", "server/http2/timeouts.rs"),
    ("SIGHUP", "app/signals.rs"),
    ("reload", "reload/mod.rs"),
    ("drain", "app/shutdown.rs"),
    ("max_connections", "server/listener.rs"),
    ("request id", "fields/request_id.rs"),
    ("did you mean", "config/diagnostic.rs"),
    ("hop-by-hop fields", "fields/hop_by_hop.rs"),
];

#[test]
fn behaviors_stand_where_they_are_looked_for() {
    let missing: Vec<_> = MAP.iter().filter(|(_, path)| !source::root().join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The paths in a text between backticks; `a/{b,c}.rs` names two.
fn paths(text: &str) -> Vec<String> {
    let spans = text.split('`').skip(1).step_by(2);
    let paths = spans.filter(|span| span.contains('/') && (span.ends_with(".rs") || span.ends_with('/')));
    paths
        .flat_map(|path| {
            match path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
                Some((before, (names, after))) => {
                    names.split(',').map(|name| format!("{before}{name}{after}")).collect()
                }
                None => vec![path.to_owned()],
            }
        })
        .collect()
}

#[test]
fn architecture_names_files_that_exist() {
    let document = source::root().parent().unwrap().join("docs/architecture.md");
    let text = std::fs::read_to_string(document).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("Where to look")).unwrap();
    let paths = paths(section);
    assert!(paths.len() > 50, "{paths:?}");
    let missing: Vec<_> = paths.iter().filter(|path| !source::root().join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
