//! The log, on standard error.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::log_sampling::Sampling;
use super::log_writer::LogWriter;
use super::{LogFormat, LogOptions};

/// Installs the logger; its lines wait until [`super::log_writer::start_thread`]. The level applies to Pixy alone: libraries log the data that they carry at `debug` and `trace`, so they
/// stay at `info`.
pub(super) fn start(options: &LogOptions) {
    let level = options.log;
    let layer = tracing_subscriber::fmt::layer().with_writer(LogWriter).with_target(false);
    let registry = tracing_subscriber::registry().with(filter(level)).with(Sampling);
    // Fails when a logger is installed already, as in tests.
    let _ = match options.log_format {
        LogFormat::Text if std::io::stderr().is_terminal() => registry.with(layer.with_ansi(true)).try_init(),
        LogFormat::Text => plain(level, LogWriter).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
}

/// Text without colours.
pub fn plain<W>(level: LevelFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).event_format(Line::default());
    tracing_subscriber::registry().with(filter(level)).with(Sampling).with(layer)
}

fn filter(level: LevelFilter) -> Targets {
    Targets::new().with_default(level.min(LevelFilter::INFO)).with_target("pixy", level)
}

/// Formats a line as tracing's own formatter does without colours, in fewer instructions: every request logs one.
#[derive(Default)]
struct Line {
    /// The last second with its text: most lines share it with the line before.
    second: Mutex<(u64, String)>,
}

/// Writes `message name=value…`; text other than the message is quoted.
struct Fields<'a, 'w> {
    writer: &'a mut Writer<'w>,
    result: fmt::Result,
}

/// Escapes control characters: logged text can neither begin a new line nor control the terminal that shows the log.
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.time(now, &mut writer)?;
        write!(writer, " {:>5}", event.metadata().level().as_str())?;
        let mut fields = Fields { writer: &mut writer, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        writer.write_char('\n')
    }
}

impl Line {
    fn time(&self, now: Duration, writer: &mut Writer<'_>) -> fmt::Result {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if second.0 != now.as_secs() || second.1.is_empty() {
            let stamp = i64::try_from(now.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
            let text = stamp.unwrap_or_default().to_string();
            *second = (now.as_secs(), text.trim_end_matches('Z').to_owned());
        }
        write!(writer, "{}.{:06}Z", second.1, now.subsec_micros())
    }
}

impl Fields<'_, '_> {
    fn write_field(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let name = field.name();
        if self.result.is_ok() {
            self.result = self.writer.write_char(' ').and_then(|()| {
                if name != "message" {
                    self.writer.write_str(name.strip_prefix("r#").unwrap_or(name))?;
                    self.writer.write_char('=')?;
                }
                value(self.writer)
            });
        }
    }
}

impl Visit for Fields<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
        self.write_field(field, |writer| match (field.name(), plain) {
            ("message", _) => Escaped(writer).write_str(value),
            (_, true) => {
                writer.write_char('"')?;
                writer.write_str(value)?;
                writer.write_char('"')
            }
            (_, false) => write!(writer, "{value:?}"),
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write_field(field, |writer| write!(Escaped(writer), "{value:?}"));
    }
}

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !text.contains(char::is_control) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|character| {
            if character.is_control() {
                write!(self.0, "{}", character.escape_default())
            } else {
                self.0.write_char(character)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Both formatters' lines for the same events, without their times.
    fn both(log: impl Fn()) -> [String; 2] {
        let lines = |own: bool| {
            let sink = Sink::default();
            let to = sink.clone();
            let builder = tracing_subscriber::fmt().with_writer(move || to.clone()).with_target(false).with_ansi(false);
            if own {
                tracing::subscriber::with_default(builder.event_format(Line::default()).finish(), &log);
            } else {
                tracing::subscriber::with_default(builder.finish(), &log);
            }
            let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
            text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned() + "\n").collect()
        };
        [lines(true), lines(false)]
    }

    #[test]
    fn a_line_is_formatted_as_by_tracing() {
        let [own, tracings] = both(|| {
            let path = "/claude/v1/messages";
            tracing::info!(method = "POST", %path, account = Some("claude"), none = None::<&str>, status = 200_u16, "request");
            tracing::warn!(text = "a \"quoted\"\tone, ü", ratio = 0.5, left = -3, yes = true, "{} words", 2);
            tracing::error!(error = ?io::Error::other("no"));
        });
        assert_eq!(own, tracings);
    }

    #[test]
    fn control_characters_are_escaped() {
        let hostile = "a\n2026 INFO all is well\u{1b}[2J\u{9b}1m";
        let [own, _] = both(|| tracing::info!(%hostile, text = hostile, "{hostile}"));
        assert_eq!(own.lines().count(), 1, "{own}");
        assert!(!own.trim_end().contains(char::is_control), "{own:?}");
    }

    #[test]
    fn the_time_is_rfc_3339_in_microseconds() {
        let line = Line::default();
        for (time, expected) in [
            (Duration::from_micros(1_790_000_000_000_042), "2026-09-21T14:13:20.000042Z"),
            (Duration::from_micros(1_790_000_000_999_999), "2026-09-21T14:13:20.999999Z"),
            (Duration::from_secs(1_790_000_001), "2026-09-21T14:13:21.000000Z"),
        ] {
            let mut text = String::new();
            line.time(time, &mut Writer::new(&mut text)).unwrap();
            assert_eq!(text, expected);
        }
    }
}
