//! The entry point of the fuzz target for paths and templates.

use http::uri::PathAndQuery;

use crate::policy::loose::reading as loose_reading;
use crate::policy::path::normalise;
use crate::policy::pattern::Pattern;
use crate::policy::template::Template;

/// Reads `data` as a path, followed by a template on the next line.
///
/// # Panics
///
/// Panics if a normalized path changes when normalized again, or the forwarded path is not the path that was matched.
pub fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, template) = text.split_once('\n').unwrap_or((text, "/{a}/**"));
    let _ = Pattern::parse(template);
    // The server rejects a target that is no URI path before it gets here.
    let Ok(given) = PathAndQuery::try_from(format!("/{text}")) else { return };
    let given = given.path();
    let Ok(read) = normalise(given) else { return };
    let normal = read.normal.into_owned();
    assert!(normal.starts_with('/'));
    assert!(!normal.contains("//"), "{normal}");
    assert!(!normal.split('/').any(|segment| matches!(segment, "." | "..")), "{normal}");
    let again = normalise(&normal).expect("a normal form is a path");
    assert_eq!(again.normal, normal, "a normal form is its own");
    let onward = read.onward.into_owned();
    let again = normalise(&onward).expect("what goes on is a path");
    assert_eq!(again.normal, normal, "the app is sent the path that was matched");
    assert_eq!(again.onward, onward);
    let reading = loose_reading(&normal);
    assert!(reading.starts_with('/'), "{reading}");
    if let Ok(template) = Template::parse(template) {
        assert!(template.may_meet(&template));
        if template.takes(&normal) {
            assert_eq!(template.fill(&template, &normal), normal, "filled with what it took, it is that");
        }
    }
}
