//! Keeps a KIP-848 membership: one heartbeat after the other, and what the answers ask for.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::drive::{ANSWER_TIMEOUT, Desk, Token, all_left};
use super::kip848::{IdPartition, Member, Verdict};
use super::{Context, Holder, Partition, reasons};
use crate::connection::CallError;
use crate::engine::member::{self, Standing};
use crate::env::Env;
use crate::wire::consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, LEAVE};

/// What the broker may wait for us to let go of partitions.
const REBALANCE_TIMEOUT_MS: i32 = 30_000;
/// While things move, heartbeats come at this pace: what another member let go waits for our next one.
const HURRY: Duration = Duration::from_millis(500);
/// So many of them after the last news.
const HURRIED: u32 = 10;
/// With nothing named after so many, there is nothing for us.
const EMPTY_BEATS: u32 = 4;
/// The broker's word on the pace is taken within these.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Why it ended.
pub(super) enum End {
    /// The group was left.
    Left,
    /// The broker does not have the protocol for this group.
    Unsupported(Token),
}

type Releasing = Pin<Box<dyn Future<Output = Vec<IdPartition>>>>;

struct Live<'a, H> {
    desk: Desk<'a, H>,
    member: Member,
    /// Names of topics that were taken, also of deleted ones.
    names: HashMap<Uuid, Arc<str>>,
    releasing: Option<Releasing>,
    hurried: u32,
    beats: u32,
}

/// Until the group is left, or does not have this protocol.
pub(super) async fn run<H: Holder>(context: &Context<H>, token: Token) -> End {
    let desk = Desk::new(context);
    let instance = context.link.membership.instance_id.clone();
    let derived = context.identity.as_ref().filter(|_| instance.is_none());
    let own = derived.map(|identity| identity.id_in(&desk.group));
    let id = own.map_or_else(|| fresh_id(&context.env), |id| id.to_string());
    let member = Member::new(&desk.group, id, instance);
    let mut live =
        Live { desk, member, names: HashMap::new(), releasing: None, hurried: 0, beats: 0 };
    let unsupported = tokio::select! {
        biased;
        () = context.member.leaving() => false,
        () = live.keep(own.is_some()) => true,
    };
    if unsupported {
        return End::Unsupported(token);
    }
    if live.member.is_in()
        && let Some(connection) = live.desk.open()
    {
        // The session would end by itself.
        let _ = connection.call(&live.member.goodbye(), ANSWER_TIMEOUT).await;
    }
    context.member.set(Standing::Nobody);
    drop(token);
    End::Left
}

fn fresh_id(env: &Env) -> String {
    let bits = (u128::from(env.random_u64()) << 64) | u128::from(env.random_u64());
    uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
}

impl<H: Holder> Live<'_, H> {
    /// Returns when the broker does not have the protocol.
    async fn keep(&mut self, takes_over: bool) {
        let mut takes_over = takes_over;
        loop {
            let context = self.desk.context;
            let topics = context.interest.topics();
            // A broker refuses a member that wants nothing.
            if topics.is_empty() && !self.member.is_in() {
                context.interest.changed.notified().await;
                continue;
            }
            let connection = self.desk.connection().await;
            if std::mem::take(&mut takes_over) {
                let former =
                    ConsumerGroupHeartbeatRequest { epoch: LEAVE, ..self.member.goodbye() };
                // That there was none is as good.
                let _ = connection.call(&former, ANSWER_TIMEOUT).await;
            }
            let request = self.member.heartbeat(topics, REBALANCE_TIMEOUT_MS);
            let answer = match connection.call(&request, ANSWER_TIMEOUT).await {
                Ok(answer) => answer,
                Err(CallError::Unsupported { .. }) => return,
                Err(error) => {
                    connection.close();
                    self.desk.failed(connection.error_of(&error)).await;
                    continue;
                }
            };
            let detail = answer.error_message.clone().unwrap_or_default();
            let interval = u64::try_from(answer.heartbeat_interval_ms).unwrap_or(0);
            let interval = Duration::from_millis(interval).clamp(INTERVAL.0, INTERVAL.1);
            match self.member.answered(answer) {
                Verdict::Stands { news } => {
                    self.desk.went_well();
                    self.stands(news);
                    self.wait(interval).await;
                }
                Verdict::Lost(why) => {
                    self.releasing = None;
                    self.beats = 0;
                    let instance = self.member.instance.take();
                    let id = fresh_id(&context.env);
                    self.member = Member::new(&self.desk.group, id, instance);
                    self.desk.lost(why).await;
                }
                Verdict::Unsupported(_) if !self.member.is_in() => return,
                Verdict::Elsewhere(code) => {
                    self.desk.failed(reasons::elsewhere(&context.link, code)).await;
                }
                Verdict::Unsupported(code) | Verdict::Refused(code) => {
                    let error = reasons::refused(&context.link, code, &detail);
                    self.desk.refused(error).await;
                }
            }
        }
    }

    /// The broker took the heartbeat: takes what is free, begins to let go of what is not ours any more.
    fn stands(&mut self, news: bool) {
        let context = self.desk.context;
        let Member { id, epoch, instance, .. } = &self.member;
        let (id, epoch, instance) = (id.clone(), *epoch, instance.clone());
        context.member.set(Standing::Member(member::Member { id, epoch, instance }));
        self.hurried = if news { HURRIED } else { self.hurried.saturating_sub(1) };
        self.beats = self.beats.saturating_add(1);
        let named = self.member.to_take();
        if !named.is_empty() {
            let map = context.source.map();
            let known = map.topics.iter().map(|(name, topic)| (topic.id, name));
            let known: HashMap<Uuid, &String> = known.collect();
            if named.iter().any(|(id, _)| !known.contains_key(id)) {
                // A topic that our metadata does not show yet.
                context.source.refresh();
            }
            for (id, _) in &named {
                if let Some(name) = known.get(id) {
                    self.names.entry(*id).or_insert_with(|| name.as_str().into());
                }
            }
            // A topic that was made again: the mirrors of the old one are let go first.
            let held: Vec<Partition> = self.named(&self.member.to_release());
            let is_free = |(id, index): &&IdPartition| {
                known.get(id).is_some_and(|name| {
                    !held.iter().any(|(held, at)| **held == ***name && at == index)
                })
            };
            let taken: Vec<IdPartition> = named.iter().filter(is_free).copied().collect();
            self.member.taken(&taken);
            let ids = taken.iter().map(|(id, _)| *id);
            let given = self.named(&taken).into_iter().zip(ids);
            context.holder.take(&given.collect::<Vec<_>>());
        }
        if self.releasing.is_none() {
            let given_up = self.member.to_release();
            if !given_up.is_empty() {
                let left = context.holder.release(&self.named(&given_up));
                self.releasing = Some(Box::pin(async move {
                    all_left(left).await;
                    given_up
                }));
            }
        }
        if self.member.is_named() && (!self.member.has_nothing() || self.beats >= EMPTY_BEATS) {
            context.holder.settled();
        }
    }

    fn named(&self, partitions: &[IdPartition]) -> Vec<Partition> {
        let named = partitions.iter();
        named.filter_map(|(id, index)| Some((self.names.get(id)?.clone(), *index))).collect()
    }

    /// Until the next heartbeat is due, or there is something to tell.
    async fn wait(&mut self, interval: Duration) {
        let context = self.desk.context;
        if self.member.has_news(&context.interest.topics()) {
            return;
        }
        let pace = if self.hurried > 0 || self.beats < EMPTY_BEATS { HURRY } else { interval };
        let due = context.env.now() + pace.min(interval);
        let releasing = async {
            match &mut self.releasing {
                Some(releasing) => releasing.await,
                None => std::future::pending().await,
            }
        };
        let let_go = tokio::select! {
            biased;
            given_up = releasing => Some(given_up),
            () = context.interest.changed.notified() => None,
            () = doubted(context, due) => None,
            () = sleep_until(due) => None,
        };
        if let Some(given_up) = let_go {
            self.releasing = None;
            self.member.released(&given_up);
        }
    }
}

/// A commit of ours was refused; asked at once, but not in a storm.
async fn doubted<H>(context: &Context<H>, due: Instant) {
    const PAUSE: Duration = Duration::from_millis(50);
    context.member.doubted().await;
    drop(timeout(PAUSE, sleep_until(due)).await);
}
