//! What the fuzz target of paths and templates tries.

use http::uri::PathAndQuery;

use crate::policy::loose::reading as loose_reading;
use crate::policy::path::normalise;
use crate::policy::template::{Pattern, Template};

/// Reads `data` as a path, and as a template on the line after it.
///
/// # Panics
///
/// Where a normal form is not its own, or a path goes on as another than the one that was matched.
pub fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, template) = text.split_once('\n').unwrap_or((text, "/{a}/**"));
    let _ = Pattern::parse(template);
    // A target that is no path of a URI was refused before.
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
