//! One error type: who is at fault, what happens next, where, and what the operator can do.

use std::fmt;

/// Whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// This process: configuration, files, limits.
    Local,
    /// The cluster that is read.
    Source,
    /// The cluster that is written.
    Target,
}

/// What Strait does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Park the mirror until the operator acts.
    Park,
    /// Close the connection and open another.
    Reconnect,
    /// Try again after a back-off.
    Retry,
    /// End the link or the process.
    Stop,
}

/// A stable `ST-nnn` code; `strait explain` has the long text of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ST-{:03}", self.0)
    }
}

/// Where it happened; every part is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The cluster's name in the configuration.
    pub cluster: Option<String>,
    /// `host:port`, with the broker id where it is known.
    pub broker: Option<String>,
    /// Topic, partition and, where it is known, offset.
    pub mirror: Option<(String, i32, Option<i64>)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        if let Some(cluster) = &self.cluster {
            write!(f, "cluster {cluster}")?;
            space = " ";
        }
        if let Some(broker) = &self.broker {
            write!(f, "{space}broker {broker}")?;
            space = " ";
        }
        if let Some((topic, partition, offset)) = &self.mirror {
            write!(f, "{space}{topic}-{partition}")?;
            if let Some(offset) = offset {
                write!(f, " offset {offset}")?;
            }
        }
        Ok(())
    }
}

/// An error as an operator reads it. Never holds a secret (I8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Stable code.
    pub code: Code,
    /// Whose doing it was.
    pub side: Side,
    /// What Strait does about it.
    pub action: Action,
    /// Where.
    pub place: Place,
    /// What happened; Kafka's own error name where there is one.
    pub message: String,
    /// What the operator can do, one line; empty when there is nothing.
    pub fix: String,
}

impl Error {
    /// An error with no place and no fix yet.
    pub fn new(code: Code, side: Side, action: Action, message: impl Into<String>) -> Self {
        Self {
            code,
            side,
            action,
            place: Place::default(),
            message: message.into(),
            fix: String::new(),
        }
    }

    /// The same error, with its cure.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    /// The same error, at a cluster.
    #[must_use]
    pub fn cluster(mut self, cluster: impl Into<String>) -> Self {
        self.place.cluster = Some(cluster.into());
        self
    }

    /// The same error, at a broker.
    #[must_use]
    pub fn broker(mut self, broker: impl Into<String>) -> Self {
        self.place.broker = Some(broker.into());
        self
    }

    /// The same error, at a topic-partition.
    #[must_use]
    pub fn mirror(mut self, topic: impl Into<String>, partition: i32, offset: Option<i64>) -> Self {
        self.place.mirror = Some((topic.into(), partition, offset));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code)?;
        if self.place != Place::default() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.message)?;
        if !self.fix.is_empty() {
            write!(f, " (fix: {})", self.fix)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
