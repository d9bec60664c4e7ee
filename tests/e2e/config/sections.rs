//! Tests of `pillion check` on single sections: tracing, limits, keys, representations and the cache.

use super::{UPSTREAM, check};
use crate::harness::Folder;

#[test]
fn a_fleet_is_checked() {
    let redis = "[identity]\nhash_key = \"0123456789abcdef0123456789abcdef\"\n\
        [redis]\nurl = \"redis://a\"\nprefix = \"a\"\n";
    check(&format!("{UPSTREAM}{redis}")).fine();
    check(&format!("{UPSTREAM}{redis}rate_limi = true\n"))
        .refused_with(1)
        .says(&["unknown key \"rate_limi\" in [redis]", "did you mean \"rate_limit\"?"]);
}

#[test]
fn traces_go_to_a_url_and_are_a_share() {
    check(&format!("{UPSTREAM}[tracing]\nsample = 7\n")).refused_with(1).says(&["a share from 0.0 to 1.0"]);
    check(&format!("{UPSTREAM}[tracing]\notlp_endpoint = \"collector:4318\"\n"))
        .refused_with(1)
        .says(&["tracing.otlp_endpoint is \"collector:4318\", which is not a URL"]);
}

const TIER: &str = "[rate_limit.tiers.free.limits]\nrequests = { rate = \"10/min\", burst = 2 }\n";

#[test]
fn limits_are_checked() {
    check(&format!("{UPSTREAM}{TIER}")).fine();
    let wrong = "[rate_limit]
default = \"fre\"
key = [\"api_key\", \"session\"]
unlisted_keys = \"deny\"
tier = [\"keys\", \"header:x-plan\", \"plan\", \"jwt:plan\"]
headers = [\"old\"]
max_keys = 0
ipv6_prefix = 129
[rate_limit.tiers.free.limits]
none = { burst = 2 }
fast = { rate = \"1000001/s\" }
slow = { rate = \"1/d\", burst = 400 }
zero = { rate = \"1/s\", burst = 0 }
odd = { rate = \"1/week\" }
concurrency = { rate = \"1/s\" }
\"a b\" = { rate = \"1/s\" }
[identity]
api_key = \"cookie:key\"
";
    check(&format!("{UPSTREAM}{wrong}")).refused_with(17).says(&[
        "there is no tier \"fre\", which rate_limit.default names",
        "did you mean \"free\"?",
        "rate_limit.key has \"session\"",
        "rate_limit.unlisted_keys is \"deny\"",
        "a tier from \"header:x-plan\", and no trusted proxy",
        "rate_limit.tier has \"plan\"",
        "a claim of a token, and no key to verify the token",
        "rate_limit.headers has \"old\"",
        "expected 1 to 128",
        "free.limits.none has no rate",
        "a rate above the maximum",
        "a burst that takes more than a year to refill",
        "burst is 0",
        "a rate like \"20/s\"",
        "this one belongs to the cap on requests in flight",
        "\"a b\" is not a valid name of a limit",
        "identity.api_key is \"cookie:key\"",
    ]);
    check(&format!("{UPSTREAM}[rate_limit]\nenabled = true\n"))
        .refused_with(1)
        .says(&["there is no tier \"free\"", "write one: [rate_limit.tiers.free.limits]"]);
    check(&format!("{UPSTREAM}[rate_limit]\nenabled = false\n{TIER}")).says(&["no limit is applied"]);
}

#[test]
fn limits_of_routes_are_checked_against_tiers() {
    let route = |keys: &str| format!("{UPSTREAM}{TIER}[[routes]]\nmatch = \"GET /a\"\n{keys}\n");
    check(&route("cost = 2\nconcurrency = 4")).fine();
    check(&route("limits = \"none\"")).fine();
    for (keys, said) in [
        ("cost = 3", "more than the burst of 2 of \"requests\" in tier \"free\""),
        ("cost = 0", "limits = \"none\" exempts a route"),
        ("concurrency = 0", "expected 1 to 1000000"),
        ("limits = [\"request\"]", "did you mean \"requests\"?"),
        ("limits = \"all\"", "\"none\", or an array of names of limits"),
        ("deny = 404\ncost = 2", "limits on a route that sends nothing to an upstream"),
    ] {
        check(&route(keys)).refused_with(1).says(&[said]);
    }
    check(&format!("{UPSTREAM}[rate_limit.tiers.free.limits]\na = {{ rate = \"1/s\", on = \"named\" }}\n"))
        .says(&["limit \"a\" of tier \"free\" has no effect"]);
    check(&format!("{UPSTREAM}[[routes]]\nmatch = \"GET /a\"\ncost = 2\n")).says(&["have no effect"]);
}

#[test]
fn problems_of_the_file_of_keys_are_shown_in_its_lines() {
    let folder = Folder::new();
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let keys = format!(
        "[[keys]]\nsha256 = \"{digest}\"\ntier = \"pro\"\n[[keys]]\nsha256 = \"abc\"\ntier = \"free\"\n\
         [[keys]]\ntier = \"free\"\nname = 7\n"
    );
    let file = folder.write("keys.toml", keys);
    for line in ["sha256 = \"S3CRET\"", "key = \"S3CRET\""] {
        let plain = folder.write("plain.toml", format!("[[keys]]\n{line}\ntier = \"free\"\n"));
        let checked = check(&format!("{UPSTREAM}[rate_limit]\nkeys = \"{}\"\n{TIER}", plain.display()));
        assert!(
            checked.said.contains("plain.toml:2:") && !checked.said.contains("S3CRET"),
            "{}",
            checked.said
        );
    }
    let config = format!("{UPSTREAM}[rate_limit]\nkeys = \"{}\"\n{TIER}", file.display());
    check(&config).refused_with(4).says(&[
        "there is no tier \"pro\"",
        "keys.toml:3:8",
        "sha256 is not a SHA-256 hash",
        "the key has no sha256",
        "keys.name is 7",
        "pillion.toml names this file",
    ]);
    folder.write("keys.toml", format!("[[keys]]\nsha256 = \"{digest}\"\ntier = \"free\"\n").repeat(2));
    check(&config).refused_with(1).says(&["this key is listed twice"]);
    std::fs::remove_file(&file).unwrap();
    check(&config).refused_with(1).says(&["cannot be read", "`pillion keys add` makes it"]);
}

#[test]
fn representations_are_checked() {
    check(&format!(
        "{UPSTREAM}[compression]\ncodings = [\"brotli\", \"gzip\", \"gzip\", \"deflat\"]\n\
         types = [\"*/*\", \"text/*\"]\neffort = \"bst\"\nmin_size = \"1GiB\"\n[etag]\nmax_size = \"1GiB\"\n"
    ))
    .refused_with(7)
    .says(&[
        "compression.min_size is 1073741824 bytes",
        "its name in HTTP is \"br\": write that",
        "names \"gzip\" twice",
        "there is no coding \"deflat\"",
        "\"*/*\" is not a media type",
        "compression.effort is \"bst\"",
        "at most \"16MiB\"",
    ]);
    check(&format!(
        "{UPSTREAM}[compression]\nenabled = false\n[etag]\ngenerate = false\n\
         [[routes]]\nmatch = \"GET /a\"\ncompress = true\netag = false\nbrowser_ttl = \"1h\"\n"
    ))
    .fine();
}

#[test]
fn the_cache_is_checked() {
    check(&format!(
        "{UPSTREAM}[cache]\nmax_size = \"1KiB\"\ntargeted = [\"a b\"]\nenabld = true\n\
         [identity]\nprincipal = [\"heder:x\", \"jwt:sub\", \"cookie:\"]\nhash_key = \"short\"\n"
    ))
    .refused_with(7)
    .says(&[
        "cache.max_size is 1024 bytes",
        "\"a b\" is not a field name",
        "did you mean \"enabled\"?",
        "did you mean \"header\"?",
        "no key to verify the token",
        "\"cookie:\" is not a source of a principal",
        "identity.hash_key is too short",
    ]);
    let route =
        |cache: &str| format!("{UPSTREAM}[[routes]]\nmatch = \"GET /a/{{id}}\"\ncache = {{ {cache} }}\n");
    for (cache, said) in [
        ("tier = \"lng\"", "did you mean \"long\"?"),
        ("tier = \"long\", ttl = \"1m\"", "tier and ttl both set the lifetime"),
        ("scope = \"usr\"", "one of"),
        ("scope = \"off\", ttl = \"1m\"", "contradict each other"),
        ("override = \"lifetime\"", "override without a lifetime"),
        ("ttl_by_status = { 304 = \"1m\" }", "is not a status that can be stored"),
        ("ttl_by_status = { x = \"1m\" }", "is not a status that can be stored"),
        ("ttl = \"1m\", tags = [\"a:{x}\"]", "{x} is not in the path that is matched"),
        ("ttl = \"1m\", key_body = true", "methods have no content"),
    ] {
        check(&route(cache)).refused_with(1).says(&[said]);
    }
    check(&format!("{UPSTREAM}[identity]\nprincipal = []\n[[routes]]\nmatch = \"GET /a\"\ncache = {{ ttl = \"1m\", scope = \"user\" }}\n"))
        .refused_with(1)
        .says(&["scope \"user\" without a principal"]);
    check(&format!("{UPSTREAM}[[routes]]\nmatch = \"GET /a\"\ndeny = 404\ncache = {{ ttl = \"1m\" }}\n"))
        .refused_with(1)
        .says(&["cache on a route that sends nothing to an upstream"]);
    for (rule, said) in [
        ("tags = [\"a\"]", "the rule has no on"),
        ("on = \"POST /a\"", "a rule that invalidates nothing"),
        ("on = \"GET /a\"\ntags = [\"a\"]", "GET is a safe method"),
        ("on = \"POST /a\"\npaths = [\"/x/{y}\"]", "{y} is not in the path"),
        ("on = \"POST /a\"\ntags = [\"a\"]\nsettle = \"2h\"", "longer than an hour"),
    ] {
        check(&format!("{UPSTREAM}[[invalidate]]\n{rule}\n")).refused_with(1).says(&[said]);
    }
    check(&format!("{UPSTREAM}[[invalidate]]\non = \"POST /a\"\ntags = [\"nobody\"]\n"))
        .fine()
        .says(&["names no tag of any cached route"]);
}

#[test]
fn n1_6_an_ignored_cookie_that_says_who_asks_is_an_error_or_a_warning() {
    for (config, said) in [
        (
            "[identity]\nprincipal = [\"cookie:sid\"]\n[cache]\nignore_cookies = [\"s*\"]\n",
            "\"cookie:sid\" is ignored",
        ),
        ("[identity]\nprincipal = [\"cookie:_ga_user\"]\n", "\"cookie:_ga_user\" is ignored"),
        (
            "[identity]\nprincipal = [\"cookie:session\"]\n[cache]\nignore_cookies = [\"__Host-session\"]\n",
            "\"cookie:session\" is ignored",
        ),
        (
            "[identity.jwt]\nhs256 = \"\"\njwks_url = \"http://127.0.0.1:1/\"\ntoken = \"cookie:jwt\"\n[cache]\nignore_cookies = [\"*\"]\n",
            "\"cookie:jwt\" is ignored",
        ),
    ] {
        check(&format!("{UPSTREAM}{config}")).refused_with(1).says(&[said]);
    }
    // Two patterns that some name matches both of, although neither includes the other.
    for (principal, ignored) in
        [("foo_*", "foo_b*"), ("foo_*", "*_bc"), ("foo_*", "foo_ab"), ("*_auth", "_g*")]
    {
        let config = format!(
            "[identity]\nprincipal = [\"cookie:{principal}\"]\n[cache]\nignore_cookies = [\"{ignored}\"]\n"
        );
        let said = format!("\"cookie:{principal}\" is ignored");
        check(&format!("{UPSTREAM}{config}")).refused_with(1).says(&[&said]);
    }
    // The default ignored cookies match no cookie that a pattern of `principal` matches.
    check(&format!("{UPSTREAM}[identity]\nprincipal = [\"cookie:*_auth\"]\n")).fine().lacks("warning");
    for (ignored, said) in [
        ("*", "no cookie identifies a user"),
        ("connect.sid", "covers session cookies of frameworks"),
        ("laravel_session", "covers session cookies of frameworks"),
        ("sess*", "covers session cookies of frameworks"),
    ] {
        check(&format!("{UPSTREAM}[cache]\nignore_cookies = [\"{ignored}\"]\n")).fine().says(&[said]);
    }
    check(&format!("{UPSTREAM}[cache]\nignore_cookies = [\"_ga*\", \"ai_session\"]\n"))
        .fine()
        .lacks("warning");
}

#[test]
fn n1_4_a_lifetime_on_scope_auto_is_warned_of() {
    let route = |cache: &str| format!("{UPSTREAM}[[routes]]\nmatch = \"GET /a\"\ncache = {{ {cache} }}\n");
    for cache in ["ttl = \"1m\"", "tier = \"short\", scope = \"auto\"", "ttl_by_status = { 404 = \"1m\" }"] {
        check(&route(cache)).fine().says(&["route \"GET /a\" has a lifetime and scope \"auto\""]);
    }
    for cache in ["ttl = \"1m\", scope = \"shared\"", "ttl = \"1m\", scope = \"user\"", "tags = [\"a\"]"] {
        check(&route(cache)).fine().lacks("warning");
    }
}
