//! YAML text as a tree whose every node knows its line and column. Scalars stay the text that was written: what type
//! a value must have is known by its key, so `1.30`, `yes` and `0123` are never bent by a guess.
//!
//! Refuses tags, merge keys and a second document; bounded in nodes, aliases included.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span};

use super::problem::Problem;
use crate::limits;

/// Where a node stands, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl At {
    /// The first character of a file.
    pub(super) const START: Self = Self { line: 1, column: 1 };

    fn of(span: &Span) -> Self {
        Self { line: span.start.line().max(1), column: span.start.col() + 1 }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Any other scalar.
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: At,
    pub(super) node: Node,
}

impl Node {
    /// Whether it is this word.
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(&self.value, Value::Text(text) if text == word)
    }
}

impl Value {
    /// What it is, for a message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// A collection whose end has not been seen.
struct Open {
    at: At,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, At)> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    problems: Vec<Problem>,
}

/// The tree of a text; none when the text holds nothing. Duplicate keys are reported and the first one kept.
///
/// # Errors
/// Problems that leave no tree to look at.
pub(super) fn parse(text: &str) -> Result<(Option<Node>, Vec<Problem>), Vec<Problem>> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let step = match event {
            Ok((event, span)) => builder.take(event, &span),
            Err(error) => {
                let marker = error.marker();
                let at = At { line: marker.line().max(1), column: marker.col() + 1 };
                Err(Problem::error(at, format!("not valid YAML: {}", error.info())))
            }
        };
        if let Err(problem) = step {
            builder.problems.push(problem);
            return Err(builder.problems);
        }
    }
    Ok((builder.root, builder.problems))
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), Problem> {
        let at = At::of(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                no_tag(tag.is_some(), at)?;
                let null = style == ScalarStyle::Plain
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::Text(text.into_owned()) };
                self.close(Node { at, value }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                no_tag(tag.is_some(), at)?;
                self.open.push(Open { at, anchor, content: Content::List(Vec::new()) });
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                no_tag(tag.is_some(), at)?;
                let content = Content::Map { entries: Vec::new(), key: None };
                self.open.push(Open { at, anchor, content });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.content {
                    Content::List(nodes) => Value::List(nodes),
                    Content::Map { entries, .. } => Value::Map(entries),
                };
                self.close(Node { at: open.at, value }, open.anchor)
            }
            Event::Alias(id) => {
                let mut node =
                    self.anchors.get(&id).cloned().ok_or_else(|| {
                        Problem::error(at, "an alias inside of what it stands for")
                    })?;
                self.count(size_of(&node), at)?;
                node.at = at;
                self.close(node, 0)
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(Problem::error(at, "a second document")
                    .fix("a file holds one: remove the `---`"))
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, at: At) -> Result<(), Problem> {
        self.nodes += nodes;
        if self.nodes > limits::CONFIG_NODES_MAX {
            let what = format!("more than {} values", limits::CONFIG_NODES_MAX);
            return Err(Problem::error(at, what).fix("is this the right file?"));
        }
        Ok(())
    }

    /// A node is complete: it goes into what is open, or is the whole.
    fn close(&mut self, mut node: Node, anchor: usize) -> Result<(), Problem> {
        self.count(1, node.at)?;
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(nodes)) => nodes.push(node),
            Some(Content::Map { entries, key }) => match key.take() {
                None => match node.value {
                    Value::Text(text) if text == "<<" => {
                        return Err(Problem::error(node.at, "merge keys (`<<`) are not supported")
                            .fix("write the keys out"));
                    }
                    Value::Text(text) => *key = Some((text, node.at)),
                    other => {
                        let what = format!("a key must be a word, this is {}", other.kind());
                        return Err(Problem::error(node.at, what));
                    }
                },
                Some((key, key_at)) => {
                    // An absent value has no place of its own.
                    if matches!(node.value, Value::Null) {
                        node.at = key_at;
                    }
                    if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                        let what = format!("`{key}` is already set on line {}", first.key_at.line);
                        self.problems.push(Problem::error(key_at, what).fix("keep one of the two"));
                    } else {
                        entries.push(Entry { key, key_at, node });
                    }
                }
            },
        }
        Ok(())
    }
}

fn no_tag(tagged: bool, at: At) -> Result<(), Problem> {
    if tagged {
        return Err(Problem::error(at, "YAML tags (`!name`) are not supported").fix("remove it"));
    }
    Ok(())
}

fn size_of(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Text(_) => 0,
        Value::List(nodes) => nodes.iter().map(size_of).sum(),
        Value::Map(entries) => entries.iter().map(|entry| size_of(&entry.node)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_at<'a>(node: &'a Node, path: &[&str]) -> (&'a str, At) {
        match (&node.value, path) {
            (Value::Text(text), []) => (text, node.at),
            (Value::Map(entries), [first, rest @ ..]) => {
                text_at(&entries.iter().find(|e| e.key == *first).unwrap().node, rest)
            }
            (Value::List(nodes), [first, rest @ ..]) => {
                text_at(&nodes[first.parse::<usize>().unwrap()], rest)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scalars_keep_their_text_and_place() {
        let text = "a: 0123\nb: {c: [1.30, \"yes\"]}\nd:\n  - &x e\n  - *x\n";
        let (root, problems) = parse(text).unwrap();
        let root = root.unwrap();
        assert!(problems.is_empty());
        assert_eq!(text_at(&root, &["a"]), ("0123", At { line: 1, column: 4 }));
        assert_eq!(text_at(&root, &["b", "c", "0"]), ("1.30", At { line: 2, column: 9 }));
        assert_eq!(text_at(&root, &["b", "c", "1"]), ("yes", At { line: 2, column: 15 }));
        assert_eq!(text_at(&root, &["d", "1"]), ("e", At { line: 5, column: 5 }));
    }

    #[test]
    fn aliases_cannot_multiply_past_the_bound() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..9 {
            let before = format!("*a{}, ", i - 1).repeat(10);
            text.push_str(&format!("a{i}: &a{i} [{before}]\n"));
        }
        let problems = parse(&text).unwrap_err();
        assert!(problems[0].what.starts_with("more than"), "{problems:?}");
    }

    #[test]
    fn nothing_is_a_tree_of_nothing() {
        assert!(parse("# only a comment\n").unwrap().0.is_none());
    }
}
