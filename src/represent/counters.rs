//! The counters of representations and how they appear in a scrape.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::coding::Coding;
use crate::represent::compression_decision::{Choice, Reason};
use crate::represent::reencode::{Holder, Recoding};

use crate::memory::memory_budget::MemoryBudget;
use crate::metrics::Cell;
use crate::runtime::clock;

#[derive(Debug, Default)]
pub(crate) struct CodingCounters {
    responses: Cell,
    before: Cell,
    after: Cell,
    nanoseconds: Cell,
}

impl CodingCounters {
    /// Counts a run of an encoder: bytes before and after, and its duration.
    pub(crate) fn ran(&self, before: usize, after: usize, duration: Duration) {
        self.before.add(before as u64);
        self.after.add(after as u64);
        self.nanoseconds.add(clock::nanoseconds(duration));
    }
}

/// The counters of all representations, kept for the life of the process.
#[derive(Debug)]
pub(crate) struct Counters {
    codings: [Arc<CodingCounters>; Coding::ALL.len()],
    left: [Cell; Reason::ALL.len()],
    /// 304 responses that the upstream sent.
    pub not_modified_by_app: Cell,
    /// 304 responses that Pillion made of an upstream's 200.
    pub not_modified_by_pillion: Cell,
    pub tags: Cell,
    /// 206 responses that Pillion made of an upstream's 200.
    pub partial: Cell,
    pub budget: Arc<MemoryBudget>,
    /// Memory of the encoders of responses being sent; the buffer memory bounds it, of which each encoder holds a part.
    pub encoders: Arc<MemoryBudget>,
    /// Stored content that is encoded again, and the CPU time for that.
    pub recoding: Recoding,
}

/// Maximum bytes of content that all workers buffer at once.
const MAX_GATHERED: usize = 64 * 1024 * 1024;

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            codings: Default::default(),
            left: Default::default(),
            not_modified_by_app: Cell::default(),
            not_modified_by_pillion: Cell::default(),
            tags: Cell::default(),
            partial: Cell::default(),
            budget: Arc::new(MemoryBudget::at_most(MAX_GATHERED)),
            encoders: Arc::new(MemoryBudget::at_most(usize::MAX)),
            recoding: Recoding::default(),
        }
    }
}

impl Counters {
    /// Counts a response with content.
    pub(crate) fn chose(&self, choice: Choice) {
        self.chose_at(Counters::place(choice));
    }

    /// Returns the index of the counter for a choice.
    pub(crate) fn place(choice: Choice) -> usize {
        let coding = |coding: Coding| Coding::ALL.iter().position(|other| *other == coding);
        let reason = |reason: Reason| Reason::ALL.iter().position(|other| *other == reason);
        match choice {
            Choice::Code(code) => coding(code).unwrap_or_default(),
            Choice::Leave(why) => Coding::ALL.len() + reason(why).unwrap_or_default(),
        }
    }

    /// Counts a response with content under an index of [`Counters::place`].
    pub(crate) fn chose_at(&self, place: usize) {
        match (self.codings.get(place), place.checked_sub(self.codings.len())) {
            (Some(coding), _) => coding.responses.add(1),
            (None, left) => {
                if let Some(cell) = left.and_then(|left| self.left.get(left)) {
                    cell.add(1);
                }
            }
        }
    }

    /// Returns the codings and the reasons for none, each with the number of responses.
    pub(crate) fn chosen(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let codings = Coding::ALL.iter().zip(&self.codings);
        let codings = codings.map(|(coding, counters)| (coding.as_str(), counters.responses.get()));
        let left = Reason::ALL.iter().zip(&self.left).map(|(reason, cell)| (reason.as_str(), cell.get()));
        codings.chain(left)
    }

    /// Returns the counters of one coding.
    pub(crate) fn coding(&self, coding: Coding) -> &Arc<CodingCounters> {
        // In the order of `Coding::ALL`.
        match coding {
            Coding::Zstd => &self.codings[0],
            Coding::Brotli => &self.codings[1],
            Coding::Gzip => &self.codings[2],
        }
    }
}

impl Holder for Counters {
    fn recoding(&self) -> &Recoding {
        &self.recoding
    }
}

#[derive(Debug)]
pub(crate) struct Collected(pub Arc<Counters>);

type Label = [(&'static str, &'static str); 1];
type Rows = Vec<(Label, f64)>;

impl Collected {
    fn families(&self) -> [(&'static str, &'static str, Rows); 6] {
        let counters = &self.0;
        let by_coding = |value: fn(&CodingCounters) -> f64| -> Rows {
            let codings = Coding::ALL.iter();
            codings.map(|coding| ([("coding", coding.as_str())], value(counters.coding(*coding)))).collect()
        };
        let mut results: Rows = by_coding(|coding| coding.responses.get() as f64);
        results.iter_mut().for_each(|(label, _)| label[0].0 = "result");
        let left = Reason::ALL.iter().zip(&counters.left);
        results.extend(left.map(|(reason, cell)| ([("result", reason.as_str())], cell.get() as f64)));
        let sources =
            [("app", &counters.not_modified_by_app), ("pillion", &counters.not_modified_by_pillion)];
        let not_modified = sources.map(|(source, cell)| ([("source", source)], cell.get() as f64)).to_vec();
        let made =
            [("etag", &counters.tags), ("partial", &counters.partial), ("recoded", &counters.recoding.done)];
        let made = made.map(|(what, cell)| ([("what", what)], cell.get() as f64)).to_vec();
        [
            (
                "content",
                "Responses with a body, by applied content coding or the reason none was applied",
                results,
            ),
            (
                "coding_input_bytes",
                "Content before encoding, in bytes",
                by_coding(|coding| coding.before.get() as f64),
            ),
            (
                "coding_output_bytes",
                "Content after encoding, in bytes",
                by_coding(|coding| coding.after.get() as f64),
            ),
            (
                "coding_seconds",
                "Time spent encoding, in seconds",
                by_coding(|coding| coding.nanoseconds.get() as f64 / 1e9),
            ),
            (
                "not_modified",
                "304 responses, by source: the upstream's own, or made from its 200",
                not_modified,
            ),
            ("made", "Entity tags, partial responses and re-encoded stored responses made, by kind", made),
        ]
    }
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, rows) in self.families() {
            let mut descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (label, value) in rows {
                let mut family = descriptor.encode_family(&label)?;
                family.encode_counter::<[(&str, &str); 0], f64, f64>(&value, None)?;
            }
        }
        let gauges = [
            ("content_gathered_bytes", "Content buffered to make its entity tag, in bytes", &self.0.budget),
            ("coding_memory_bytes", "Memory of running encoders, in bytes", &self.0.encoders),
        ];
        for (name, help, held) in gauges {
            let gauge = ConstGauge::new(i64::try_from(held.get()).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}
