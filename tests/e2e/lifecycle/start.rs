//! Tests of failed starts, and of checks of a file before its use.

use std::net::TcpListener;

use super::tools::{pillion, stderr};
use crate::harness::Folder;

#[test]
fn what_prevents_a_start_is_said_in_one_clear_line() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = |server: &str, more: &str| {
        format!("[server]\n{server}\n[upstream]\nurl = \"http://127.0.0.1:1\"\n{more}")
    };
    let free = "listen = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"";
    let on_taken = config(&format!("listen = [\"{address}\"]\nadmin = \"127.0.0.1:0\""), "");
    let admin_taken = config(&format!("listen = [\"127.0.0.1:0\"]\nadmin = \"{address}\""), "");
    let tls = "[server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{ cert = \"none.crt\", key = \"none.key\" }]\n";
    folder.write("garbage.crt", "garbage");
    let garbage = tls.replace("none.", "garbage.");
    for (name, content, said, lines) in [
        ("taken.toml", Some(on_taken), vec![address.to_string(), "server.listen".to_owned()], 1),
        ("admin.toml", Some(admin_taken), vec![address.to_string(), "server.admin".to_owned()], 1),
        ("tls.toml", Some(config(free, tls)), vec!["none.crt".to_owned()], 20),
        ("garbage.toml", Some(config(free, &garbage)), vec!["garbage.crt".to_owned()], 20),
        ("missing.toml", None, vec!["missing.toml".to_owned()], 1),
        (
            "bad.toml",
            Some(config(free, "retry = 3\n")),
            vec!["bad.toml:".to_owned(), "retries".to_owned()],
            20,
        ),
    ] {
        let path = folder.path(name);
        if let Some(content) = content {
            folder.write(name, content);
        }
        let output = pillion(&["run", "--config", path.to_str().unwrap()]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {text}");
        assert!(text.starts_with("pillion: "), "{name}: {text}");
        for said in said {
            assert!(text.contains(&said), "{name} says {said}: {text}");
        }
        assert!(text.lines().count() <= lines && !text.contains("panicked"), "{name}: {text}");
    }
}

#[test]
fn check_is_0_for_a_good_file_and_2_with_every_problem_of_a_bad_one() {
    let folder = Folder::new();
    let good = folder.write("good.toml", "[upstream]\nurl = \"http://127.0.0.1:3000\"\n");
    let bad = folder.write(
        "bad.toml",
        "[server]\nlisen = [\"127.0.0.1:0\"]\n[upstream]\nurl = \"http://127.0.0.1:3000\"\nretries = \"two\"\nqueue_timeout = \"1 fortnight\"\n",
    );
    let output = pillion(&["check", good.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = pillion(&["check", bad.to_str().unwrap()]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for said in ["bad.toml:2:1", "listen", "bad.toml:5:", "bad.toml:6:", "3 problems"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let missing = pillion(&["check", folder.path("missing.toml").to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(2), "{}", stderr(&missing));
}
