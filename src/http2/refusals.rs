//! Heads that the HTTP/2 library refuses without a word to us: those larger than it was told to take it
//! answers with 431, malformed ones it resets. It says so in events of its own log, which is all there is to
//! go by, so a layer beside our log listens for those. A test sends such heads and finds them counted; a
//! version of the library that words it otherwise fails there.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It was larger than the library was told to take.
    TooLarge,
    /// It is no head of HTTP/2.
    Malformed,
}

/// The module of the library, how its message begins, and what it means.
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
/// As much of a message as is compared.
const COMPARED: usize = 80;

/// The most remembered between two questions: one poll of a connection reads no more heads.
const MAX: usize = 1024;

thread_local! {
    static REFUSED: RefCell<Vec<Refusal>> = const { RefCell::new(Vec::new()) };
}

/// What was refused on this thread since the last call. Who asks before and after each poll of a connection
/// knows whose they were.
pub(crate) fn take() -> Vec<Refusal> {
    REFUSED.take()
}

/// The layer that listens. Every other event is none of its business, which the log's macros remember
/// place by place, so it costs nothing where nothing is refused.
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

/// The beginning of an event's message; what a client wrote into the rest of it is not even copied.
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
            // It fails where it has enough.
            let _ = write!(self, "{value:?}");
        }
    }
}
