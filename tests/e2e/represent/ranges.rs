//! Tests of range requests and of If-Range.

use super::tools::{JSON, curl, field, get, head_of, items, saying};
use crate::harness::{Nginx, Pillion};

#[test]
fn parts_of_content_that_the_app_gave_whole() {
    let content = items(20);
    let app = saying(&content, JSON);
    let pillion = Pillion::in_front_of(app.address);
    let part = get(&pillion, "/", "range: bytes=10-19\r\n");
    assert_eq!((part.status, part.text().as_str()), (206, &content[10..20]));
    assert_eq!(part.field("content-range"), Some(format!("bytes 10-19/{}", content.len())));
    let url = pillion.url("/");
    let (status, body, _) = curl(&url, &["-r", "-5"]);
    assert_eq!((status.as_str(), &body[..]), ("206", &content.as_bytes()[content.len() - 5..]));
    // Ranges apply to content without a coding, whatever codings the client accepts.
    let (status, body, head) = curl(&url, &["-r", "0-4", "-H", "Accept-Encoding: gzip"]);
    assert_eq!(
        (status.as_str(), &body[..], field(&head, "content-encoding")),
        ("206", &content.as_bytes()[..5], None)
    );
    let several = get(&pillion, "/", "range: bytes=0-1,4-5\r\n");
    assert_eq!(several.status, 206);
    assert!(several.field("content-type").unwrap().starts_with("multipart/byteranges; boundary="));
    assert_eq!(several.text().matches("Content-Range: bytes ").count(), 2);
    let beyond = get(&pillion, "/", "range: bytes=100000-\r\n");
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.field("content-range"), Some(format!("bytes */{}", content.len())));
    for whole in
        ["range: bytes=5-1\r\n", "range: lines=1-2\r\n", "range: bytes=0-1\r\nif-range: \"other\"\r\n"]
    {
        assert_eq!(get(&pillion, "/", whole).status, 200, "{whole}");
    }
    let tag = get(&pillion, "/", "").field("etag").unwrap();
    let weak = get(&pillion, "/", &format!("range: bytes=0-1\r\nif-range: {tag}\r\n"));
    assert_eq!(weak.status, 200, "a weak tag never holds");
    assert_eq!(head_of(&pillion, "/", "range: bytes=0-1\r\n").status, 200, "a Range is about GET");
}

/// A real nginx that serves files, with its own tags, 304s and ranges.
#[test]
fn nginx_keeps_its_tags_and_its_ranges() {
    // A file one second old may be stored for a tenth of a second (RFC 9111 4.2.2), but nginx is to be asked each time.
    let nginx = Nginx::serving(
        "server { listen LISTEN; root FOLDER; default_type application/json; location / { add_header Cache-Control no-store always; } }",
    );
    let content = items(2000);
    nginx.folder.write("file", &content);
    let pillion = Pillion::in_front_of(nginx.address);
    let plain = get(&pillion, "/file", "");
    let tag = plain.field("etag").unwrap();
    assert!(tag.starts_with('"') && plain.field("accept-ranges").is_some(), "{}", plain.head);
    let coded = get(&pillion, "/file", "accept-encoding: gzip\r\n");
    let shown = coded.field("etag").unwrap();
    assert_eq!(shown, format!("W/{tag}"));
    assert_eq!(coded.field("accept-ranges"), None);
    for (known, shown) in [(&tag, &tag), (&shown, &shown)] {
        let again = get(&pillion, "/file", &format!("accept-encoding: gzip\r\nif-none-match: {known}\r\n"));
        assert_eq!((again.status, again.field("etag").as_ref()), (304, Some(shown)));
    }
    assert_eq!(pillion.metric("pillion_not_modified_total{source=\"app\"}"), 2.0, "nginx said so itself");
    let part =
        get(&pillion, "/file", &format!("range: bytes=0-9\r\nif-range: {tag}\r\naccept-encoding: gzip\r\n"));
    assert_eq!(
        (part.status, &part.body[..], part.field("etag")),
        (206, &content.as_bytes()[..10], Some(tag))
    );
    assert_eq!(part.field("vary").as_deref(), Some("accept-encoding"));
    let void = get(
        &pillion,
        "/file",
        &format!("range: bytes=0-9\r\nif-range: {shown}\r\naccept-encoding: gzip\r\n"),
    );
    assert_eq!((void.status, void.field("content-encoding").as_deref()), (200, Some("gzip")));
    assert_eq!(get(&pillion, "/file", "range: bytes=9999999-\r\n").status, 416, "nginx's own");
}

/// A date does not distinguish codings. A client that has compressed content and asks for the rest must not get a range
/// of the uncompressed content.
#[test]
fn a_date_in_if_range_gives_no_part_to_a_client_that_takes_codings() {
    let dates = "content-type: application/json\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                 date: Mon, 07 Nov 1994 08:49:37 GMT\r\n";
    let app = saying(&items(200), dates);
    let pillion = Pillion::in_front_of(app.address);
    let part = "range: bytes=100-\r\nif-range: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let coded = get(&pillion, "/", &format!("accept-encoding: gzip\r\n{part}"));
    assert_eq!((coded.status, coded.field("content-encoding").as_deref()), (200, Some("gzip")));
    assert_eq!(get(&pillion, "/", part).status, 206);
}

#[test]
fn digests_of_the_whole_do_not_go_with_a_part() {
    let app = saying(
        &items(20),
        "content-type: text/plain\r\ncontent-digest: sha-256=:AA:\r\nrepr-digest: sha-256=:BB:\r\n",
    );
    let pillion = Pillion::in_front_of(app.address);
    let part = get(&pillion, "/", "range: bytes=0-1\r\n");
    assert_eq!((part.status, part.field("content-digest")), (206, None));
    assert!(part.field("repr-digest").is_some(), "of the representation, which is the whole");
}
