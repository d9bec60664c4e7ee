//! Tests of freshness lifetimes and of the parts of cache keys.

use std::process::Command;

use crate::harness::origin::*;
use crate::harness::*;

/// Regression: a file with only Last-Modified was served from the cache for a minute, so replaced files stayed old.
#[test]
fn n5_6_a_response_without_a_lifetime_is_not_stored() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    let modified = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let cases: [(&str, &[&str]); 5] = [
        ("/dated", &[modified]),
        ("/tagged", &[modified, "etag: \"x\""]),
        ("/public", &[modified, "cache-control: public"]),
        ("/immutable", &[modified, "cache-control: immutable"]),
        ("/gone", &[modified, "status: 410"]),
    ];
    for (path, fields) in cases {
        origin.says(path, fields);
        let (first, second) = (get(&pillion, path), get(&pillion, path));
        assert_ne!(first.text(), second.text(), "{path}: {}", status_of(&second));
        assert!(!status_of(&second).contains("hit"), "{path}: {}", status_of(&second));
        let line = pillion.access(path, |line| line["path"] == path);
        assert_eq!(line["not_stored"], "no-lifetime", "{path}");
    }
}

#[test]
fn n5_6_heuristic_max_derives_a_lifetime_where_it_is_written() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "[cache]\nheuristic_max = \"60s\"\n");
    origin.says("/dated", &["last-modified: Sun, 06 Nov 1994 08:49:37 GMT"]);
    assert_eq!(get(&pillion, "/dated").text(), get(&pillion, "/dated").text());
}

#[test]
fn n5_6_max_ttl_caps_what_an_app_says_but_not_what_a_route_says() {
    let origin = Origin::new();
    let routes = "[[routes]]\nmatch = \"GET /route\"\ncache = { ttl = \"30d\" }\n";
    let ttl = |pillion: &Pillion, path: &str| -> i64 {
        get(pillion, path);
        let status = status_of(&get(pillion, path));
        let ttl = status.split("ttl=").nth(1).unwrap_or_else(|| panic!("{path}: {status}"));
        ttl.split(';').next().unwrap().parse().unwrap()
    };
    let pillion = pillion(&origin, routes);
    origin.says("/max-age", &["cache-control: max-age=31536000"]);
    origin.says("/s-maxage", &["cache-control: s-maxage=31536000"]);
    origin.says("/expires", &["expires: Sun, 06 Nov 2095 08:49:37 GMT"]);
    origin.says("/targeted", &["pillion-cache-control: max-age=31536000"]);
    for path in ["/max-age", "/s-maxage", "/expires", "/targeted"] {
        let found = ttl(&pillion, path);
        assert!((86_300..=86_400).contains(&found), "{path}: {found}");
    }
    assert_eq!(
        get(&pillion, "/max-age").field("cache-control").as_deref(),
        Some("max-age=31536000"),
        "clients read what the app said"
    );
    let found = ttl(&pillion, "/route");
    assert!(found > 29 * 86_400, "{found}");
    pillion.reload(&format!(
        "[upstream]\nurl = \"http://{}\"\n[cache]\nmax_ttl = \"0s\"\n{routes}",
        origin.script.address
    ));
    assert_ne!(get(&pillion, "/max-age").text(), get(&pillion, "/max-age").text());
}

#[test]
fn n5_6_a_new_version_finds_nothing_of_the_one_before() {
    let origin = Origin::new();
    origin.says("/a", &["cache-control: max-age=60"]);
    let config = |version: &str| {
        format!("[upstream]\nurl = \"http://{}\"\n[cache]\nversion = \"{version}\"\n", origin.script.address)
    };
    let pillion = Pillion::with(&config("1"));
    let first = get(&pillion, "/a").text();
    assert_eq!(get(&pillion, "/a").text(), first);
    pillion.reload(&config("2"));
    let second = get(&pillion, "/a").text();
    assert_ne!(second, first, "another version");
    assert_eq!(get(&pillion, "/a").text(), second);
    pillion.reload(&config("1"));
    assert_eq!(get(&pillion, "/a").text(), first, "back at the first");
}

/// A release is often a number, so a bare reference to it would be read as a number.
#[test]
fn n5_6_a_version_from_the_environment_keeps_its_text() {
    let folder = Folder::new();
    let config = "[upstream]\nurl = \"http://127.0.0.1:1\"\n[cache]\nversion = \"${RELEASE:-}\"\n";
    let path = folder.write("pillion.toml", config);
    for (release, told) in [
        (Some("42"), Some("version \"42\"")),
        (Some("1.10"), Some("version \"1.10\"")),
        (Some("007"), Some("version \"007\"")),
        (Some("true"), Some("version \"true\"")),
        (Some("a1b2c3"), Some("version \"a1b2c3\"")),
        (None, None),
    ] {
        let mut command = Command::new(binary());
        command.args(["explain", "GET", "/a", "--config"]).arg(&path).env_remove("RELEASE");
        release.map(|release| command.env("RELEASE", release));
        let output = command.output().unwrap();
        let text = format!("{}{}", printed(&output.stdout), printed(&output.stderr));
        assert!(output.status.success(), "{release:?}: {text}");
        match told {
            Some(told) => assert!(text.contains(told), "{release:?}: {text}"),
            None => assert!(!text.contains("version \""), "{text}"),
        }
    }
}

/// An app whose responses have these fields, until it is told to fail.
struct Failing {
    script: Script,
    how: std::sync::Arc<std::sync::Mutex<Option<&'static str>>>,
}

impl Failing {
    fn new(fields: &'static str) -> Failing {
        let how: std::sync::Arc<std::sync::Mutex<Option<&'static str>>> = Default::default();
        let told = how.clone();
        let script = Script::new(move |mut tcp| {
            use std::io::Write;
            while let Some(request) = Request::read(&mut tcp) {
                let how = *told.lock().unwrap();
                let said = match how {
                    None => answer(&request, fields, "kept"),
                    Some("reset") => return,
                    Some("silence") => {
                        std::thread::sleep(std::time::Duration::from_millis(600));
                        return;
                    }
                    Some("garbage") => b"SMTP ready\r\n\r\n".to_vec(),
                    Some(status) => answer(&request, &format!("status: {status}"), "failed"),
                };
                if tcp.write_all(&said).is_err() {
                    return;
                }
            }
        });
        Failing { script, how }
    }

    fn fails(&self, how: &'static str) {
        *self.how.lock().unwrap() = Some(how);
    }
}

/// Stores a response that is stale at once, lets the app fail, and returns the response that a client gets then.
fn after_failure(fields: &'static str, more: &str, how: &'static str) -> Answer {
    let app = Failing::new(fields);
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nresponse_timeout = \"200ms\"\nretries = 0\n{more}",
        app.script.address
    ));
    assert_eq!(get(&pillion, "/a").text(), "kept");
    app.fails(how);
    get(&pillion, "/a")
}

#[test]
fn n5_5_a_stale_response_is_given_by_default_where_none_could_be_had() {
    const STALE: &str = "cache-control: max-age=0\netag: \"1\"";
    for how in ["reset", "silence", "garbage"] {
        let found = after_failure(STALE, "", how);
        assert_eq!((found.status, found.text().as_str()), (200, "kept"), "{how}");
        assert_eq!(found.fields("x-cache"), ["STALE"], "{how}: {}", status_of(&found));
    }
    for status in ["500", "502", "503", "504"] {
        let found = after_failure(STALE, "", status);
        assert_eq!((found.status.to_string().as_str(), found.text().as_str()), (status, "failed"));
    }
}

#[test]
fn n5_5_the_apps_own_errors_are_replaced_where_route_or_app_says_so() {
    const STALE: &str = "cache-control: max-age=0\netag: \"1\"";
    const SAID: &str = "cache-control: max-age=0, stale-if-error=60\netag: \"1\"";
    const NEVER: &str = "cache-control: max-age=0, stale-if-error=0\netag: \"1\"";
    const STRICT: &str = "cache-control: max-age=0, must-revalidate\netag: \"1\"";
    let route = |terms: &str| format!("[[routes]]\nmatch = \"GET /**\"\ncache = {{ {terms} }}\n");
    let window = route("stale_if_error = \"1m\"");
    let with_500 = route("error_500 = true");
    let off = "[cache]\nstale_if_error = \"0s\"\n";
    let long = "[cache]\nstale_if_error = \"1h\"\n";
    for (fields, more, how, replaced) in [
        (STALE, window.as_str(), "503", true),
        (STALE, window.as_str(), "502", true),
        (STALE, window.as_str(), "504", true),
        (STALE, window.as_str(), "500", false),
        (STALE, window.as_str(), "reset", true),
        (STALE, with_500.as_str(), "500", true),
        (SAID, "", "503", true),
        (SAID, "", "500", true),
        (SAID, "", "404", false),
        (NEVER, "", "reset", false),
        (NEVER, window.as_str(), "503", false),
        (STRICT, "", "reset", false),
        (STRICT, window.as_str(), "503", false),
        (STALE, off, "reset", false),
        (STALE, long, "503", false),
        (STALE, long, "reset", true),
    ] {
        let found = after_failure(fields, more, how);
        assert_eq!(found.status == 200, replaced, "{fields:?} {more:?} {how}: {}", found.status);
    }
}

#[test]
fn n5_5_a_refused_connection_leaves_what_is_stored() {
    let mut nginx = Nginx::serving(
        "server { listen LISTEN; location / { add_header Cache-Control max-age=1; return 200 here; } }",
    );
    let pillion = Pillion::in_front_of(nginx.address);
    assert_eq!(get(&pillion, "/a").text(), "here");
    nginx.process.signal("KILL");
    nginx.process.wait();
    eventually("it is stale", || {
        let answer = get(&pillion, "/a");
        assert_eq!((answer.status, answer.text().as_str()), (200, "here"));
        (answer.fields("x-cache") == ["STALE"]).then_some(())
    });
    assert_eq!(ask(&pillion, "GET /a", &["cache-control: no-cache"]).status, 502, "who wants it fresh");
    assert_eq!(get(&pillion, "/b").status, 502, "nothing is stored of it");
}
