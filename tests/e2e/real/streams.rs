//! Tests of conversations between Connect's own client and server, over each of its protocols.

use super::tools::{acceptance, app, printed, script, with_tls};
use crate::harness::cases;

/// Returns the expected output of the client: the conversations that are possible over the app's HTTP version.
fn expected(app: &str) -> String {
    let mut lines = String::new();
    for kind in ["json", "proto"] {
        for version in ["2", "1.1"] {
            lines += &format!("connect+{kind} {version}: fine\ngrpc-web+{kind} {version}: fine\n");
            if app == "2" && version == "2" {
                lines += &format!("grpc+{kind} 2: fine\n");
            }
        }
    }
    lines
}

fn still_right_connect_in_both_directions(serve: &str, scheme: &str, version: &str) {
    let (_app, address) = app("node", "connect.cjs", &[serve]);
    let pillion = with_tls(&format!("[upstream]\nurl = \"{scheme}://{address}\"\n"));
    for url in [pillion.url(""), format!("https://{}", pillion.https.unwrap())] {
        let mut client = script("node", "connect.cjs", &["talk", &url, version]);
        client.env("NODE_EXTRA_CA_CERTS", pillion.folder.path("tls.crt"));
        assert_eq!(printed(client), expected(version), "{url} to {scheme}");
    }
    let path = if version == "2" { "/test.Notes/Chat" } else { "/test.Notes/Tell" };
    pillion.access("a conversation", |line| {
        line["path"] == path && line["protocol"] == "HTTP/2" && line["status"] == 200
    });
}

cases! { still_right_connect_in_both_directions:
    still_right_connect_in_both_directions_of_an_app_over_http1 => "serve1", "http", "1.1";
    still_right_connect_in_both_directions_of_an_app_over_http2 => "serve", "h2c", "2";
}

/// Six silent minutes under the defaults on acceptance; otherwise a silence longer than an ordinary body allows.
#[test]
fn still_right_a_conversation_of_connect_may_be_silent() {
    let (_app, address) = app("node", "connect.cjs", &["serve"]);
    let silences = "body_timeout = \"500ms\"\nsend_timeout = \"500ms\"\n";
    let (seconds, server, upstream) = match acceptance() {
        true => ("360", "", ""),
        false => ("1.5", silences, "body_timeout = \"500ms\"\nresponse_timeout = \"500ms\"\n"),
    };
    let pillion = crate::harness::Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{server}[upstream]\nurl = \"h2c://{address}\"\n{upstream}"
    ));
    assert_eq!(printed(script("node", "connect.cjs", &["pause", &pillion.url(""), seconds])), "fine\n");
}
