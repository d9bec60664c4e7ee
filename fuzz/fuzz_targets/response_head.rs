//! Response heads: against httparse's own reading, in pieces, and against their own writing.
#![no_main]

use bytes::BytesMut;
use http::Method;
use libfuzzer_sys::fuzz_target;
use pillion::internals::Framing;
use pillion::internals::ReasonPhrase;
use pillion::internals::{Connection, Outgoing, response_head};
use pillion::internals::{HeadLimits, parse_response};

const LIMITS: HeadLimits = HeadLimits { size: 4096, fields: 32 };

fuzz_target!(|data: &[u8]| {
    let Some((method, data)) = data.split_first() else { return };
    let method = if method % 2 == 0 { Method::GET } else { Method::HEAD };
    let mut input = BytesMut::from(data);
    let head = match parse_response(&mut input, &method, LIMITS) {
        Ok(Some(head)) => head,
        Ok(None) => return,
        Err(error) => return assert!(!error.detail_of_response().is_empty()),
    };
    let length = data.len() - input.len();
    let mut storage = [httparse::EMPTY_HEADER; 32];
    let mut reference = httparse::Response::new(&mut storage);
    assert_eq!(reference.parse(data), Ok(httparse::Status::Complete(length)));
    assert_eq!(reference.code, Some(head.parts.status.as_u16()));
    if method == Method::HEAD || matches!(head.parts.status.as_u16(), 100..200 | 204 | 304) {
        assert_eq!(head.framing, Framing::Length(0));
    }
    let phrase: Option<&ReasonPhrase> = head.parts.extensions.get();
    if let (Some(phrase), Some(reason)) =
        (phrase.and_then(|phrase| phrase.for_status(head.parts.status)), reference.reason)
    {
        // The reference drops phrases with octets beyond ASCII.
        assert!(reason.is_empty() || reason.as_bytes().trim_ascii() == phrase);
        assert!(!phrase.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }

    let mut written = BytesMut::new();
    let parts = &head.parts;
    response_head(
        &mut written,
        parts.status,
        phrase,
        &parts.headers,
        None,
        None,
        Outgoing::None,
        &Connection::Implied,
    );
    let limits = HeadLimits { size: 1 << 16, fields: 64 };
    let again =
        parse_response(&mut written, &method, limits).expect("what was read can be written").expect("whole");
    assert_eq!(again.parts.status, parts.status);
    for (name, value) in &parts.headers {
        assert!(again.parts.headers.get_all(name).iter().any(|other| other == value), "{name}");
    }
    assert_eq!(again.parts.extensions.get::<ReasonPhrase>(), phrase);
});
