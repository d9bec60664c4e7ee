//! Heads that the HTTP/2 library refuses on its own: it sends a 431 for heads beyond its limit, and resets malformed
//! ones. It reports this only in events of its own log, so a layer beside our log listens for those. A test sends such
//! heads and checks the count; it fails if a version of the library changes the wording.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The reason why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The head exceeds the library's limit.
    TooLarge,
    /// The bytes are not a valid HTTP/2 head.
    Malformed,
}

/// The library's module, the beginning of its message, and the meaning.
const WORDS: [(&str, &str, Refusal); 9] = [
    ("h2::proto::streams::recv", "stream error REQUEST_HEADER_FIELDS_TOO_LARGE", Refusal::TooLarge),
    ("h2::proto::streams::recv", "stream error PROTOCOL_ERROR -- could not parse", Refusal::Malformed),
    ("h2::proto::streams::recv", "stream error PROTOCOL_ERROR -- conflicting", Refusal::Malformed),
    ("h2::proto::streams::recv", "stream error PROTOCOL_ERROR -- recv_headers", Refusal::Malformed),
    ("h2::proto::streams::recv", "stream error PROTOCOL_ERROR -- cannot use", Refusal::Malformed),
    ("h2::codec::framed_read", "stream error PROTOCOL_ERROR -- malformed", Refusal::Malformed),
    ("h2::codec::framed_read", "stream error PROTOCOL_ERROR -- invalid HEADERS", Refusal::Malformed),
    ("h2::server", "malformed headers", Refusal::Malformed),
    ("h2::server", "stream error PROTOCOL_ERROR -- error building", Refusal::Malformed),
];
/// Number of characters of a message that are compared.
const COMPARED: usize = 80;

/// Maximum number of refusals remembered between two calls of [`take`]; one poll of a connection reads fewer heads.
const MAX: usize = 1024;

thread_local! {
    static REFUSED: RefCell<Vec<Refusal>> = const { RefCell::new(Vec::new()) };
}

/// Takes the refusals on this thread since the last call. Calls before and after each poll of a connection attribute
/// them to that connection.
pub(crate) fn take() -> Vec<Refusal> {
    REFUSED.take()
}

/// Returns the layer that listens for refusals. All other events are disabled for it, which the log macros cache per
/// call site, so it costs nothing without refusals.
pub(crate) fn listener<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let wanted = |event: &Metadata<'_>| {
        *event.level() == Level::DEBUG && WORDS.iter().any(|(target, ..)| event.target() == *target)
    };
    Listener.with_filter(filter_fn(wanted).and(LevelFilter::DEBUG))
}

struct Listener;

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let target = event.metadata().target();
        let word = WORDS.iter().find(|(module, begin, _)| *module == target && message.0.starts_with(begin));
        if let Some((.., refusal)) = word {
            REFUSED.with_borrow_mut(|refused| {
                if refused.len() < MAX {
                    refused.push(*refusal);
                }
            });
        }
    }
}

/// The beginning of an event's message. The rest, which the client controls, is not even copied.
struct Message(String);

impl fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = COMPARED.saturating_sub(self.0.len());
        self.0.extend(text.chars().take(room));
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // The error only says that enough was copied.
            let _ = write!(self, "{value:?}");
        }
    }
}
