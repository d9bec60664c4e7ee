//! The digests of routes, from configurations as people write them.

use crate::config::{self, Environment, Source};
use crate::policy::Policy;
use crate::state::route_digest::{digest, local};

fn policy(text: &str) -> Policy {
    let text = Box::leak(text.to_owned().into_boxed_str());
    let source = Source { embedded: Some(("test", text)), ..Source::default() };
    config::load(&source, &Environment::default()).unwrap()
}

const CLINIC: &str = "[upstream]\nurl = \"http://127.0.0.1:3000\"\n[cache]\nversion = \"1\"\n[[routes]]\nmatch = \
                      \"GET /patients/{id}\"\nset_request = { x-a = \"b\" }\ncache = { scope = \"user\", ttl = \"30s\", \
                      tags = [\"patient:{id}\"], key_query = [\"page\"] }\n";

/// Other replicas know this number: a change of it needs a new version.
#[test]
fn golden_value() {
    let policy = policy(CLINIC);
    assert_eq!(digest(&policy, &policy.routes.routes[0]), GOLDEN);
}

const GOLDEN: u64 = 53_042_336_642_936_777;

#[test]
fn whatever_decides_about_sharing_changes_it() {
    let before = policy(CLINIC);
    let before = digest(&before, &before.routes.routes[0]);
    for (from, to) in [
        ("scope = \"user\"", "scope = \"shared\""),
        ("ttl = \"30s\"", "ttl = \"31s\""),
        ("tags = [\"patient:{id}\"]", "tags = [\"patients\"]"),
        ("key_query = [\"page\"]", "key_query = []"),
        (", key_query = [\"page\"]", ""),
        ("x-a = \"b\"", "x-a = \"c\""),
        ("set_request", "when = { cookie = [\"a\"] }\nset_request"),
        ("version = \"1\"", "version = \"2\""),
        ("[cache]", "[cache]\nmax_ttl = \"2h\""),
        ("[cache]", "[cache]\nignore_cookies = [\"seen\"]"),
        ("[cache]", "[cache]\nignore_query = [\"seen\"]"),
        ("[cache]", "[identity]\nprincipal = [\"header:x-user\"]\n[cache]"),
        ("[cache]", "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n[cache]"),
    ] {
        let edited = policy(&CLINIC.replace(from, to));
        assert_ne!(digest(&edited, &edited.routes.routes[0]), before, "{to}");
    }
}

#[test]
fn a_changed_url_is_local() {
    let (before, after) = (policy(CLINIC), policy(&CLINIC.replace("3000", "3001")));
    let numbers = |policy: &Policy| {
        let route = &policy.routes.routes[0];
        (digest(policy, route), local(policy, route))
    };
    let ((digest, url), (same, other)) = (numbers(&before), numbers(&after));
    assert_eq!(digest, same);
    assert_ne!(url, other);
}
