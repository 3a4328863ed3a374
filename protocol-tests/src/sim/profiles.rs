//! The plans of runs that have a theme: compaction, losses at the source, a planted bug.

use strait::canary::Canary;

use super::cleaning::Cleaning;
use super::faults::Kind;
use super::fleet::Fleet;
use super::losing::{Losing, Loss};
use super::rng::Rng;
use super::workload::{Age, Topic};
use super::{Delivery, Plan};

impl Plan {
    /// The plan of this seed with compacted topics, whose cleaner runs.
    pub fn of_compaction(seed: u64) -> Self {
        let mut plan = Self::of(seed);
        let mut rng = Rng::new(seed).fork("compaction");
        let all = rng.chance(50);
        plan.topics.iter_mut().enumerate().for_each(|(at, topic)| topic.cleaned = at == 0 || all);
        if rng.chance(25) {
            plan.delivery = Delivery::Transactional;
        }
        plan.cleaning = Some(Cleaning::draw(&mut rng));
        plan
    }

    /// The plan of this seed with a source that loses records.
    pub fn of_losses(seed: u64) -> Self {
        let mut plan = Self::with(seed, Fleet::alone());
        let mut rng = Rng::new(seed).fork("losses");
        let losing = Losing::draw(&mut rng);
        if rng.chance(25) {
            plan.delivery = Delivery::Transactional;
        }
        if rng.chance(30) {
            // Nothing else is to blame.
            plan.kinds.retain(|kind| *kind == Kind::Crash);
        }
        if losing.kinds.contains(&Loss::Truncated) {
            // A marker that is lost would leave a transaction open that nobody ends any more.
            plan.topics.iter_mut().for_each(|topic| topic.transactional = false);
        }
        plan.losing = Some(losing);
        plan
    }

    /// The plan of this seed in which this planted bug is likely to show.
    pub fn of_canary(bug: Canary, seed: u64) -> Self {
        let mut plan = match bug {
            Canary::CountedBlind => Self::of_compaction(seed),
            Canary::GapNamedShort | Canary::TruncationUnseen => Self::of_losses(seed),
            _ => Self::with(seed, Fleet::alone()),
        };
        match bug {
            Canary::WindowWhileOld => {
                plan.kinds = vec![Kind::ProduceRefused, Kind::FewReplicas, Kind::ProducersExpire];
                plan.topics = vec![Topic::plain("sim-0", 3, Age::Old)];
                plan.backlog = 60;
            }
            Canary::PartitionTwice => {
                plan.kinds = Vec::new();
                plan.topics = vec![Topic::plain("sim-0", 3, Age::Young)];
                plan.backlog = 60;
            }
            Canary::StaleFetchTaken => {
                plan.kinds = vec![Kind::ProduceRefused];
                plan.latency_us = (20_000, 60_000);
                plan.backlog = 60;
            }
            Canary::CountedBlind => {
                (plan.kinds, plan.fleet, plan.first) = (vec![Kind::Crash], Fleet::alone(), 1);
                plan.delivery = Delivery::ExactlyOnce;
                if let Some(cleaning) = &mut plan.cleaning {
                    (cleaning.is_close, cleaning.wait_ms) = (true, 400);
                }
            }
            Canary::GapNamedShort | Canary::TruncationUnseen => {
                let truncates = bug == Canary::TruncationUnseen;
                let kind = if truncates { Loss::Truncated } else { Loss::Overtaken };
                if let Some(losing) = &mut plan.losing {
                    (losing.kinds, losing.wait_ms) = (vec![kind], 1_000);
                    losing.policies.continues = true;
                }
                plan.topics.iter_mut().for_each(|topic| topic.transactional = false);
            }
            _ => {}
        }
        plan
    }
}
