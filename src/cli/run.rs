//! The command `pillion run`, which starts the proxy.

use clap::Command;

use super::output::{FAILED, OK, fail};
use super::source::Where;
use crate::app;
use crate::config::Source;

/// Runs the proxy until it is told to stop; returns the exit code. `command` is the whole command line, which names the
/// variables of all options.
pub(super) fn run(place: Where, command: &Command) -> u8 {
    let mut source = match place.source() {
        Ok(source) => source,
        Err(why) => return fail(FAILED, &why),
    };
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    source.stray_variables = strays(names, &variables(command), &text(&source));
    match app::run(source, |_| {}) {
        Ok(()) => OK,
        Err(why) => fail(FAILED, &why),
    }
}

/// The text that may refer to variables. A file that cannot be read is reported by the start.
fn text(source: &Source) -> String {
    source.file.as_deref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default()
}

/// The variables that options of all commands take their values from.
pub(super) fn variables(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned));
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}

/// The variables whose names look like those of options and are none. The file may refer to others, and Kubernetes sets
/// some for each service (`PILLION_SERVICE_HOST`, `PILLION_PORT_8080_TCP`).
fn strays(names: impl Iterator<Item = String>, known: &[String], text: &str) -> Vec<String> {
    let is_stray = |name: &String| {
        name.strip_prefix("PILLION_").is_some_and(|rest| {
            !rest.contains("PORT") && !rest.starts_with("SERVICE_") && !rest.contains("_SERVICE_")
        }) && !known.contains(name)
            && !text.contains(&format!("${{{name}}}"))
            && !text.contains(&format!("${{{name}:-"))
    };
    let mut strays: Vec<String> = names.filter(is_stray).collect();
    strays.sort();
    strays
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn variable_that_is_no_option_is_told_but_not_one_of_kubernetes() {
        let known = variables(&Cli::command());
        let names = [
            "PILLION_UPSTRAEM",
            "PILLION_UPSTREAM",
            "PILLION_ADMIN_TOKEN",
            "PILLION_PORT",
            "PILLION_PORT_8080_TCP_ADDR",
            "PILLION_SERVICE_HOST",
            "PILLION_ADMIN_SERVICE_PORT_HTTP",
            "PILLION_REGION",
            "PILLION_ZONE",
            "PATH",
        ];
        let text = "set_request = { x-region = \"${PILLION_REGION:-eu}\" }";
        let strays = strays(names.into_iter().map(str::to_owned), &known, text);
        assert_eq!(strays, ["PILLION_UPSTRAEM", "PILLION_ZONE"]);
    }

    #[test]
    fn run_option_has_its_variable_and_no_command_has_a_port() {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        for argument in run.get_arguments() {
            let name = argument.get_long().unwrap();
            let variable = format!("PILLION_{}", name.to_uppercase().replace('-', "_"));
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(&*variable));
        }
        // Kubernetes sets PILLION_PORT to an address for a service with the name "pillion".
        let options = command.get_subcommands().flat_map(Command::get_arguments);
        assert!(options.filter_map(|option| option.get_long()).all(|name| name != "port"));
    }
}
