//! A case: what broker 1 does, on which side that makes sense, and what the operator must be told.

use kafka_protocol::messages::ApiKey;

use super::answer::{Answer, Deed};

/// Where a case is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// A broker of the cluster that is read.
    Source,
    /// A broker of the cluster that is written.
    Target,
}

/// What a broker does.
pub type Script = Box<dyn Fn(&Answer) -> Deed + Send + Sync>;

/// One case.
pub struct Case {
    /// Family and deed, for the reader of a failure.
    pub name: String,
    /// Whose answers it concerns; none is all.
    apis: Vec<ApiKey>,
    /// The tampering.
    pub deed: Script,
    /// So many answers are tampered with at most.
    pub times: u32,
    /// Where it is played.
    pub sides: Vec<Where>,
    /// New connections meet it: those that are there end as it begins.
    pub cuts: bool,
    /// It shows only when a request is overdue.
    pub slow: bool,
    /// The process is a new one when it begins: what it asks at its start is answered by the liar too.
    pub restarts: bool,
    /// The link's batches come in transactions.
    pub transactional: bool,
    /// The instance is a member of the source's group, whose coordinator is broker 1.
    pub coordinates: bool,
    /// The brokers of that side want a login.
    pub logs_in: bool,
    /// What stands beside the broker's name in what the operator is told; none: it may be harmless.
    pub told: Option<&'static str>,
    /// It is got over by itself: enough if it is counted among the requests that failed.
    pub counts: bool,
    /// Codes with which mirrors of broker 1 may wait for the operator.
    pub parks: Vec<u16>,
    /// The source denies what it holds, in a way that nobody can see: only what else arrives is judged.
    pub denies: bool,
    /// It concerns the cluster as a whole: partitions of other brokers may stand still meanwhile.
    pub whole: bool,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.name)
    }
}

impl Case {
    /// A case for both sides, told by a typed error.
    pub fn new(
        name: impl Into<String>,
        apis: &[ApiKey],
        deed: impl Fn(&Answer) -> Deed + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            apis: apis.to_vec(),
            deed: Box::new(deed),
            times: u32::MAX,
            sides: vec![Where::Source, Where::Target],
            cuts: false,
            counts: false,
            slow: false,
            restarts: false,
            transactional: false,
            coordinates: false,
            logs_in: false,
            told: Some(""),
            parks: Vec::new(),
            denies: false,
            whole: false,
        }
    }

    /// Whether an answer of this API is tampered with.
    pub fn concerns(&self, api: ApiKey) -> bool {
        self.apis.is_empty() || self.apis.contains(&api)
    }

    /// Only there.
    #[must_use]
    pub fn only(mut self, side: Where) -> Self {
        self.sides = vec![side];
        self
    }

    /// Met by new connections.
    #[must_use]
    pub fn anew(mut self) -> Self {
        self.cuts = true;
        self
    }

    /// Met by a process that starts.
    #[must_use]
    pub fn at_start(mut self) -> Self {
        self.restarts = true;
        self
    }

    /// See [`Self::counts`].
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.counts = true;
        self
    }

    /// See [`Self::slow`].
    #[must_use]
    pub fn slowly(mut self) -> Self {
        self.slow = true;
        self
    }

    /// So often.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// The operator is told this.
    #[must_use]
    pub fn says(mut self, words: &'static str) -> Self {
        self.told = Some(words);
        self
    }

    /// Nobody need be told.
    #[must_use]
    pub fn harmless(mut self) -> Self {
        self.told = None;
        self
    }

    /// Mirrors may wait for the operator with this code.
    #[must_use]
    pub fn parks(mut self, codes: &[u16]) -> Self {
        self.parks.extend(codes);
        self
    }

    /// See [`Self::denies`].
    #[must_use]
    pub fn denying(mut self) -> Self {
        self.denies = true;
        self
    }

    /// See [`Self::whole`].
    #[must_use]
    pub fn of_the_cluster(mut self) -> Self {
        self.whole = true;
        self
    }

    /// See [`Self::transactional`].
    #[must_use]
    pub fn in_transactions(mut self) -> Self {
        self.transactional = true;
        self.only(Where::Target)
    }

    /// See [`Self::coordinates`].
    #[must_use]
    pub fn of_the_coordinator(mut self) -> Self {
        self.coordinates = true;
        self.only(Where::Source)
    }

    /// See [`Self::logs_in`].
    #[must_use]
    pub fn with_login(mut self) -> Self {
        self.logs_in = true;
        self.anew()
    }
}
