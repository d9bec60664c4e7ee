//! Heads that the HTTP/2 library refuses without a word to us: larger than what it was told to take, it
//! answers them 431 by itself. It says so in an event of its own log, which is all there is to go by, so a
//! layer beside our log listens for that one event. A test sends such a head and finds it counted; a
//! version of the library that words it otherwise fails there.

use std::cell::Cell;
use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The module of the library that refuses.
const TARGET: &str = "h2::proto::streams::recv";
/// How its event begins.
const MESSAGE: &str = "stream error REQUEST_HEADER_FIELDS_TOO_LARGE";

thread_local! {
    static REFUSED: Cell<usize> = const { Cell::new(0) };
}

/// How many heads were refused on this thread since the last call. Who asks after each poll of a
/// connection knows whose they were.
pub fn take_refused() -> usize {
    REFUSED.take()
}

/// The layer that listens. Every other event is none of its business, which the log's macros remember
/// place by place, so it costs nothing where nothing is refused.
pub fn listener<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let wanted = |event: &Metadata<'_>| event.target() == TARGET && *event.level() == Level::DEBUG;
    Listener.with_filter(filter_fn(wanted).and(LevelFilter::DEBUG))
}

struct Listener;

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut seen = Seen(false);
        event.record(&mut seen);
        if seen.0 {
            REFUSED.set(REFUSED.get() + 1);
        }
    }
}

/// Whether the message is the one.
struct Seen(bool);

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 |= format!("{value:?}").starts_with(MESSAGE);
        }
    }
}
