//! Encodes stored content again with the best effort if it is sent often, on a thread beside the workers and within a
//! small share of the CPU.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;

use super::coding::{Coding, Effort};
use crate::memory::chunked_bytes::ChunkedBytes;
use crate::message::body::Kept;
use crate::metrics::Cell;
use crate::represent::encoder::Encoder;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// Content sent this often is encoded again; checked once in this many responses.
const OFTEN: u32 = 64;
/// Maximum length of content that is encoded again, in bytes.
const MAX: usize = 256 * 1024;
/// Divisor of the available CPU time: encoding again may use one part in this many.
const SHARE: u32 = 50;
/// CPU time that may be used at once after a pause.
const BURST: Duration = Duration::from_millis(200);

/// The budget of encoding again, and the CPU time used so far.
#[derive(Debug)]
pub(crate) struct Recoding {
    since: Instant,
    cores: u32,
    nanoseconds: Cell,
    busy: AtomicBool,
    pub done: Cell,
}

impl Default for Recoding {
    fn default() -> Recoding {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Recoding {
            since: clock::now(),
            cores: u32::try_from(cores).unwrap_or(1),
            nanoseconds: Cell::default(),
            busy: AtomicBool::new(false),
            done: Cell::default(),
        }
    }
}

/// An owner of a [`Recoding`], which the background thread keeps alive.
pub(crate) trait Holder: Send + Sync + 'static {
    fn recoding(&self) -> &Recoding;
}

impl Recoding {
    /// Returns whether there is CPU time for another encoding.
    fn may(&self, now: Instant) -> bool {
        let granted = (now.saturating_duration_since(self.since) * self.cores / SHARE).max(BURST);
        Duration::from_nanos(self.nanoseconds.get()) <= granted
    }

    /// Encodes the content again in the background if it is sent often, short enough, and there is CPU time. `length`
    /// is the current encoded length in bytes.
    pub(crate) fn perhaps<H: Holder>(
        &self,
        holder: &Arc<H>,
        kept: &Arc<dyn Kept>,
        coding: Coding,
        effort: Effort,
        length: usize,
    ) {
        let often = kept.given() >= OFTEN && kept.given().is_multiple_of(OFTEN);
        if !often || effort == Effort::Best || !self.may(clock::now()) {
            return;
        }
        let Some(content) = kept.content().filter(|content| content.len() <= MAX) else { return };
        if self.busy.swap(true, Ordering::Relaxed) {
            return;
        }
        if !kept.claim(coding.as_str()) {
            self.busy.store(false, Ordering::Relaxed);
            return;
        }
        let (holder, kept) = (holder.clone(), kept.clone());
        tokio::task::spawn_blocking(move || {
            let recoding = holder.recoding();
            let since = clock::now();
            let made = whole(coding, &content);
            let took = clock::now().saturating_duration_since(since);
            recoding.nanoseconds.add(clock::nanoseconds(took));
            if let Ok(made) = made
                && made.len() < length
            {
                kept.keep(coding.as_str(), ChunkedBytes::copy(&made));
                recoding.done.add(1);
            }
            recoding.busy.store(false, Ordering::Relaxed);
        });
    }
}

fn whole(coding: Coding, content: &ChunkedBytes) -> std::io::Result<BytesMut> {
    let mut encoder = Encoder::new(coding, Effort::Best, Some(content.len() as u64));
    let mut out = BytesMut::with_capacity(content.len() / 4);
    let slice = encoder.slice().max(1);
    for piece in content.iter().flat_map(|piece| piece.chunks(slice)) {
        encoder.encode(piece, &mut out)?;
    }
    encoder.finish(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_share_of_the_cpu() {
        let now = clock::now();
        let recoding = Recoding { since: now, cores: 2, ..Recoding::default() };
        assert!(recoding.may(now));
        recoding.nanoseconds.add(300_000_000);
        assert!(!recoding.may(now));
        assert!(!recoding.may(now + Duration::from_secs(7)));
        assert!(recoding.may(now + Duration::from_secs(8)), "two per cent of two cores in eight seconds");
    }
}
