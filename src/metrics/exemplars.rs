//! Adds exemplars to the output of the metrics library, which accepts them only from its own histograms.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as message;

use super::durations::Exemplar;
use super::labels::Labels;

/// The label that holds the trace id.
const TRACE_ID: &str = "trace_id";

/// The exemplars of one series of a histogram, each with the index of its bucket.
#[derive(Debug)]
pub(super) struct Marked {
    /// The name of the histogram, without the registry's prefix.
    pub name: &'static str,
    pub labels: Labels,
    pub exemplars: Vec<(usize, Exemplar)>,
}

impl Exemplar {
    fn id(&self) -> String {
        format!("{:032x}", self.traced.trace)
    }
}

/// Escapes a label value for the text format.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Returns the name and the labels of the series if a line of text is a bucket. The bound `le` precedes the other
/// labels.
fn split_series(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once("_bucket{le=\"")?;
    let (_, labels) = rest.split_once("\",")?;
    Some((name, labels.rsplit_once('}')?.0))
}

/// Returns the name and the labels of the series that gets exemplars, in the same form.
fn series(prefix: &str, marked: &Marked) -> (String, String) {
    let labels = marked.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    (format!("{prefix}_{}", marked.name), labels.collect::<Vec<_>>().join(","))
}

/// Appends exemplars to the bucket lines of an OpenMetrics text.
pub(super) fn into_text(text: &str, prefix: &str, marked: &[Marked]) -> String {
    let all: Vec<(String, String)> = marked.iter().map(|marked| series(prefix, marked)).collect();
    let known = all.iter().map(|(name, labels)| (name.as_str(), labels.as_str()));
    let known: HashMap<(&str, &str), &Marked> = known.zip(marked).collect();
    let mut out = String::with_capacity(text.len() + marked.len() * 256);
    let (mut before, mut bucket) = (None, 0);
    for line in text.lines() {
        out.push_str(line);
        let series = split_series(line);
        bucket = if series == before { bucket + 1 } else { 0 };
        before = series;
        let found = series.and_then(|series| known.get(&series)).and_then(|marked| {
            let mut exemplars = marked.exemplars.iter();
            exemplars.find(|(of, _)| *of == bucket).map(|(_, exemplar)| exemplar)
        });
        if let Some(exemplar) = found {
            let (id, at) = (exemplar.id(), exemplar.traced.at.as_secs_f64());
            // Writing to a string cannot fail.
            let _ = write!(out, " # {{{TRACE_ID}=\"{id}\"}} {} {at:.3}", exemplar.seconds);
        }
        out.push('\n');
    }
    out
}

/// Adds exemplars to the buckets of protobuf messages.
pub(super) fn into_messages(families: &mut [message::MetricFamily], prefix: &str, marked: &[Marked]) {
    for family in families {
        let name = family.name.as_str();
        let of_family = marked.iter().filter(|marked| {
            name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')) == Some(marked.name)
        });
        for marked in of_family {
            let is_it = |metric: &&mut message::Metric| {
                let labels = marked.labels.iter();
                metric.label.len() == marked.labels.len()
                    && labels
                        .zip(&metric.label)
                        .all(|((name, value), label)| label.name == *name && label.value == *value)
            };
            let histogram = family.metric.iter_mut().find(is_it).and_then(|metric| metric.histogram.as_mut());
            let Some(histogram) = histogram else { continue };
            for (bucket, exemplar) in &marked.exemplars {
                let said = message(exemplar);
                if let Some(bucket) = histogram.bucket.get_mut(*bucket) {
                    bucket.exemplar = Some(said.clone());
                }
                histogram.exemplars.push(said);
            }
        }
    }
}

fn message(exemplar: &Exemplar) -> message::Exemplar {
    let label = message::LabelPair { name: TRACE_ID.to_owned(), value: exemplar.id() };
    message::Exemplar {
        label: vec![label],
        value: exemplar.seconds,
        timestamp: Some((UNIX_EPOCH + exemplar.traced.at).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Traced;

    fn marked(route: &str, bucket: usize) -> Marked {
        let labels = [("method", "GET"), ("route", route), ("status", "200")];
        let labels = labels.map(|(name, value)| (name, value.to_owned()));
        let at = Duration::from_millis(1_500);
        let exemplar = Exemplar { traced: Traced { trace: 0xab, at }, seconds: 0.25 };
        Marked { name: "h", labels, exemplars: vec![(bucket, exemplar)] }
    }

    #[test]
    fn lines_are_marked_by_series_and_bucket() {
        let line = |le: &str, route: &str| {
            format!("p_h_bucket{{le=\"{le}\",method=\"GET\",route=\"{route}\",status=\"200\"}} 1\n")
        };
        let quoted = "/a\\\"}";
        let text = [
            line("0.1", "/a"),
            line("+Inf", "/a"),
            line("0.1", quoted),
            line("+Inf", quoted),
            "p_h_count 1\n".into(),
        ];
        let out = into_text(&text.concat(), "p", &[marked("/a", 1), marked("/a\"}", 0), marked("/else", 0)]);
        let exemplar = format!(" # {{trace_id=\"{:032x}\"}} 0.25 1.500", 0xab);
        let found: Vec<bool> = out.lines().map(|line| line.ends_with(&exemplar)).collect();
        assert_eq!(found, [false, true, true, false, false], "{out}");
    }
}
