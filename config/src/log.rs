//! What is logged, and how: the same for every program of ours.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// What is logged and in which form.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct LogFlags {
    /// What is logged: error, warn, info, debug or trace, also for single parts, such as
    /// `info,herald_speaker::io::layer2=trace`.
    #[arg(
        long,
        env = "HERALD_LOG",
        value_name = "FILTER",
        default_value = "info",
        value_parser = filter
    )]
    pub log_level: String,

    /// The form of log lines.
    #[arg(
        long,
        env = "HERALD_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

impl LogFlags {
    /// Starts to log to standard error, for the rest of the process' life.
    pub fn start(&self) {
        // The client calls every attempt of an outage an error; the watches say it once.
        let filter = EnvFilter::new(format!("kube_client=off,{}", self.log_level));
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => log.with_ansi(false).init(),
            LogFormat::Json => log.json().flatten_event(true).init(),
        }
    }
}

/// Refuses what is not a filter while there still is somebody to read the refusal.
fn filter(text: &str) -> Result<String, ParseError> {
    EnvFilter::try_new(text).map(|_filter| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        log: LogFlags,
    }

    #[test]
    fn an_empty_command_line_logs_for_people() {
        let log = Cli::try_parse_from(["herald"]).unwrap().log;
        assert_eq!(
            (log.log_level.as_str(), log.log_format),
            ("info", LogFormat::Text)
        );
    }

    #[test]
    fn what_is_not_a_filter_is_refused_with_flag_and_value() {
        let error = Cli::try_parse_from(["herald", "--log-level=info,herald=loud"]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("--log-level") && text.contains("herald=loud"),
            "{text}"
        );
    }
}
