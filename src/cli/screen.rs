//! Where a verb writes: results to standard output, everything else to standard error, colours only where a person
//! looks.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::stderr::Stderr;
use crate::limits;

/// Standard output and error, or a test's buffers.
pub struct Screen<'a> {
    /// Results.
    pub out: Box<dyn Write + 'a>,
    /// Warnings, errors, progress.
    pub err: Box<dyn Write + 'a>,
    /// Results may be coloured.
    pub color: bool,
    /// Standard error is a terminal: a line there may be overwritten.
    pub live: bool,
}

/// A line without an end stands on standard error: what is written next must take it away first.
static LINE_SHOWN: AtomicBool = AtomicBool::new(false);

/// Standard error for log lines, which do not run into the line that is being shown.
#[derive(Clone, Debug)]
pub struct LogWriter(pub Stderr);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if LINE_SHOWN.swap(false, Relaxed) {
            self.0.write_all(b"\r\x1b[2K")?;
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What a colour stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// Beside the point.
    Faint,
}

impl Screen<'static> {
    /// The process's own, with this before standard error. `NO_COLOR` with any value but an empty one takes the colours away (no-color.org).
    pub fn standard(err: Stderr) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            out: Box::new(io::BufWriter::new(io::stdout())),
            // Whole lines, or what is flushed: one that finds no room is left out as a whole.
            err: Box::new(io::LineWriter::with_capacity(limits::LOG_LINE_BYTES, err)),
            color: io::stdout().is_terminal() && !no_color && !dumb,
            live: io::stderr().is_terminal() && !dumb,
        }
    }
}

impl Screen<'_> {
    /// Text in a tone.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Writes over the line that is being shown. A terminal that is gone is no failure.
    pub fn replace_line(&mut self, line: &str) {
        let _ = write!(self.err, "\r\x1b[2K{line}").and_then(|()| self.err.flush());
        LINE_SHOWN.store(true, Relaxed);
    }

    /// Takes the shown line away.
    pub fn erase_line(&mut self) {
        if LINE_SHOWN.swap(false, Relaxed) {
            let _ = write!(self.err, "\r\x1b[2K").and_then(|()| self.err.flush());
        }
    }

    /// One JSON document, with its schema's name first.
    ///
    /// # Errors
    /// The writer's.
    pub fn json(&mut self, schema: &str, body: serde_json::Value) -> io::Result<()> {
        let mut document = serde_json::Map::new();
        document.insert("schema".into(), schema.into());
        if let serde_json::Value::Object(body) = body {
            document.extend(body);
        }
        writeln!(self.out, "{:#}", serde_json::Value::Object(document))
    }

    /// Rows under a heading, columns aligned; the columns in `right` are figures.
    ///
    /// # Errors
    /// The writer's.
    pub fn table(
        &mut self,
        heading: &[&str],
        right: &[usize],
        rows: &[Vec<String>],
    ) -> io::Result<()> {
        let mut widths = heading.iter().map(|cell| cell.chars().count()).collect::<Vec<_>>();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (i, (cell, width)) in cells.zip(&widths).enumerate() {
                let pad = " ".repeat(width - cell.chars().count());
                let (before, after) =
                    if right.contains(&i) { (pad.as_str(), "") } else { ("", pad.as_str()) };
                line.push_str(&format!("{before}{cell}{after}  "));
            }
            line.truncate(line.trim_end().len());
            line
        };
        let heading = line(&mut heading.iter().copied());
        let heading = self.paint(Tone::Faint, &heading);
        writeln!(self.out, "{heading}")?;
        for row in rows {
            writeln!(self.out, "{}", line(&mut row.iter().map(String::as_str)))?;
        }
        Ok(())
    }
}

/// Bytes a second, or any amount of bytes, in the largest binary unit.
pub fn show_bytes(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        // Rounded first: 1023.9 KiB reads as 1.0 MiB.
        if value.round() < 1024.0 {
            return if unit == "B" || value >= 100.0 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A count with its thousands apart: `88 120 442`.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push(' ');
        }
        shown.push(digit);
    }
    shown
}

/// Seconds as a person says them: `0.4 s`, `41 min`, `6.1 h`.
pub fn show_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(show_bytes(0.0), "0 B");
        assert_eq!(show_bytes(1536.0), "1.5 KiB");
        assert_eq!(show_bytes(212.4 * 1_048_576.0), "212 MiB");
        assert_eq!(show_count(88_120_442), "88 120 442");
        assert_eq!(show_count(7), "7");
        assert_eq!(show_seconds(0.44), "0.4 s");
        assert_eq!(show_seconds(2460.0), "41 min");
    }

    #[test]
    fn columns_align_and_colours_stay_away() {
        let mut out = Vec::new();
        let mut screen = Screen {
            out: Box::new(&mut out),
            err: Box::new(io::sink()),
            color: false,
            live: false,
        };
        let rows = [
            vec!["orders-17".to_owned(), "5".to_owned()],
            vec!["é-1".to_owned(), "1 000".to_owned()],
        ];
        screen.table(&["TOPIC", "LAG"], &[1], &rows).unwrap();
        drop(screen);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "TOPIC        LAG\norders-17      5\né-1        1 000\n"
        );
    }
}
