//! Helpers that several of these tests use.

use crate::harness::origin::*;
use crate::harness::*;

/// Returns a key file. The digests are those of `key-pro` and `key-own`.
pub(crate) fn keys() -> String {
    let digest = |key: &str| {
        let output = run("sh", &["-c", &format!("printf %s {key} | sha256sum")]);
        output.split(' ').next().unwrap().to_owned()
    };
    format!(
        "[[keys]]\nsha256 = \"{}\"\ntier = \"pro\"\nname = \"acme\"\n\
         [[keys]]\nsha256 = \"{}\"\ntier = \"pro\"\nname = \"own\"\n[keys.limits]\nrequests = {{ rate = \"1/h\", burst = 1 }}\n",
        digest("key-pro"),
        digest("key-own"),
    )
}

pub(crate) const TIERS: &str = "
[rate_limit.tiers.free]
upgrade = \"https://example.com/pricing\"
[rate_limit.tiers.free.limits]
requests = { rate = \"3/h\" }
named = { rate = \"1/h\", on = \"named\" }
[rate_limit.tiers.pro.limits]
requests = { rate = \"5/h\", burst = 5 }
daily = { rate = \"8/d\", burst = 8 }
[rate_limit.tiers.quiet]
mode = \"shadow\"
[rate_limit.tiers.quiet.limits]
requests = { rate = \"3/h\" }
";

pub(crate) fn limited(config: &str) -> (Origin, Pillion) {
    limited_with(&keys(), config)
}

pub(crate) fn limited_with(keys: &str, config: &str) -> (Origin, Pillion) {
    let origin = Origin::new();
    let folder = std::sync::Arc::new(Folder::new());
    let file = folder.write("keys.toml", keys);
    let text = format!(
        "[upstream]\nurl = \"http://{}\"\n[rate_limit]\nkeys = \"{}\"\n{config}{TIERS}",
        origin.script.address,
        file.display()
    );
    (origin, Pillion::in_folder(folder, &text))
}

pub(crate) fn statuses(pillion: &Pillion, count: usize, fields: &[&str]) -> Vec<u16> {
    (0..count).map(|_| ask(pillion, "GET /", fields).status).collect()
}
