//! Tests of `pillion explain` for requests that the cache key does not distinguish.

use crate::harness::{Folder, binary, run};

const CONFIG: &str = "[upstream]\nurl = \"http://127.0.0.1:1\"\n\
    [[routes]]\nmatch = \"* /admin/**\"\ndeny = 403\n\
    [[routes]]\nmatch = \"GET /off/**\"\ncache = { scope = \"off\" }\n\
    [[routes]]\nmatch = \"GET /s\"\ncache = { ttl = \"1h\", scope = \"shared\", strip_query = true }\n\
    [[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1h\", scope = \"shared\", key_query = [\"page\"] }\nlimits = \"none\"\n\
    [rate_limit]\ndefault = \"free\"\n[rate_limit.tiers.free.limits]\nrequests = { rate = \"2/h\" }\n";

#[test]
fn n2_explain_says_what_becomes_of_them() {
    let folder = Folder::new();
    let file = folder.write("pillion.toml", CONFIG);
    for (request, said) in [
        (
            &["GET", "/ADMIN;x/users"][..],
            &["read it as /admin/users", "1 of 4: * /admin/**", "refused      403"][..],
        ),
        (&["GET", "/Off/a"], &["read it as /off/a", "each meets another route", "does not exempt"]),
        (&["GET", "/a/..;/b"], &["400", "dot segment with parameters"]),
        (&["GET", "/q?page=1&x=2"], &["leaves nothing", "/q?page=1"]),
        (&["GET", "/s?utm_x=1"], &["strip_query"]),
        (&["GET", "/q?page=1&page[]=2"], &["some apps read as one that does"]),
        (&["GET", "/q", "-H", "x_real_ip: 6.6.6.6"], &["dropped      x_real_ip", "scope shared"]),
        (&["GET", "/q", "-H", "x_other: 1"], &["underscore in its name"]),
        (&["GET", "/q", "-H", "proxy: x"], &["dropped      proxy"]),
        (&["GET", "/q", "-H", "hx-request: true"], &["fragment", "whose Vary names hx-request"]),
        (&["GET", "/q", "-H", "x-invoke-status: 500"], &["apps may act on"]),
    ] {
        let args: Vec<&str> =
            ["explain", "--config", file.to_str().unwrap()].iter().chain(request).copied().collect();
        let text = run(binary(), &args);
        for part in said {
            assert!(text.contains(part), "{request:?}: {part:?} is missing in:\n{text}");
        }
    }
}
