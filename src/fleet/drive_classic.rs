//! Keeps a classic membership: joins, hears its part, sends signs of life, joins again whenever the group shares anew.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::classic::{Member, REBALANCE_TIMEOUT_MS, Verdict, hand_in, verdict};
use super::drive::{ANSWER_TIMEOUT, Desk, Token, all_left};
use super::{Context, Holder, Partition, reasons};
use crate::connection::{CallError, Connection};
use crate::engine::member::{self, Standing};
use crate::error::Error;
use crate::wire::ErrorCode;

/// Between signs of life; a third of the session timeout.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
/// JoinGroup is answered when all have joined.
const JOIN_TIMEOUT: Duration =
    Duration::from_millis(REBALANCE_TIMEOUT_MS as u64).saturating_add(ANSWER_TIMEOUT);

type Releasing = Pin<Box<dyn Future<Output = Vec<Partition>>>>;

struct Live<'a, H> {
    desk: Desk<'a, H>,
    member: Member,
    releasing: Option<Releasing>,
    /// Partitions of each topic by which this member, as the leader, shared out.
    counted: Option<BTreeMap<String, i32>>,
}

/// What to do after a step.
enum Next {
    /// Join, and say why.
    Join(&'static str),
    /// Begin anew under another id.
    Lost(ErrorCode),
    /// It failed; try again.
    Failed(Box<Error>),
    /// Only the operator can help.
    Refused(Box<Error>),
}

/// For good; the group is left when that is asked for.
pub(super) async fn run<H: Holder>(context: &Context<H>, token: Token) -> Infallible {
    let desk = Desk::new(context);
    let configured = context.link.membership.instance_id.clone();
    let stays = configured.is_some();
    let derived = context.identity.as_ref().map(|own| format!("strait-{}", own.id_in(&desk.group)));
    let member = Member::new(&desk.group, configured.or(derived));
    let mut live = Live { desk, member, releasing: None, counted: None };
    tokio::select! {
        biased;
        () = context.member.leaving() => {}
        never = live.keep() => match never {},
    }
    // An instance with an id of the operator's comes back soon: nobody else shall begin with its mirrors meanwhile.
    if !stays
        && !live.member.id.is_empty()
        && let Some(connection) = live.desk.open()
    {
        // The session would end by itself.
        let _ = connection.call(&live.member.goodbye(), ANSWER_TIMEOUT).await;
    }
    context.member.set(Standing::Nobody);
    drop(token);
    std::future::pending().await
}

impl<H: Holder> Live<'_, H> {
    async fn keep(&mut self) -> Infallible {
        let mut reason = "begins";
        loop {
            let context = self.desk.context;
            let topics = context.interest.topics();
            if topics.is_empty() && self.member.id.is_empty() {
                context.interest.changed.notified().await;
                continue;
            }
            let connection = self.desk.connection().await;
            let next = match self.join(&connection, topics, reason).await {
                Ok(()) => self.stay(&connection).await,
                Err(next) => next,
            };
            match next {
                Next::Join(why) => reason = why,
                Next::Lost(why) => {
                    self.releasing = None;
                    // Whoever has our instance id now keeps it: taking it back would only be the next round.
                    let fenced = why == ErrorCode::FENCED_INSTANCE_ID;
                    let instance = self.member.instance.take();
                    let configured = context.link.membership.instance_id.is_some();
                    let instance = instance.filter(|_| configured && !fenced);
                    self.member = Member::new(&self.desk.group, instance);
                    self.desk.lost(why).await;
                    reason = "membership lost";
                }
                Next::Failed(error) => self.desk.failed(*error).await,
                Next::Refused(error) => self.desk.refused(*error).await,
            }
        }
    }

    /// Joins, hears its part and acts on it.
    async fn join(
        &mut self,
        connection: &Connection,
        topics: Vec<String>,
        reason: &str,
    ) -> Result<(), Next> {
        let context = self.desk.context;
        let unwritten = |_| {
            let error =
                reasons::refused(&context.link, ErrorCode::INVALID_REQUEST, "too many topics");
            Next::Refused(Box::new(error))
        };
        let request = self.member.join(topics, reason).map_err(unwritten)?;
        let answer = connection.call(&request, JOIN_TIMEOUT).await;
        let joined = answer.map_err(|error| self.lost_answer(connection, &error))?;
        let leads = self.member.joined(&joined);
        self.judge(joined.error)?;
        self.counted = None;
        let mut foreign = None;
        let assignments = if leads && !joined.skip_assignment {
            let map = context.source.map();
            let count = |topic: &str| {
                let known = map.topics.get(topic);
                known.map_or(0, |t| i32::try_from(t.partitions.len()).unwrap_or(i32::MAX))
            };
            let handed = hand_in(&joined, count).map_err(unwritten)?;
            foreign = handed.foreign.first().cloned();
            let counted = request_topics(&joined).into_iter().map(|t| (t.clone(), count(&t)));
            self.counted = Some(counted.collect());
            handed.assignments
        } else {
            Vec::new()
        };
        let answer = connection.call(&self.member.sync(assignments), JOIN_TIMEOUT).await;
        let synced = answer.map_err(|error| self.lost_answer(connection, &error))?;
        self.judge(synced.error)?;
        let of_ours = self.member.named(&synced.assignment).unwrap_or(false);
        if !of_ours {
            foreign = Some(joined.leader.clone());
        }
        self.desk.went_well();
        if let Some(who) = foreign {
            context.interest.tell(Some(reasons::foreign(&context.link, &who)));
        }
        let (id, epoch) = (self.member.id.clone(), self.member.generation);
        let instance = self.member.instance.clone();
        context.member.set(Standing::Member(member::Member { id, epoch, instance }));
        let named = self.member.to_take();
        self.member.taken(&named);
        let given = named.into_iter().map(|partition| (partition, Uuid::nil()));
        context.holder.take(&given.collect::<Vec<_>>());
        let given_up = self.member.to_release();
        if self.releasing.is_none() && !given_up.is_empty() {
            let left = context.holder.release(&given_up);
            self.releasing = Some(Box::pin(async move {
                all_left(left).await;
                given_up
            }));
        }
        context.holder.settled();
        // A leader that came back under its instance id was given what it had decided in its former life.
        if leads && joined.skip_assignment { Err(Next::Join("a leader came back")) } else { Ok(()) }
    }

    /// Signs of life, until the group shares anew or we want it to.
    async fn stay(&mut self, connection: &Connection) -> Next {
        let context = self.desk.context;
        let mut source = context.source.clone();
        let mut join = None;
        let mut due = context.env.now() + HEARTBEAT_INTERVAL;
        loop {
            // What is being let go must be told as let go, or it would seem to be held.
            if let Some(reason) = join.filter(|_| self.releasing.is_none()) {
                return Next::Join(reason);
            }
            let releasing = async {
                match &mut self.releasing {
                    Some(releasing) => releasing.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                given_up = releasing => {
                    self.releasing = None;
                    self.member.released(&given_up);
                    join = join.or(Some("let go"));
                }
                () = context.interest.changed.notified() => {
                    if self.member.has_news(&context.interest.topics()) {
                        join = join.or(Some("other topics"));
                    }
                }
                () = source.changed() => {
                    if self.is_miscounted() {
                        join = join.or(Some("other partitions"));
                    }
                }
                () = sleep_until(due) => {}
                () = context.member.doubted() => due = due.min(Instant::now()),
            }
            if context.env.now() < due {
                continue;
            }
            due = context.env.now() + HEARTBEAT_INTERVAL;
            let answer = connection.call(&self.member.heartbeat(), ANSWER_TIMEOUT).await;
            let judged = match answer {
                Ok(answer) => self.judge(answer.error),
                Err(error) => Err(self.lost_answer(connection, &error)),
            };
            match judged {
                Ok(()) => {}
                Err(Next::Join(_)) => join = Some("the group shares anew"),
                // The membership stands: only the way to the coordinator is another.
                Err(next) => return next,
            }
        }
    }

    /// As the leader: topics have other partitions than those that were shared out.
    fn is_miscounted(&self) -> bool {
        let map = self.desk.context.source.map();
        self.counted.iter().flatten().any(|(topic, count)| {
            let now = map.topics.get(topic).map_or(0, |topic| topic.partitions.len());
            usize::try_from(*count) != Ok(now)
        })
    }

    fn lost_answer(&self, connection: &Connection, error: &CallError) -> Next {
        connection.close();
        Next::Failed(Box::new(connection.error_of(error)))
    }

    fn judge(&self, code: ErrorCode) -> Result<(), Next> {
        let link = &self.desk.context.link;
        match verdict(code) {
            Verdict::Fine => Ok(()),
            Verdict::JoinAgain => Err(Next::Join("again")),
            Verdict::Lost(why) => Err(Next::Lost(why)),
            Verdict::Elsewhere(code) => Err(Next::Failed(Box::new(reasons::elsewhere(link, code)))),
            Verdict::Foreign(_) => {
                let who = "a consumer with another assignor";
                Err(Next::Refused(Box::new(reasons::foreign(link, who))))
            }
            Verdict::Refused(code) => {
                Err(Next::Refused(Box::new(reasons::refused(link, code, ""))))
            }
        }
    }
}

/// Topics that any member subscribes to.
fn request_topics(joined: &crate::wire::join_group::JoinGroupResponse) -> Vec<String> {
    let subscriptions = joined.members.iter().filter_map(|member| {
        crate::wire::consumer_protocol::Subscription::decode(&member.metadata).ok()
    });
    let mut topics: Vec<String> = subscriptions.flat_map(|s| s.topics).collect();
    topics.sort();
    topics.dedup();
    topics
}
