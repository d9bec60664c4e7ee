//! The man page: one page in the form of man(7), with all commands and options as the command line declares them, and
//! with examples, files, environment variables, signals and exit codes.

use std::fmt::Write as _;

use clap::{Arg, Command};

/// The examples: what is done, and the command.
const EXAMPLES: [(&str, &str); 12] = [
    ("Run Pillion in front of an app, without a file:", "pillion run --upstream http://127.0.0.1:3000"),
    ("Check a file; every mistake is shown at once, with its line:", "pillion check pillion.toml"),
    ("Show the settings of a running Pillion, each with its origin:", "pillion config"),
    ("Run the test cases of a file, as a CI job does:", "pillion test pillion.test.toml"),
    ("Run with a file, which is reloaded when it is replaced:", "pillion run --config pillion.toml"),
    (
        "Show what happens to a request, and why, without sending it:",
        "pillion explain GET /api/patients/7 --header 'Authorization: Bearer abc'",
    ),
    (
        "Show what a running Pillion decided about a request, by its X-Request-Id:",
        "pillion explain --request-id 5f2b8c0e9a7d4e61b3c2a1908f7e6d5c",
    ),
    ("Watch failures as they happen:", "pillion tail --status 5xx"),
    ("Watch the figures of a running Pillion:", "pillion top"),
    ("Purge every stored response with a tag:", "pillion purge --tag patients"),
    ("Create an API key for a tier:", "pillion keys add --tier paid --name acme --file keys.toml"),
    ("Ask for the health of one check, in a container without a shell:", "pillion health memory"),
];

/// The files.
const FILES: [(&str, &str); 5] = [
    (
        "./pillion.toml, /etc/pillion/pillion.toml",
        "The configuration where no option names one: the first that exists.",
    ),
    ("/etc/pillion/keys.toml", "A usual place for API keys (rate_limit.keys). The file has only hashes."),
    ("/usr/share/doc/pillion/pillion.toml", "The reference: every key with its default and its meaning."),
    ("/usr/lib/systemd/system/pillion.service", "The unit for systemd."),
    (
        "/usr/lib/systemd/system/pillion.socket",
        "The sockets, if systemd is to open them: then a restart refuses no connection.",
    ),
];

/// Environment variables that are no options.
const ENVIRONMENT: [(&str, &str); 9] = [
    ("NAME", "Any variable stands where a string of the configuration has ${NAME} or ${NAME:-fallback}."),
    (
        "CREDENTIALS_DIRECTORY",
        "Folder of systemd credentials (LoadCredential=). Where the environment lacks NAME, the file NAME of this folder \
         stands for ${NAME}, without the newline at its end.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "systemd sets them. Pillion tells it of start, reload and stop, and that it lives.",
    ),
    (
        "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES",
        "systemd sets them where it opens the sockets. Pillion listens on those whose addresses are in the configuration.",
    ),
    ("OTEL_SERVICE_NAME", "The service.name of spans; without it pillion."),
    ("OTEL_RESOURCE_ATTRIBUTES", "Attributes of all spans: name=value,name=value, percent-encoded."),
    (
        "OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "Fields of each request to tracing.otlp_endpoint: name=value,name=value, percent-encoded.",
    ),
    ("MIMALLOC_PURGE_DELAY", "Milliseconds for which freed memory stays resident, 10 without it."),
    ("COLUMNS", "The width of help texts."),
];

/// The signals, and what each does.
const SIGNALS: [(&str, &str); 2] = [
    ("SIGHUP", "Loads the configuration again. A file with a mistake changes nothing; the log says why."),
    (
        "SIGTERM, SIGINT",
        "Stop: /ready responds with 503 for server.drain_delay, then requests in flight may take server.drain_timeout. A \
         second signal stops at once.",
    ),
];

/// The exit codes.
const EXIT_CODES: [(&str, &str); 3] = [
    ("0", "The command succeeded."),
    (
        "1",
        "The process did not start, no running Pillion was reached, or it refused the command or is unhealthy, or a test \
         case failed.",
    ),
    ("2", "The configuration has mistakes, or the command line is wrong."),
];

/// Renders the page. `command` has to be built.
pub(super) fn page(command: &Command) -> String {
    let mut page = Page(String::new());
    let version = command.get_version().unwrap_or_default();
    page.line(&format!(".TH PILLION 1 \"\" \"pillion {}\" \"User Commands\"", escaped(version)));
    // Without hyphenation and justification, names and values stay as they are typed.
    page.line(".nh\n.ad l");
    page.section("NAME");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    page.text(&format!("pillion - {}", lower_first(&about)));
    page.section("SYNOPSIS");
    page.line("\\fBpillion\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]");
    page.section("DESCRIPTION");
    page.text(
        "Pillion stands in front of an app that speaks HTTP. It caches responses, limits clients, compresses, retries and \
         watches the app's health. One TOML file configures it; the reference of all keys comes with it (FILES).",
    );
    page.section("COMMANDS");
    for inner in visible(command) {
        page.command(inner, "pillion");
    }
    page.section("EXAMPLES");
    for (what, line) in EXAMPLES {
        page.line(".PP");
        page.text(what);
        page.line(".PP\n.RS 4\n.nf");
        page.text(line);
        page.line(".fi\n.RE");
    }
    page.section("FILES");
    FILES.iter().for_each(|(term, about)| page.entry(term, about));
    page.section("ENVIRONMENT");
    let mut variables = Vec::new();
    variables_of(command, &mut variables);
    variables.iter().for_each(|(name, about)| page.entry(name, about));
    ENVIRONMENT.iter().for_each(|(term, about)| page.entry(term, about));
    page.section("SIGNALS");
    SIGNALS.iter().for_each(|(term, about)| page.entry(term, about));
    page.section("EXIT STATUS");
    EXIT_CODES.iter().for_each(|(term, about)| page.entry(term, about));
    page.0
}

/// Returns the subcommands that help shows, without `help` itself.
fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help")
}

/// Collects the variables that stand for options, each once, with the option's help.
fn variables_of(command: &Command, found: &mut Vec<(String, String)>) {
    for argument in command.get_arguments() {
        let Some(name) = argument.get_env().and_then(|name| name.to_str()) else { continue };
        if !found.iter().any(|(known, _)| known == name) {
            let option = argument.get_long().map(|long| format!(" (--{long})")).unwrap_or_default();
            let about = argument.get_help().map(ToString::to_string).unwrap_or_default();
            found.push((name.to_owned(), format!("{about}{option}")));
        }
    }
    visible(command).for_each(|inner| variables_of(inner, found));
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// A page in the making.
struct Page(String);

impl Page {
    /// Appends a line as it is.
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// Appends plain text.
    fn text(&mut self, text: &str) {
        let text = escaped(text);
        // A dot or an apostrophe would begin a request.
        let guard = if text.starts_with(['.', '\'']) { "\\&" } else { "" };
        self.line(&format!("{guard}{text}"));
    }

    fn section(&mut self, name: &str) {
        self.line(&format!(".SH {name}"));
    }

    /// Appends a term and its explanation.
    fn entry(&mut self, term: &str, about: &str) {
        self.line(".TP");
        self.line(&format!("\\fB{}\\fR", escaped(term)));
        self.text(about);
    }

    /// Appends a command with its arguments, and the commands below it.
    fn command(&mut self, command: &Command, above: &str) {
        let name = format!("{above} {}", command.get_name());
        let mut usage = escaped(&name);
        let arguments =
            || command.get_arguments().filter(|one| !one.is_hide_set() && !is_of_every_command(one));
        for argument in arguments().filter(|one| one.is_positional()) {
            let value = format!("\\fI{}\\fR", escaped(&value_name(argument)));
            let _ = if argument.is_required_set() {
                write!(usage, " {value}")
            } else {
                write!(usage, " [{value}]")
            };
        }
        self.line(&format!(".SS \"{usage}\""));
        self.text(&sentence(&command.get_about().map(ToString::to_string).unwrap_or_default()));
        for argument in arguments() {
            self.line(".TP");
            self.line(&term(argument));
            self.text(&about(argument));
        }
        for inner in visible(command) {
            self.command(inner, &name);
        }
    }
}

/// Whether each command has this option.
fn is_of_every_command(argument: &Arg) -> bool {
    matches!(argument.get_id().as_str(), "help" | "version")
}

fn value_name(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    if names.is_empty() { argument.get_id().as_str().to_uppercase() } else { names.join(" ") }
}

/// Renders the options' names and the value, or the name of a positional argument.
fn term(argument: &Arg) -> String {
    let value = format!("\\fI{}\\fR", escaped(&value_name(argument)));
    if argument.is_positional() {
        return value;
    }
    let short = argument.get_short().map(|short| format!("\\fB\\-{short}\\fR"));
    let long = argument.get_long().map(|long| format!("\\fB\\-\\-{}\\fR", escaped(long)));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let value = if argument.get_action().takes_values() { format!(" {value}") } else { String::new() };
    format!("{}{value}", names.join(", "))
}

/// Renders the help of an argument, with its default, its values and its variable.
fn about(argument: &Arg) -> String {
    let mut text = sentence(&argument.get_help().map(ToString::to_string).unwrap_or_default());
    let mut add = |label: &str, values: Vec<String>| {
        if !values.is_empty() {
            let _ = write!(text, " {label}: {}.", values.join(", "));
        }
    };
    if argument.get_action().takes_values() {
        let defaults = argument.get_default_values().iter();
        add("Default", defaults.map(|value| value.to_string_lossy().into_owned()).collect());
        let values = argument.get_possible_values();
        let shown =
            values.iter().filter(|value| !value.is_hide_set() && !argument.is_hide_possible_values_set());
        add("Values", shown.map(|value| value.get_name().to_owned()).collect());
    }
    let variable = argument.get_env().and_then(|name| name.to_str());
    add("Environment", variable.map(str::to_owned).into_iter().collect());
    text
}

/// Ends a help text with a full stop, which help texts lack.
fn sentence(text: &str) -> String {
    if text.is_empty() || text.ends_with(['.', ']', '?', '!']) { text.to_owned() } else { format!("{text}.") }
}

/// Escapes what man(7) would read as markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '"' => out.push_str("\\(dq"),
            '\'' => out.push_str("\\(aq"),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_a_text_is_escaped() {
        let mut page = Page(String::new());
        page.text(".SH not a \"section\" of C:\\ it's --plain");
        assert_eq!(page.0, "\\&.SH not a \\(dqsection\\(dq of C:\\e it\\(aqs \\-\\-plain\n");
    }

    #[test]
    fn argument_has_its_default_its_values_and_its_variable() {
        let argument = Arg::new("format")
            .short('f')
            .long("out-format")
            .help("Format of the output")
            .default_value("json")
            .value_parser(["json", "yaml"]);
        assert_eq!(term(&argument), "\\fB\\-f\\fR, \\fB\\-\\-out\\-format\\fR \\fIFORMAT\\fR");
        assert_eq!(about(&argument), "Format of the output. Default: json. Values: json, yaml.");
        let positional = Arg::new("file").index(1).env("FILE");
        assert_eq!(term(&positional), "\\fIFILE\\fR");
        assert_eq!(about(&positional), " Environment: FILE.");
    }
}
