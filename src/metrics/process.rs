//! Metrics that the kernel reports about this process, under the names that all Prometheus clients use.

use std::fmt;
use std::sync::OnceLock;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::runtime::clock;

/// Values read from /proc/self; zero if a file cannot be read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessReading {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_fds: u64,
    pub max_fds: u64,
    pub threads: u64,
    /// The start of the process in seconds since the Unix epoch.
    pub start_seconds: f64,
}

static STARTED: OnceLock<f64> = OnceLock::new();

/// Reads the current values. The first call sets the start time of the process.
pub(crate) fn read_process() -> ProcessReading {
    let start_seconds = *STARTED.get_or_init(|| clock::unix_seconds(clock::wall()));
    let mut reading = ProcessReading { start_seconds, ..ProcessReading::default() };
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as u64;
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat") {
        // The second field is the command name, which may contain spaces. It ends at the last parenthesis.
        let fields: Vec<&str> =
            stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
        let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        reading.cpu_seconds = (field(11) + field(12)) as f64 / ticks;
        reading.threads = field(17);
        reading.virtual_bytes = field(20);
        reading.resident_bytes = field(21) * page;
    }
    reading.open_fds = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    reading.max_fds = limit.current.unwrap_or(u64::MAX);
    reading
}

/// The CPU time of one worker's thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerReading {
    pub index: usize,
    pub cpu_seconds: f64,
}

/// Prefix of the thread names of workers.
pub(crate) const WORKER: &str = "pillion-";

/// Reads the CPU time of all workers from /proc/self/task, by the names of their threads.
pub(crate) fn read_workers() -> Vec<WorkerReading> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().filter_map(Result::ok);
    let reading = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (begin, rest) = stat.rsplit_once(") ")?;
        let name = begin.split_once('(')?.1;
        let index = name.strip_prefix(WORKER)?.parse().ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Some(WorkerReading { index, cpu_seconds: (field(11) + field(12)) as f64 / ticks })
    };
    let mut workers: Vec<WorkerReading> = tasks.filter_map(reading).collect();
    workers.sort_by_key(|worker| worker.index);
    workers
}

/// A collector for the registry without Pillion's prefix.
#[derive(Debug)]
pub(super) struct Collected;

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let process = read_process();
        let help = "User and system CPU time in seconds";
        let mut cpu = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        cpu.encode_counter::<[(&str, &str); 0], f64, f64>(&process.cpu_seconds, None)?;
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory in bytes", process.resident_bytes as f64),
            ("process_virtual_memory_bytes", "Virtual memory in bytes", process.virtual_bytes as f64),
            ("process_open_fds", "Open file descriptors", process.open_fds as f64),
            ("process_max_fds", "Limit of open file descriptors", process.max_fds as f64),
            ("process_threads", "Threads", process.threads as f64),
            (
                "process_start_time_seconds",
                "Start time of the process, in seconds since the epoch",
                process.start_seconds,
            ),
        ];
        for (name, help, value) in gauges {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

/// A collector for the CPU time of each worker; its rate tells how busy the worker is.
#[derive(Debug)]
pub(super) struct Workers;

impl Collector for Workers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "User and system CPU time of a worker, in seconds; its rate is the worker's load";
        let mut cpu = encoder.encode_descriptor("worker_cpu_seconds", help, None, MetricType::Counter)?;
        for worker in read_workers() {
            let labels = [("worker", worker.index.to_string())];
            let seconds = worker.cpu_seconds;
            cpu.encode_family(&labels)?.encode_counter::<[(&str, &str); 0], f64, f64>(&seconds, None)?;
        }
        Ok(())
    }
}
