//! Log lines: text for terminals, JSON by choice, always on stderr (stdout belongs to what a command was asked for). Nobody
//! waits for whoever reads them: what there is no room for is lost and counted. The
//! filter can be changed while the program runs, through a [`Handle`] or the admin action `POST /logging?level=debug`.

use std::io::IsTerminal;
use std::str::FromStr;

use thiserror::Error;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::lossy::LossyWriter;
use crate::threads::panic_message;

/// What a program logs when nothing else is asked for.
pub const DEFAULT_FILTER: &str = "info";

/// What a log line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Error::Format { text: text.to_owned() }),
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Starts logging for the whole process: first thing in `main`. Panics of any thread are logged from then on as well.
///
/// # Errors
/// [`Error::Filter`] when the filter cannot be read, [`Error::AlreadyStarted`] when the process logs already.
pub fn init(filter: &str, format: Format) -> Result<Handle, Error> {
    let colours = std::io::stderr().is_terminal();
    let lines = LossyWriter::new(std::io::stderr(), if format == Format::Json { lost_as_json } else { lost_as_text });
    let (layer, handle) = layer(filter, format, colours, lines)?;
    tracing_subscriber::registry().with(layer).try_init().map_err(|_| Error::AlreadyStarted)?;
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            location = panic.location().map(ToString::to_string),
            panic = panic_message_of(panic),
            "panic"
        );
    }));
    Ok(handle)
}

fn lost_as_text(lines: u64) -> String {
    format!(" WARN weft_runtime::logging: log lines were lost, nobody read standard error lost={lines}\n")
}

fn lost_as_json(lines: u64) -> String {
    let message = "log lines were lost, nobody read standard error";
    format!("{}\n", serde_json::json!({ "level": "WARN", "message": message, "lost": lines }))
}

fn panic_message_of(panic: &std::panic::PanicHookInfo<'_>) -> String {
    match panic.payload_as_str() {
        Some(text) => text.to_owned(),
        None => panic_message(&()),
    }
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn layer<W>(filter: &str, format: Format, colours: bool, writer: W) -> Result<(BoxedLayer, Handle), Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, filters) = reload::Layer::new(parse(filter)?);
    // A line that cannot be written would otherwise be reported on stderr by a macro that panics when stderr is what fails.
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours).log_internal_errors(false);
    let lines: BoxedLayer = match format {
        Format::Text => Box::new(lines.with_filter(filter)),
        Format::Json => Box::new(lines.json().flatten_event(true).with_filter(filter)),
    };
    Ok((lines, Handle { filters }))
}

/// Levels by target, which is all that is asked for here. The crate's `EnvFilter` could look at fields of spans as well, by regular
/// expressions: a megabyte of every program's memory for what nobody writes.
fn parse(filter: &str) -> Result<Targets, Error> {
    filter.parse().map_err(|source| Error::Filter { filter: filter.to_owned(), source })
}

/// Changes what is logged while the program runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    filters: reload::Handle<Targets, Registry>,
}

impl Handle {
    /// Puts another filter in force, as in `debug` or `info,weft_hbone=trace`.
    ///
    /// # Errors
    /// [`Error::Filter`] when it cannot be read (the old one stays), [`Error::Ended`] when logging has ended.
    pub fn set(&self, filter: &str) -> Result<(), Error> {
        self.filters.reload(parse(filter)?).map_err(|_| Error::Ended)
    }

    /// The filter in force.
    ///
    /// # Errors
    /// [`Error::Ended`] when logging has ended.
    pub fn filter(&self) -> Result<String, Error> {
        self.filters.with_current(ToString::to_string).map_err(|_| Error::Ended)
    }
}

/// Logging could not be set up or changed.
#[derive(Debug, Error)]
pub enum Error {
    /// The filter cannot be read.
    #[error(
        "log filter {filter:?} cannot be read: {source}; write a level (error, warn, info, debug, trace) or info,weft_hbone=debug"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Neither text nor json.
    #[error("log format {text:?} is unknown: text or json")]
    Format {
        /// What was given.
        text: String,
    },
    /// Somebody started logging before.
    #[error("logging has been started already")]
    AlreadyStarted,
    /// The process is ending.
    #[error("logging has ended")]
    Ended,
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(format: Format, act: impl FnOnce(&Handle)) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let (layer, handle) = layer("info", format, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || act(&handle));
        sink.text()
    }

    #[test]
    fn the_filter_changes_while_running_and_a_bad_one_leaves_it() {
        let text = logged(Format::Text, |handle| {
            tracing::debug!("one");
            handle.set("debug").unwrap();
            tracing::debug!("two");
            let error = handle.set("weft=loud").unwrap_err();
            assert!(error.to_string().contains(r#""weft=loud""#), "{error}");
            assert_eq!(handle.filter().unwrap(), "debug");
            tracing::debug!("three");
        });
        assert!(!text.contains("one") && text.contains("two") && text.contains("three"), "{text}");
    }

    #[test]
    fn json_is_one_object_per_line_with_fields_on_top() {
        let text = logged(Format::Json, |_| tracing::info!(pod = "shop/web-1", "captured"));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((line["message"].as_str(), line["pod"].as_str()), (Some("captured"), Some("shop/web-1")));
    }

    #[test]
    fn formats_are_read_and_written_alike() {
        for format in [Format::Text, Format::Json] {
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
        }
        assert!("xml".parse::<Format>().unwrap_err().to_string().contains("text or json"));
    }
}
