//! The table of endpoints finds its paths and describes all of them.

use super::openapi::operation_id;
use super::*;

#[test]
fn paths_are_found() {
    let action = |path: &str| find(path).map(|(endpoint, rest)| (endpoint.action, rest.to_owned()));
    assert_eq!(action("/health"), Some((Action::Health, String::new())));
    assert_eq!(action("/health/memory"), Some((Action::Check, "memory".to_owned())));
    assert_eq!((action("/health/"), action("/health/a/b"), action("/nothing")), (None, None, None));
}

#[test]
fn every_operation_has_a_name_of_its_own() {
    let described = describe("1");
    let paths = described["paths"].as_object().unwrap();
    let mut names: Vec<String> = ENDPOINTS.iter().map(operation_id).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), ENDPOINTS.len());
    assert!(paths.len() > 15 && paths["/cache/purge"]["post"].is_object());
}
