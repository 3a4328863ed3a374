//! Planted bugs: each switches one guard of the engine off, so that the simulator can show that it would notice. A build
//! with debug assertions holds them, silent until a test plants one on its own thread; a release build holds none.

/// A guard that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// What was fetched is committed, whether it was acknowledged or not (I1).
    CommitUnacked,
    /// A skipped batch counts as done before those in front of it (I1).
    SkipOvertakes,
    /// The window opens without an ack on the connection (W1).
    WindowWithoutProof,
    /// Old records travel beside others (W2).
    WindowWhileOld,
    /// An answer that leaves the append in doubt counts as an ack (W3).
    DoubtIsAck,
    /// What was in flight when the window failed is forgotten.
    FlightForgotten,
    /// After the read-back the numbers go on where the sender stood (W3).
    NumbersGoOn,
    /// A start does not look what the target holds beyond the commit (R3).
    ResumeBlind,
    /// A Fetch answer is taken although the mirror wants another offset by now.
    StaleFetchTaken,
    /// Aborted transactions are copied.
    AbortedCopied,
    /// What another mirror wrote is copied on: a loop.
    ReplicatedCopied,
    /// A batch that begins below the wanted offset is copied whole.
    BatchFromItsStart,
    /// A partition stands twice in one request: the broker drops the first of the two (P4).
    PartitionTwice,
    /// Old records are sent while requests of a former life may still come.
    OldAtOnce,
    /// A start goes on under the old numbering and counts from zero again (R7): false duplicates.
    NumbersFromZero,
    /// What a former life wrote is dropped by its number, and not compared (R4).
    CountedBlind,
    /// A gap is named without its first offset (I6).
    GapNamedShort,
    /// The source is not asked whether its log is still the one that was read (I6).
    TruncationUnseen,
    /// A broker's certificate is believed whoever signed it (I8).
    CertificateUnchecked,
    /// A broker's certificate may be for any name (I8).
    HostNameUnchecked,
    /// SCRAM takes a broker that does not know the password (I8).
    ServerUnproven,
    /// SCRAM takes what a broker makes of the exchange: any nonce, any count (I8).
    ChallengeUnchecked,
    /// A password is in a log line (I8).
    SecretLogged,
    /// A broker that lags behind takes back a newer leader epoch (KIP-320).
    EpochTakenBack,
    /// A batch is taken whatever its checksum says.
    ChecksumIgnored,
    /// Batches are asked for whether there is room for them or not (I5).
    QueueUnbounded,
}

impl Canary {
    /// Those that the simulator must catch. The model has [`Canary::OldAtOnce`] to itself: in the simulator no request is late.
    pub const ALL: [Self; 17] = [
        Self::CommitUnacked,
        Self::SkipOvertakes,
        Self::WindowWithoutProof,
        Self::WindowWhileOld,
        Self::DoubtIsAck,
        Self::FlightForgotten,
        Self::NumbersGoOn,
        Self::ResumeBlind,
        Self::StaleFetchTaken,
        Self::AbortedCopied,
        Self::ReplicatedCopied,
        Self::BatchFromItsStart,
        Self::PartitionTwice,
        Self::NumbersFromZero,
        Self::CountedBlind,
        Self::GapNamedShort,
        Self::TruncationUnseen,
    ];

    /// Those that the cases of hostile listeners must catch.
    pub const SECURITY: [Self; 5] = [
        Self::CertificateUnchecked,
        Self::HostNameUnchecked,
        Self::ServerUnproven,
        Self::ChallengeUnchecked,
        Self::SecretLogged,
    ];
}

#[cfg(debug_assertions)]
mod cage {
    use super::Canary;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Canary>> = const { Cell::new(None) };
    }

    /// Whether a test planted this one on this thread.
    pub(crate) fn planted(canary: Canary) -> bool {
        PLANTED.with(Cell::get) == Some(canary)
    }

    /// Plants a bug for the engines of this thread, or takes it back.
    pub fn plant(canary: Option<Canary>) {
        PLANTED.with(|planted| planted.set(canary));
    }
}

#[cfg(not(debug_assertions))]
mod cage {
    use super::Canary;

    /// Never: a release build holds no planted bug.
    #[inline(always)]
    pub(crate) fn planted(_: Canary) -> bool {
        false
    }

    /// Does nothing in a release build.
    pub fn plant(_: Option<Canary>) {}
}

pub use cage::plant;
pub(crate) use cage::planted;
