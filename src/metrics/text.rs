//! The last step of the exposition: process metrics are added, and OpenMetrics, which the library
//! writes, is turned into the older text format for whoever does not ask for it.

use std::fmt::Write as _;

use super::process::ProcessReading;

/// Finishes `text`, the library's OpenMetrics output.
pub fn render(mut text: String, process: &ProcessReading, open_metrics: bool) -> String {
    if let Some(end) = text.rfind("# EOF") {
        text.truncate(end);
    }
    write_process(&mut text, process);
    if open_metrics {
        text.push_str("# EOF\n");
        text
    } else {
        to_prometheus(&text)
    }
}

fn write_process(text: &mut String, process: &ProcessReading) {
    let mut line = |name: &str, kind: &str, help: &str, value: f64| {
        let suffix = if kind == "counter" { "_total" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}\n{name}{suffix} {value}");
    };
    line("process_cpu_seconds", "counter", "User and system CPU time", process.cpu_seconds);
    line("process_resident_memory_bytes", "gauge", "Resident memory", process.resident_bytes as f64);
    line("process_virtual_memory_bytes", "gauge", "Address space", process.virtual_bytes as f64);
    line("process_open_fds", "gauge", "Open file descriptors", process.open_fds as f64);
    line("process_max_fds", "gauge", "Limit of open file descriptors", process.max_fds as f64);
    line("process_threads", "gauge", "Threads", process.threads as f64);
    line("process_start_time_seconds", "gauge", "Start, since the epoch", process.start_seconds);
}

/// In the older format a family of counters carries `_total` in its HELP and TYPE lines too, and
/// there is no type for information.
fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
            continue;
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            if let Some((_, help)) = help.take() {
                let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
            continue;
        }
        if !line.starts_with("# ") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_carry_their_suffix_in_the_older_format() {
        let open = "# HELP a_x Things.\n# TYPE a_x counter\na_x_total 1\n# HELP b B.\n# TYPE b info\nb_info{v=\"1\"} 1\n# EOF\n";
        let text = render(open.to_owned(), &ProcessReading::default(), false);
        assert!(text.starts_with(
            "# HELP a_x_total Things.\n# TYPE a_x_total counter\na_x_total 1\n# HELP b_info B.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n"
        ), "{text}");
        assert!(text.contains("# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 0\n"));
        assert!(!text.contains("EOF"));
        assert!(render(open.to_owned(), &ProcessReading::default(), true).ends_with("# EOF\n"));
    }
}
