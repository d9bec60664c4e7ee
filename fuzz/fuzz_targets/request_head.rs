//! Request heads: ours against httparse's own reading, against itself in pieces, and against its own writing.
#![no_main]

use bytes::BytesMut;
use http::header;
use libfuzzer_sys::fuzz_target;
use pillion::internals::{Beside, Connection, Outgoing, request_head};
use pillion::internals::{HeadLimits, parse_request};

const LIMITS: HeadLimits = HeadLimits { size: 4096, fields: 32 };

fuzz_target!(|data: &[u8]| {
    let mut input = BytesMut::from(data);
    let head = match parse_request(&mut input, LIMITS) {
        Ok(Some(head)) => head,
        Ok(None) => return assert_eq!(&input[..], data, "nothing is taken of a head that is not whole"),
        Err(error) => {
            assert!(error.status().is_client_error() || error.status() == 505);
            assert!(!error.detail().is_empty());
            return;
        }
    };
    let length = data.len() - input.len();
    assert!(length <= LIMITS.size);

    // httparse reads the same head, and nothing of it is longer than what it is part of.
    let mut storage = [httparse::EMPTY_HEADER; 32];
    let mut reference = httparse::Request::new(&mut storage);
    assert_eq!(reference.parse(data), Ok(httparse::Status::Complete(length)));
    assert_eq!(reference.method, Some(head.parts.method.as_str()));
    assert!(head.parts.headers.len() <= reference.headers.len());

    // No prefix of it is another whole head.
    let mut prefix = BytesMut::from(&data[..length - 1]);
    assert!(!matches!(parse_request(&mut prefix, LIMITS), Ok(Some(_))), "a prefix is whole too");

    // Nothing that ends a line is in a field, and what belongs to the connection is gone.
    for (name, value) in &head.parts.headers {
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{name}");
    }
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE] {
        assert!(!head.parts.headers.contains_key(&name), "{name}");
    }

    // Written as it goes to an app, it is read as the same.
    let Some(target) = head.parts.uri.path_and_query() else { return };
    let mut written = BytesMut::new();
    let parts = &head.parts;
    let (beside, connection) = (Beside::default(), Connection::Implied);
    request_head(
        &mut written,
        &parts.method,
        target.as_str().as_bytes(),
        &parts.headers,
        beside,
        Outgoing::None,
        &connection,
    );
    let limits = HeadLimits { size: 1 << 16, fields: 64 };
    if parts.headers.contains_key(header::HOST) && target.as_str().starts_with('/') {
        let again =
            parse_request(&mut written, limits).expect("what was read can be written").expect("whole");
        assert_eq!(again.parts.headers, parts.headers);
        assert_eq!(again.parts.method, parts.method);
        assert!(written.is_empty());
    }
});
