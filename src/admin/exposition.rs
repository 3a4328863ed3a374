//! The Prometheus text format, version 0.0.4: families with help and type, samples with labels escaped exactly.
//!
//! Written at each scrape from what lives at that moment, so that no series outlives its subject; there is no registry.

use std::fmt::{Display, Write};

/// The content type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text in the making.
#[derive(Default)]
pub(super) struct Exposition {
    text: String,
}

/// The samples of one name.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

/// Label names with their values.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Exposition {
    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "histogram", help)
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        let text = &mut self.text;
        text.push_str("# HELP ");
        text.push_str(name);
        text.push(' ');
        for c in help.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        let _ = writeln!(text, "\n# TYPE {name} {kind}");
        Family { text, name }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, None, value);
    }

    /// `counts` are those up to each bound of `bounds` and not below the one before; `total` counts all, so that
    /// it also has what lies above the last bound.
    pub(super) fn buckets(
        &mut self,
        labels: Labels<'_>,
        bounds: &[f64],
        counts: &[u64],
        total: u64,
        sum: f64,
    ) {
        let mut cumulative = 0;
        for (bound, count) in bounds.iter().zip(counts) {
            cumulative += count;
            self.line("_bucket", labels, Some(&bound.to_string()), cumulative);
        }
        self.line("_bucket", labels, Some("+Inf"), total);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, total);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, le: Option<&str>, value: impl Display) {
        let text = &mut *self.text;
        text.push_str(self.name);
        text.push_str(suffix);
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(le.map(|le| ("le", le))) {
            text.push(before);
            before = ',';
            text.push_str(name);
            text.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    c => text.push(c),
                }
            }
            text.push('"');
        }
        if before == ',' {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_exactly() {
        let mut exposition = Exposition::default();
        let mut family = exposition.gauge("strait_x", "A \\ and\na line");
        family.sample(&[("topic", "a\\b\"c\nd{}=,é")], 1);
        family.sample(&[], -1);
        assert_eq!(
            exposition.finish(),
            "# HELP strait_x A \\\\ and\\na line\n# TYPE strait_x gauge\n\
             strait_x{topic=\"a\\\\b\\\"c\\nd{}=,é\"} 1\nstrait_x -1\n"
        );
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_all() {
        let mut exposition = Exposition::default();
        let mut family = exposition.histogram("h", "H");
        family.buckets(&[("link", "a")], &[0.001, 0.002], &[3, 4], 9, 0.5);
        assert_eq!(
            exposition.finish(),
            "# HELP h H\n# TYPE h histogram\n\
             h_bucket{link=\"a\",le=\"0.001\"} 3\nh_bucket{link=\"a\",le=\"0.002\"} 7\n\
             h_bucket{link=\"a\",le=\"+Inf\"} 9\nh_sum{link=\"a\"} 0.5\nh_count{link=\"a\"} 9\n"
        );
    }
}
