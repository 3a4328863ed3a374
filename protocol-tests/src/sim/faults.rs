//! What goes wrong in a run, drawn from its seed. Each run enables some kinds of trouble only (a swarm): a bug that hides
//! behind one fault shows in the runs without it.

use std::time::Duration;

use strait::embedded::{ApiKey, Cluster, Fault, Order, Replica};
use strait::env::Moment;
use strait::wire::ErrorCode;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::fleet::{Fleet, Membership};
use super::rng::Rng;
use super::world::{SOURCE, Side, TARGET, World};

/// The kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Crash,
    Cut,
    Stall,
    Partition,
    ProduceRefused,
    ProduceInDoubt,
    FetchTrouble,
    CommitTrouble,
    QuestionTrouble,
    LeaderMoves,
    StateLost,
    BrokerDies,
    TailLost,
    FewReplicas,
    ProducersExpire,
    ClockJumps,
    CoordinatorMoves,
    SourceRetention,
    Moment,
    Freeze,
    Leave,
    MembersLost,
    MemberTrouble,
    TransactionTrouble,
}

impl Kind {
    /// Those of one instance and its clusters.
    pub const ALL: [Self; 19] = [
        Self::Crash,
        Self::Cut,
        Self::Stall,
        Self::Partition,
        Self::ProduceRefused,
        Self::ProduceInDoubt,
        Self::FetchTrouble,
        Self::CommitTrouble,
        Self::QuestionTrouble,
        Self::LeaderMoves,
        Self::StateLost,
        Self::BrokerDies,
        Self::TailLost,
        Self::FewReplicas,
        Self::ProducersExpire,
        Self::ClockJumps,
        Self::CoordinatorMoves,
        Self::SourceRetention,
        Self::TransactionTrouble,
    ];

    /// What befalls instances beside each other.
    const OF_FLEETS: [Self; 4] =
        [Self::Freeze, Self::Leave, Self::MembersLost, Self::MemberTrouble];

    /// What a run with this seed suffers from.
    pub fn draw(rng: &mut Rng) -> Vec<Self> {
        let share = *rng.pick(&[10, 25, 50]);
        // What is only of transactions is drawn by itself: a seed means what it always meant.
        let common = Self::ALL.into_iter().filter(|kind| *kind != Self::TransactionTrouble);
        let mut kinds: Vec<_> = common.filter(|_| rng.chance(share)).collect();
        // Crashes are what exactness is about.
        if !kinds.contains(&Self::Crash) && rng.chance(60) {
            kinds.push(Self::Crash);
        }
        kinds
    }

    /// What it suffers from besides, beyond what the instances of `fleet` may suffer from.
    pub fn draw_more(rng: &mut Rng, fleet: &Fleet) -> Vec<Self> {
        let mut kinds = Vec::new();
        if rng.chance(30) {
            kinds.push(Self::Moment);
        }
        if fleet.instances > 1 || fleet.membership != Membership::Off {
            let share = *rng.pick(&[30, 60, 90]);
            kinds.extend(Self::OF_FLEETS.into_iter().filter(|_| rng.chance(share)));
        } else if rng.chance(15) {
            kinds.push(Self::Freeze);
        }
        kinds
    }
}

/// What strikes the very first batches, while the target holds no state of anybody.
pub fn at_once(world: &World, kinds: &[Kind], rng: &mut Rng) {
    if kinds.contains(&Kind::ProduceRefused) {
        let fault = Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS);
        let (after, times) = (rng.below(3) as u32, 1 + rng.below(2) as u32);
        world.target.fault(Order::next(ApiKey::Produce, fault).after(after).times(times));
    }
}

/// Makes trouble for a while, then stops; what it began it ends, except what [`World::heal`] ends.
pub async fn run(world: &World, kinds: &[Kind], mut rng: Rng, time: Duration) {
    let until = tokio::time::Instant::now() + time;
    while !kinds.is_empty() {
        sleep(rng.wait_ms(20, 3000)).await;
        if tokio::time::Instant::now() >= until {
            return;
        }
        let kind = *rng.pick(kinds);
        world.note("fault", &[kind as u64]);
        strike(world, kind, &mut rng).await;
    }
}

fn cluster<'a>(world: &'a World, rng: &mut Rng) -> (Side, &'a Cluster) {
    let side = if rng.chance(60) { TARGET } else { SOURCE };
    (side, world.cluster(side))
}

async fn strike(world: &World, kind: Kind, rng: &mut Rng) {
    match kind {
        Kind::Crash => crash(world, rng).await,
        Kind::Cut => {
            let connections = world.network.connections();
            let percent = *rng.pick(&[5, 30, 100]);
            for (connection, _) in connections {
                if rng.chance(percent) {
                    world.network.cut(connection);
                }
            }
        }
        Kind::Stall => {
            for (connection, _) in world.network.connections() {
                if rng.chance(20) {
                    let (direction, time) = (rng.below(2), rng.wait_ms(50, 70_000));
                    world.network.stall(connection, direction, time);
                }
            }
        }
        Kind::Partition => {
            let (_, cluster) = cluster(world, rng);
            let broker = broker(cluster, rng);
            let (client, server) = (world.instance_ip(rng), cluster.address(broker));
            world.network.block(client, server);
            sleep(rng.wait_ms(50, 20_000)).await;
            world.network.unblock(client, server);
        }
        Kind::ProduceRefused => {
            let code = *rng.pick(&[
                ErrorCode::NOT_LEADER_OR_FOLLOWER,
                ErrorCode::NOT_ENOUGH_REPLICAS,
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                ErrorCode::KAFKA_STORAGE_ERROR,
            ]);
            order(&world.target, ApiKey::Produce, Fault::Refuse(code), rng);
            if rng.chance(30) {
                // Once at a time: the engine takes a batch that is refused so again and again for unacceptable.
                let code = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
                let once = Order::next(ApiKey::Produce, Fault::Refuse(code));
                world.target.fault(once.after(rng.below(4) as u32));
            }
        }
        Kind::ProduceInDoubt => {
            let fault = match rng.below(7) {
                0 => Fault::AnswerWith(ErrorCode::REQUEST_TIMED_OUT),
                1 => Fault::AnswerWith(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND),
                2 => Fault::CloseBefore,
                3 => Fault::CloseAfter,
                4 => Fault::Silence,
                5 => Fault::Delay(rng.wait_ms(10, 5000)),
                _ => Fault::DelayAnswer(rng.wait_ms(10, 5000)),
            };
            order(&world.target, ApiKey::Produce, fault, rng);
        }
        Kind::FetchTrouble => {
            let fault = match rng.below(8) {
                0 => Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER),
                1 => Fault::Refuse(ErrorCode::FENCED_LEADER_EPOCH),
                2 => Fault::Refuse(ErrorCode::UNKNOWN_LEADER_EPOCH),
                3 => Fault::Refuse(ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
                4 => Fault::Refuse(ErrorCode::INVALID_FETCH_SESSION_EPOCH),
                5 => Fault::CloseAfter,
                6 => Fault::DelayAnswer(rng.wait_ms(10, 5000)),
                _ => Fault::Throttle(rng.wait_ms(10, 1000)),
            };
            let (_, cluster) = cluster(world, rng);
            order(cluster, ApiKey::Fetch, fault, rng);
            if rng.chance(30) {
                cluster.evict_fetch_sessions(broker(cluster, rng));
            }
        }
        Kind::CommitTrouble => {
            let fault = match rng.below(5) {
                0 => Fault::Refuse(ErrorCode::NOT_COORDINATOR),
                1 => Fault::Refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
                2 => Fault::CloseBefore,
                3 => Fault::CloseAfter,
                _ => Fault::Silence,
            };
            order(&world.source, ApiKey::OffsetCommit, fault, rng);
        }
        Kind::QuestionTrouble => {
            let apis = [
                ApiKey::ListOffsets,
                ApiKey::DescribeProducers,
                ApiKey::OffsetFetch,
                ApiKey::FindCoordinator,
                ApiKey::Metadata,
                ApiKey::DescribeConfigs,
                ApiKey::CreateTopics,
                ApiKey::ApiVersions,
            ];
            let fault = match rng.below(4) {
                0 => Fault::CloseBefore,
                1 => Fault::CloseAfter,
                2 => Fault::Delay(rng.wait_ms(10, 5000)),
                _ => Fault::Silence,
            };
            let (_, cluster) = cluster(world, rng);
            order(cluster, *rng.pick(&apis), fault, rng);
        }
        Kind::LeaderMoves => move_leader(world, Replica::InSync, rng),
        Kind::StateLost => move_leader(world, Replica::WithoutProducerState, rng),
        Kind::BrokerDies => {
            let (_, cluster) = cluster(world, rng);
            let broker = broker(cluster, rng);
            cluster.kill_broker(broker);
            sleep(rng.wait_ms(20, 5000)).await;
            cluster.restart_broker(broker);
        }
        Kind::TailLost => tail_lost(world, rng).await,
        Kind::FewReplicas => {
            let key = world.partition(rng);
            if let Ok(dump) = world.target.dump(&key.0, key.1)
                && dump.leader > 0
            {
                // Below min.insync.replicas only where that is two.
                let _ = world.target.set_isr(&key.0, key.1, &[dump.leader]);
                sleep(rng.wait_ms(20, 4000)).await;
                let _ = world.target.set_isr(&key.0, key.1, &world.brokers(TARGET));
            }
        }
        Kind::ProducersExpire => world.target.expire_producers(),
        Kind::ClockJumps => {
            let hours = *rng.pick(&[-30, -1, 0, 1, 11]);
            world.network.set_skew_ms(world.instance_ip(rng), hours * 3_600_000);
        }
        Kind::CoordinatorMoves => {
            let brokers = world.brokers(SOURCE);
            world.source.move_coordinator(&world.group(), *rng.pick(&brokers));
        }
        Kind::Moment => die_at_a_moment(world, rng).await,
        Kind::Freeze => freeze(world, rng),
        Kind::Leave => leave_or_join(world, rng).await,
        Kind::MembersLost => drop(world.source.throw_out(&world.group())),
        Kind::MemberTrouble => {
            let apis = [
                ApiKey::ConsumerGroupHeartbeat,
                ApiKey::Heartbeat,
                ApiKey::JoinGroup,
                ApiKey::SyncGroup,
                ApiKey::OffsetCommit,
            ];
            let fault = match rng.below(5) {
                0 => Fault::CloseBefore,
                1 => Fault::CloseAfter,
                2 => Fault::Delay(rng.wait_ms(10, 15_000)),
                3 => Fault::DelayAnswer(rng.wait_ms(10, 15_000)),
                _ => Fault::Silence,
            };
            order(&world.source, *rng.pick(&apis), fault, rng);
        }
        Kind::TransactionTrouble => {
            let apis = [
                ApiKey::InitProducerId,
                ApiKey::AddPartitionsToTxn,
                ApiKey::AddOffsetsToTxn,
                ApiKey::TxnOffsetCommit,
                ApiKey::EndTxn,
                ApiKey::EndTxn,
                ApiKey::Produce,
            ];
            let fault = match rng.below(10) {
                0 => Fault::Refuse(ErrorCode::CONCURRENT_TRANSACTIONS),
                1 => Fault::Refuse(ErrorCode::NOT_COORDINATOR),
                2 => Fault::Refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
                3 => Fault::Refuse(ErrorCode::INVALID_TXN_STATE),
                4 => Fault::CloseBefore,
                5 => Fault::CloseAfter,
                6 => Fault::DelayAnswer(rng.wait_ms(10, 90_000)),
                7 => Fault::Silence,
                _ => Fault::Delay(rng.wait_ms(10, 5000)),
            };
            order(&world.target, *rng.pick(&apis), fault, rng);
            if matches!(fault, Fault::Delay(_)) {
                // It is asked for again before it comes.
                sleep(rng.wait_ms(10, 2000)).await;
                let connections = world.network.connections();
                connections.into_iter().for_each(|(connection, _)| world.network.cut(connection));
            }
            let brokers = world.brokers(TARGET);
            if rng.chance(30) {
                world.target.move_coordinator(&world.group(), *rng.pick(&brokers));
            }
            if rng.chance(30) {
                let (topic, partition) = world.partition(rng);
                let id = format!("{}.{topic}.{partition}", world.group());
                world.target.move_coordinator(&id, *rng.pick(&brokers));
            }
        }
        Kind::SourceRetention => {
            let key = world.partition(rng);
            let committed = world.source.committed(&world.group());
            if let Some(committed) = committed.get(&key) {
                world.delete_source(&key, committed.offset);
            }
        }
    }
}

fn broker(cluster: &Cluster, rng: &mut Rng) -> i32 {
    let count = cluster.bootstrap().split(',').count();
    i32::try_from(1 + rng.below(count)).expect("few")
}

fn order(cluster: &Cluster, api: ApiKey, fault: Fault, rng: &mut Rng) {
    let (after, times) = (rng.below(4), 1 + rng.below(4));
    let order = Order::next(api, fault).after(after as u32).times(times as u32);
    cluster.fault(order);
}

fn move_leader(world: &World, replica: Replica, rng: &mut Rng) {
    let (side, cluster) = match replica {
        Replica::InSync => cluster(world, rng),
        Replica::WithoutProducerState => (TARGET, &world.target),
    };
    let key = world.partition(rng);
    let to = *rng.pick(&world.brokers(side));
    let from = cluster.dump(&key.0, key.1).map(|dump| dump.leader);
    // A leader keeps what it knows: only a move can lose it.
    if from.is_ok_and(|from| from != to) && cluster.is_up(to) {
        if replica == Replica::WithoutProducerState {
            // A replica that lost its state was made anew: nothing waits in its connections.
            cluster.kill_broker(to);
            cluster.restart_broker(to);
        }
        let _ = cluster.move_leader(&key.0, key.1, to, replica);
    }
}

/// Followers stop following; what the leader appended meanwhile is lost with it (KIP-101), or kept after all.
async fn tail_lost(world: &World, rng: &mut Rng) {
    let key = world.partition(rng);
    let target = &world.target;
    if target.freeze(&key.0, key.1, true).is_err() {
        return;
    }
    sleep(rng.wait_ms(20, 1500)).await;
    if rng.chance(60) {
        // Whoever reads the log back now reads what may yet be lost.
        for (connection, _) in world.network.connections() {
            world.network.cut(connection);
        }
        sleep(rng.wait_ms(100, 1500)).await;
    }
    let brokers = world.brokers(TARGET);
    if let Ok(dump) = target.dump(&key.0, key.1)
        && let Some(next) = brokers.iter().find(|b| **b != dump.leader && target.is_up(**b))
        && rng.chance(70)
    {
        let replicated = dump.high_watermark;
        let _ = target.move_leader(&key.0, key.1, *next, Replica::InSync);
        let _ = target.truncate(&key.0, key.1, replicated);
        world.oracle().truncated(&key, replicated);
    }
    let _ = target.freeze(&key.0, key.1, false);
}

/// An instance dies, at a moment that the network names, with what it has sent still on its way; another one starts.
async fn crash(world: &World, rng: &mut Rng) {
    let index = world.instance(rng);
    if rng.chance(70) {
        let moment = world.network.after_events(rng.next_u64() % 60);
        // Nothing may happen for a while.
        drop(timeout(Duration::from_secs(2), moment.notified()).await);
    }
    if rng.chance(40) {
        for (connection, client) in world.network.connections() {
            if client == world.ip_of(index) && rng.chance(60) {
                world.network.stall(connection, 0, rng.wait_ms(5, 4000));
            }
        }
    }
    world.kill(index).await;
    sleep(rng.wait_ms(1, 4000)).await;
    world.start(index);
}

/// An instance dies in the middle of a step that has a name; another one starts.
async fn die_at_a_moment(world: &World, rng: &mut Rng) {
    let index = world.instance(rng);
    let (moment, passes) = (*rng.pick(&Moment::ALL), rng.below(4) as u32);
    let struck = world.network.die_at(world.ip_of(index), moment, passes);
    if matches!(moment, Moment::PositionRead | Moment::AnchorCommitted | Moment::CountedOff) {
        // These come at a start.
        world.kill(index).await;
        sleep(rng.wait_ms(1, 500)).await;
        world.start(index);
    }
    let patience = Duration::from_secs(if moment == Moment::Draining { 0 } else { 4 });
    let has_died = match timeout(patience, struck.notified()).await {
        Ok(()) => true,
        Err(_) if moment == Moment::Draining => {
            world.leave_at_most(index, Duration::from_secs(12)).await;
            true
        }
        Err(_) => false,
    };
    world.network.spare();
    if has_died {
        world.note("moment", &[moment as u64]);
        world.kill(index).await;
        sleep(rng.wait_ms(1, 4000)).await;
        world.start(index);
    }
}

/// An instance stands still, from a moment to longer than every session and every request lasts, and then goes on with
/// what it was about to do.
fn freeze(world: &World, rng: &mut Rng) {
    let (index, time) = (world.instance(rng), rng.wait_ms(50, 150_000));
    let Some(thaw) = world.freeze(index) else { return };
    let network = world.network.clone();
    spawn_local(async move {
        sleep(time).await;
        network.note("thaw", &[index as u64]);
        thaw.thaw();
    });
}

/// An instance that runs is told to end, one that does not is started.
async fn leave_or_join(world: &World, rng: &mut Rng) {
    let index = world.instance(rng);
    if !world.is_started(index) {
        return world.start(index);
    }
    world.leave(index).await;
    if rng.chance(50) {
        sleep(rng.wait_ms(1, 10_000)).await;
        world.start(index);
    }
}
