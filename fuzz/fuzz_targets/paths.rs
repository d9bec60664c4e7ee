//! Paths and templates: one normal form, in which nothing changes any more, and templates that take what they fill.
#![no_main]

use http::uri::PathAndQuery;
use libfuzzer_sys::fuzz_target;
use pillion::policy::template::{Pattern, Template};
use pillion::policy::{loose, path};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, template) = text.split_once('\n').unwrap_or((text, "/{a}/**"));
    let _ = Pattern::parse(template);
    // A target that is no path of a URI was refused before.
    let Ok(given) = PathAndQuery::try_from(format!("/{text}")) else { return };
    let given = given.path();
    let Ok(read) = path::normalise(given) else { return };
    let normal = read.normal.into_owned();
    assert!(normal.starts_with('/'));
    assert!(!normal.contains("//"), "{normal}");
    assert!(!normal.split('/').any(|segment| matches!(segment, "." | "..")), "{normal}");
    let again = path::normalise(&normal).expect("a normal form is a path");
    assert_eq!(again.normal, normal, "a normal form is its own");
    let onward = read.onward.into_owned();
    let again = path::normalise(&onward).expect("what goes on is a path");
    assert_eq!(again.normal, normal, "the app is sent the path that was matched");
    assert_eq!(again.onward, onward);
    let reading = loose::reading(&normal);
    assert!(reading.starts_with('/'), "{reading}");
    if let Ok(template) = Template::parse(template) {
        assert!(template.may_meet(&template));
        if template.takes(&normal) {
            assert_eq!(template.fill(&template, &normal), normal, "filled with what it took, it is that");
        }
    }
});
