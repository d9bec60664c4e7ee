//! The PROXY header, both versions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillion::internals::{addresses, text};

fuzz_target!(|data: &[u8]| {
    if let Ok(Some(client)) = text(data) {
        let line = std::str::from_utf8(data).expect("a line is text");
        assert!(line.ends_with("\r\n") && line.starts_with("PROXY TCP"), "{line:?}");
        let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
        let written = format!("PROXY {family} {} {} {} 1\r\n", client.ip(), client.ip(), client.port());
        assert_eq!(text(written.as_bytes()).ok(), Some(Some(client)));
    }
    if let [version_command, family, rest @ ..] = data
        && let Ok(Some(client)) = addresses(*version_command, *family, rest)
    {
        assert_eq!((version_command & 15, *family), (1, if client.is_ipv4() { 0x11 } else { 0x21 }));
    }
});
