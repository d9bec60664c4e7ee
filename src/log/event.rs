//! Formats log events as JSON lines that begin as those of the access log do: `time`, `level`, `message`.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::time;
use crate::runtime::clock;

/// Formats an event as one JSON object in one line.
pub(crate) struct JsonEvents;

impl<S, N> FormatEvent<S, N> for JsonEvents
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut members = Members::default();
        event.record(&mut members);
        let now = time::rfc3339(clock::now());
        let (time, level) = (String::from_utf8_lossy(&now), event.metadata().level());
        let message = serde_json::Value::from(members.message);
        writeln!(
            writer,
            "{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":{message}{}}}",
            members.others
        )
    }
}

/// The members of one event as JSON text.
#[derive(Default)]
struct Members {
    message: String,
    others: String,
}

impl Members {
    fn put(&mut self, field: &Field, value: &dyn fmt::Display) {
        let name = serde_json::Value::from(field.name().trim_start_matches("r#"));
        // Writing to a string cannot fail.
        let _ = write!(self.others, ",{name}:{value}");
    }
}

impl Visit for Members {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, &serde_json::Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.put(field, &serde_json::Value::from(value));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// The local time of day, for events in lines for people.
pub(crate) struct LocalTime;

impl FormatTime for LocalTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&time::local(clock::now()))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn event_is_one_json_object_that_begins_with_time_level_and_message() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer =
            tracing_subscriber::fmt().event_format(JsonEvents).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(layer, || {
            let error = io::Error::other("it \"broke\"\n");
            tracing::warn!(left = 3, share = 0.5, fine = true, text = "a\"b", %error, "of {}", "it");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(text.starts_with("{\"time\":\"") && text.ends_with("}\n"), "{text}");
        let rest = text.split_once("\",\"level\"").unwrap().1;
        assert!(rest.starts_with(":\"WARN\",\"message\":\"of it\","), "{text}");
        let expected = serde_json::json!({
            "time": line["time"], "level": "WARN", "message": "of it", "left": 3, "share": 0.5, "fine": true,
            "text": "a\"b", "error": "it \"broke\"\n",
        });
        assert_eq!(line, expected);
    }
}
