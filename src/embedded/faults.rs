//! Faults that a test orders: wrong answers, silence, closed connections, each for a number of requests.
//!
//! Every fault counts how often it struck, so that a test can assert that it did.

use std::time::Duration;

use kafka_protocol::messages::ApiKey;

use crate::wire::error_code::ErrorCode;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is refused with this code and nothing is done. Per partition where the API has partitions.
    Refuse(ErrorCode),
    /// The request is done, and answered with this code all the same (7 and 20 of Produce).
    AnswerWith(ErrorCode),
    /// A batch's checksum is not looked at, and it is stored as it is. Of Produce.
    IgnoreCrc,
    /// The request waits before it is handled; the connection waits with it.
    Delay(Duration),
    /// The request is done and its answer waits.
    DelayAnswer(Duration),
    /// The client is over its quota: Produce is done, Fetch is answered empty; both say so, and the connection is
    /// not read for that long.
    Throttle(Duration),
    /// The connection closes with nothing done.
    CloseBefore,
    /// The request is done and the connection closes instead of answering.
    CloseAfter,
    /// The request is done and the connection goes silent for good.
    Silence,
}

impl Fault {
    fn is_of_partition(self) -> bool {
        let of_one = matches!(self, Self::Refuse(_) | Self::AnswerWith(_) | Self::IgnoreCrc);
        of_one && !self.is_of_session()
    }

    /// A refusal of the fetch session, which concerns the request as a whole.
    fn is_of_session(self) -> bool {
        const CODES: [ErrorCode; 3] = [
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND,
            ErrorCode::INVALID_FETCH_SESSION_EPOCH,
            ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR,
        ];
        matches!(self, Self::Refuse(code) if CODES.contains(&code))
    }
}

/// Where and how often a [`Fault`] strikes.
#[derive(Clone, Debug)]
pub struct Order {
    /// The requests that it concerns.
    pub api: ApiKey,
    /// Only on this broker.
    pub broker: Option<i32>,
    /// Only for this topic; codes only.
    pub topic: Option<String>,
    /// Only for this partition; codes only.
    pub partition: Option<i32>,
    /// Requests that pass untouched first.
    pub after: u32,
    /// Requests that are struck.
    pub times: u32,
    /// What happens.
    pub fault: Fault,
}

impl Order {
    /// A fault that strikes the next request of `api`.
    pub fn next(api: ApiKey, fault: Fault) -> Self {
        Self { api, broker: None, topic: None, partition: None, after: 0, times: 1, fault }
    }

    /// Only on this broker.
    #[must_use]
    pub fn on(mut self, broker: i32) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Only for this partition.
    #[must_use]
    pub fn at(mut self, topic: &str, partition: i32) -> Self {
        self.topic = Some(topic.into());
        self.partition = Some(partition);
        self
    }

    /// Lets this many pass first.
    #[must_use]
    pub fn after(mut self, requests: u32) -> Self {
        self.after = requests;
        self
    }

    /// Strikes this many.
    #[must_use]
    pub fn times(mut self, requests: u32) -> Self {
        self.times = requests;
        self
    }
}

/// Names an order, to ask how often it struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultId(usize);

struct Standing {
    order: Order,
    struck: u32,
}

/// The orders that stand.
#[derive(Default)]
pub(super) struct Faults(Vec<Standing>);

impl Faults {
    pub(super) fn add(&mut self, order: Order) -> FaultId {
        self.0.push(Standing { order, struck: 0 });
        FaultId(self.0.len() - 1)
    }

    pub(super) fn struck(&self, id: FaultId) -> u32 {
        self.0.get(id.0).map_or(0, |standing| standing.struck)
    }

    pub(super) fn clear(&mut self) {
        for standing in &mut self.0 {
            standing.order.times = 0;
        }
    }

    fn strike(&mut self, concerns: impl Fn(&Order) -> bool) -> Option<Fault> {
        for standing in &mut self.0 {
            let order = &mut standing.order;
            if order.times == 0 || !concerns(order) {
                continue;
            }
            if order.after > 0 {
                order.after -= 1;
                continue;
            }
            order.times -= 1;
            standing.struck += 1;
            return Some(order.fault);
        }
        None
    }

    /// What befalls a request as a whole.
    pub(super) fn of_request(&mut self, api: ApiKey, broker: i32) -> Option<Fault> {
        self.strike(|order| {
            let here = order.api == api && order.broker.is_none_or(|b| b == broker);
            here && !order.fault.is_of_partition() && !order.fault.is_of_session()
        })
    }

    /// What a fetch session is refused with.
    pub(super) fn refusal_of_session(&mut self, broker: i32) -> Option<ErrorCode> {
        let struck = self.strike(|order| {
            let here = order.broker.is_none_or(|b| b == broker);
            here && order.api == ApiKey::Fetch && order.fault.is_of_session()
        });
        match struck? {
            Fault::Refuse(code) => Some(code),
            _ => None,
        }
    }

    /// What befalls one partition of a request; `topic` is empty for APIs without partitions.
    pub(super) fn of_partition(
        &mut self,
        api: ApiKey,
        broker: i32,
        topic: &str,
        partition: i32,
    ) -> Option<Fault> {
        self.strike(|order| {
            order.fault.is_of_partition()
                && order.api == api
                && order.broker.is_none_or(|b| b == broker)
                && order.topic.as_deref().is_none_or(|t| t == topic)
                && order.partition.is_none_or(|p| p == partition)
        })
    }

    /// The code that an API without partitions is refused with.
    pub(super) fn refusal(&mut self, api: ApiKey, broker: i32) -> Option<ErrorCode> {
        match self.of_partition(api, broker, "", -1)? {
            Fault::Refuse(code) | Fault::AnswerWith(code) => Some(code),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_strikes_where_and_as_often_as_it_says() {
        let mut faults = Faults::default();
        let fault = Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        let order = Order::next(ApiKey::Produce, fault).at("t", 1).after(1).times(2);
        let id = faults.add(order);
        let mut ask =
            |topic, partition| faults.of_partition(ApiKey::Produce, 1, topic, partition).is_some();
        assert!(!ask("t", 0) && !ask("u", 1), "elsewhere");
        assert!(!ask("t", 1), "passes first");
        assert!(ask("t", 1) && ask("t", 1));
        assert!(!ask("t", 1), "spent");
        assert_eq!(faults.struck(id), 2);
    }
}
