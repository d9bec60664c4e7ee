//! The lines of a snapshot for a given size: pure, so that what a terminal shows is a matter of tables of cases.

use clap::ValueEnum;

use super::snapshot::{Route, Snapshot};
use crate::log;

/// The order of the routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// Requests a second
    #[default]
    Load,
    /// 95th percentile of the duration
    Time,
    /// Share of failed requests
    Errors,
    /// Share of hits, the lowest first
    Hit,
}

impl Sort {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Sort::Load => "load",
            Sort::Time => "time",
            Sort::Errors => "errors",
            Sort::Hit => "hit",
        }
    }

    pub(super) fn next(self) -> Sort {
        match self {
            Sort::Load => Sort::Time,
            Sort::Time => Sort::Errors,
            Sort::Errors => Sort::Hit,
            Sort::Hit => Sort::Load,
        }
    }
}

/// Columns of the numbers of a route, each with a space before it, and rows of every section but that of the routes.
const RATE: usize = 10;
const SHARE: usize = 8;
const TIME: usize = 10;
const SIZE: usize = 11;
const STATE: usize = 8;
const SECTION_ROWS: usize = 4;
/// Minimum columns of a label of a route.
const MIN_LABEL: usize = 20;
/// Minimum rows of routes that the other sections leave.
const MIN_ROUTES: usize = 5;

/// Formats a number of bytes with a unit.
fn bytes(count: u64) -> String {
    let mut number = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if number < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{number:.1} {unit}") };
        }
        number /= 1024.0;
    }
    format!("{number:.1} TiB")
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn time(milliseconds: Option<f64>) -> String {
    let duration = |ms: f64| log::duration(std::time::Duration::from_secs_f64((ms / 1000.0).max(0.0)));
    milliseconds.map_or_else(|| "-".to_owned(), duration)
}

fn uptime(seconds: f64) -> String {
    let minutes = (seconds / 60.0) as u64;
    match (minutes / 1440, minutes / 60, minutes) {
        (0, 0, 0) => format!("{seconds:.0} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {} min", minutes % 60),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    }
}

/// Returns the routes whose label has `filter` in it, in the order of `sort`.
pub(super) fn chosen<'a>(routes: &'a [Route], sort: Sort, filter: &str) -> Vec<&'a Route> {
    let by = |route: &Route| match sort {
        Sort::Load => route.rate,
        Sort::Time => route.p95_ms.unwrap_or(-1.0),
        Sort::Errors => route.errors.unwrap_or(-1.0),
        // A route that asks no cache has no ratio, and comes last.
        Sort::Hit => route.hits.map_or(-2.0, |hits| -hits),
    };
    let mut chosen: Vec<&Route> = routes.iter().filter(|route| route.label.contains(filter)).collect();
    chosen.sort_by(|a, b| {
        by(b).total_cmp(&by(a)).then(b.rate.total_cmp(&a.rate)).then_with(|| a.label.cmp(&b.label))
    });
    chosen
}

/// Returns the first `columns` characters.
fn clipped(line: &str, columns: usize) -> String {
    line.chars().take(columns).collect()
}

fn padded(text: &str, columns: usize) -> String {
    format!("{:<columns$}", log::cut(text, columns))
}

/// Returns the table of routes: its head, and a line for each route. Columns on the right are left out where `columns`
/// has no room for them.
fn table(routes: &[&Route], columns: usize) -> Vec<String> {
    type Cell = fn(&Route) -> String;
    // In the order of their weight; the label is first and takes what is left.
    let all: [(&str, usize, Cell); 8] = [
        ("req/s", RATE, |route| format!("{:.2}", route.rate)),
        ("errors", SHARE, |route| percent(route.errors)),
        ("p95", TIME, |route| time(route.p95_ms)),
        ("hits", SHARE, |route| percent(route.hits)),
        ("p50", TIME, |route| time(route.p50_ms)),
        ("p99", TIME, |route| time(route.p99_ms)),
        (
            "state",
            STATE,
            |route| if route.state.is_empty() { "-".to_owned() } else { route.state.to_owned() },
        ),
        ("bytes", SIZE, |route| bytes(route.bytes)),
    ];
    let mut left = columns.saturating_sub(MIN_LABEL);
    let shown: Vec<_> = all
        .iter()
        .take_while(|(_, width, _)| {
            let fits = left > *width;
            left = left.saturating_sub(width + 1);
            fits
        })
        .collect();
    let max_label = routes.iter().map(|route| route.label.chars().count()).max().unwrap_or(0);
    let taken: usize = shown.iter().map(|(_, width, _)| width + 1).sum();
    let label = max_label.max(MIN_LABEL).min(columns.saturating_sub(taken).max(1));
    let line = |first: &str, cell: &dyn Fn(&(&str, usize, Cell)) -> String| {
        let cells: String = shown.iter().map(|column| format!(" {:>1$}", cell(column), column.1)).collect();
        format!("{}{cells}", padded(first, label))
    };
    let head = line("route (last minute)", &|(name, _, _)| (*name).to_owned());
    let rows = routes.iter().map(|route| line(&route.label, &|(_, _, value)| value(route)));
    std::iter::once(head).chain(rows).collect()
}

fn head(snapshot: &Snapshot) -> Vec<String> {
    let total = &snapshot.total;
    let mut lines = vec![
        format!(
            "pillion {}: {}, {}; up {}, configuration {}",
            snapshot.version,
            snapshot.ready,
            snapshot.health,
            uptime(snapshot.uptime_seconds),
            snapshot.generation
        ),
        format!(
            "{:.2} req/s, errors {}, p50 {}, p95 {}, p99 {}, hits {}",
            total.rate,
            percent(total.errors),
            time(total.p50_ms),
            time(total.p95_ms),
            time(total.p99_ms),
            percent(total.hits)
        ),
        format!(
            "memory {}, cache {} of {}, {} connections, {} requests in flight",
            bytes(snapshot.resident_bytes),
            bytes(snapshot.cache_bytes),
            bytes(snapshot.cache_max_bytes),
            snapshot.connections,
            snapshot.in_flight
        ),
    ];
    lines.extend(snapshot.unhealthy.iter().map(|(check, detail)| format!("! {check}: {detail}")));
    lines
}

/// Returns the sections behind the routes that have anything in them, each with its title first.
fn sections(snapshot: &Snapshot) -> Vec<Vec<String>> {
    let lookups: Vec<String> =
        snapshot.lookups.iter().map(|(word, count)| format!("{word} {count}")).collect();
    let lookups = if lookups.is_empty() { vec![] } else { vec![lookups.join(", ")] };
    let addresses = snapshot.addresses.iter().map(|(name, address, state, in_flight, waiting)| {
        format!(
            "{} {} {state}, {in_flight} in flight, {waiting} waiting",
            padded(name, 16),
            padded(address, 24)
        )
    });
    let limited = snapshot.limited.iter().map(|(name, tier, limited, allowed)| {
        format!("{} {} {limited} limited, {allowed} allowed", padded(name, 32), padded(tier, 12))
    });
    let processes = snapshot.processes.iter().map(|(name, version, state, age)| {
        format!("{} {} {state}, last update {age:.0} s ago", padded(name, 24), padded(version, 10))
    });
    let all = [
        ("upstream addresses", addresses.collect::<Vec<_>>()),
        ("cache lookups by result, since the start", lookups),
        ("limited callers, since the start", limited.collect()),
        ("processes of the fleet", processes.collect()),
    ];
    let filled = all.into_iter().filter(|(_, lines)| !lines.is_empty());
    filled.map(|(title, lines)| std::iter::once(title.to_owned()).chain(lines).collect()).collect()
}

/// Returns all lines of a snapshot, however long the routes are; for `--once`.
pub(super) fn whole(snapshot: &Snapshot, sort: Sort, filter: &str, columns: usize) -> Vec<String> {
    let routes = chosen(&snapshot.routes, sort, filter);
    let mut lines = head(snapshot);
    lines.push(String::new());
    lines.extend(table(&routes, columns));
    if routes.is_empty() {
        lines.push(none(snapshot));
    }
    for section in sections(snapshot) {
        lines.push(String::new());
        lines.extend(section);
    }
    lines.into_iter().map(|line| clipped(&line, columns).trim_end().to_owned()).collect()
}

fn none(snapshot: &Snapshot) -> String {
    let why = if snapshot.routes.is_empty() { "no requests yet" } else { "no route fits the filter" };
    why.to_owned()
}

/// The choices of a person at the terminal.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub sort: Sort,
    pub filter: String,
    /// Whether the filter is being typed.
    pub typing: bool,
    pub paused: bool,
    pub help: bool,
    /// Number of routes above the first one shown.
    pub scroll: usize,
}

impl View {
    /// Returns the line at the bottom of the screen. `lost` is why the last poll failed.
    fn status(&self, lost: Option<&str>) -> String {
        if self.typing {
            return format!("filter: {}_  (Enter takes it, Escape clears it)", self.filter);
        }
        if self.help {
            return "q quit  p pause  s sort  / filter  arrows or j k scroll  h close this line".to_owned();
        }
        let mut line = format!("by {}", self.sort.as_str());
        if !self.filter.is_empty() {
            line += &format!(", filter {}", self.filter);
        }
        if self.paused {
            line += ", paused";
        }
        if let Some(why) = lost {
            line += &format!(", disconnected: {why}");
        }
        line + "; h help"
    }

    /// Returns exactly `rows` lines of at most `columns` columns. Sections that have no room are left out, the last
    /// one first.
    pub(super) fn lines(
        &mut self,
        snapshot: &Snapshot,
        lost: Option<&str>,
        (columns, rows): (usize, usize),
    ) -> Vec<String> {
        let routes = chosen(&snapshot.routes, self.sort, &self.filter);
        let mut lines = head(snapshot);
        let status = self.status(lost);
        // The head of the table and the status line are always there.
        let room = rows.saturating_sub(lines.len() + 2);
        let wanted = routes.len().clamp(1, MIN_ROUTES);
        let mut left = room.saturating_sub(wanted);
        let mut behind = Vec::new();
        for section in sections(snapshot) {
            let take = section.len().min(SECTION_ROWS);
            if take > left {
                break;
            }
            left -= take;
            behind.extend(section.into_iter().take(take));
        }
        let shown = room.saturating_sub(behind.len());
        self.scroll = self.scroll.min(routes.len().saturating_sub(shown));
        let mut list = table(&routes, columns);
        let first = list.remove(0);
        lines.push(first);
        if routes.is_empty() {
            list.push(none(snapshot));
        }
        let mut list: Vec<String> = list.into_iter().skip(self.scroll).take(shown).collect();
        list.resize(shown, String::new());
        lines.extend(list);
        lines.extend(behind);
        lines.truncate(rows.saturating_sub(1));
        lines.push(status);
        lines.into_iter().map(|line| clipped(&line, columns)).collect()
    }
}

#[cfg(test)]
mod tests;
