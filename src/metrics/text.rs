//! Finishes text expositions: the library writes OpenMetrics, which is converted to the older Prometheus text format
//! unless the scraper asks for OpenMetrics.

use std::fmt::Write as _;

/// Joins the library's OpenMetrics output of several registries to one text.
pub(super) fn render(texts: &[String], open_metrics: bool) -> String {
    let without_end = texts.iter().map(|text| text.strip_suffix("# EOF\n").unwrap_or(text));
    let text: String = without_end.collect();
    if open_metrics { text + "# EOF\n" } else { to_prometheus(&text) }
}

/// Converts to the older format, in which HELP and TYPE lines of counters have the suffix `_total` too, and which has
/// no type for information.
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
        let text = render(&[open.to_owned(), "# HELP c C.\n# TYPE c gauge\nc 1\n# EOF\n".to_owned()], false);
        assert!(text.starts_with(
            "# HELP a_x_total Things.\n# TYPE a_x_total counter\na_x_total 1\n# HELP b_info B.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n"
        ), "{text}");
        assert!(text.contains("# TYPE c gauge\nc 1\n") && !text.contains("EOF"));
        assert!(render(&[open.to_owned(), open.to_owned()], true).matches("# EOF\n").count() == 1);
    }
}
