//! Who gets what in a classic group: balanced by count, and with as little moved as that allows. PURE.
//!
//! Cooperative: a partition that its holder must give up first goes to nobody in this round; the holder joins again once it
//! has let go, and then it is free.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::wire::consumer_protocol::TopicPartition;

/// A member, as the leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its id.
    pub(super) member: String,
    /// Topics that it takes.
    pub(super) topics: BTreeSet<String>,
    /// What it says that it holds.
    pub(super) owned: Vec<TopicPartition>,
    /// In which generation it got that.
    pub(super) generation: i32,
}

/// What each member shall hold, by member id; every member is there.
pub(super) type Shares = BTreeMap<String, BTreeSet<TopicPartition>>;

/// Shares out `partitions` of each topic.
pub(super) fn assign(members: &[Seen], partitions: impl Fn(&str) -> i32) -> Shares {
    let holders = holders(members);
    let topics: BTreeSet<&String> = members.iter().flat_map(|member| &member.topics).collect();
    let all = topics.into_iter().flat_map(|topic| {
        let (name, count) = (Arc::<str>::from(topic.as_str()), partitions(topic));
        (0..count).map(move |partition| (name.clone(), partition))
    });
    let mut shares: Shares =
        members.iter().map(|member| (member.member.clone(), BTreeSet::new())).collect();
    let takes = |member: &str, topic: &str| {
        members.iter().any(|seen| seen.member == *member && seen.topics.contains(topic))
    };
    let mut free = Vec::new();
    for partition in all {
        let holder = holders.get(&partition).filter(|holder| takes(holder, &partition.0));
        match holder.and_then(|holder| shares.get_mut(*holder)) {
            Some(share) => drop(share.insert(partition)),
            None => free.push(partition),
        }
    }
    for partition in free {
        let least = shares
            .iter_mut()
            .filter(|(member, _)| takes(member, &partition.0))
            .min_by_key(|(_, share)| share.len());
        if let Some((_, share)) = least {
            share.insert(partition);
        }
    }
    balance(&mut shares, takes);
    withhold(&mut shares, &holders);
    shares
}

/// Who holds what, by the newest claim; a partition that two claim alike is nobody's.
fn holders(members: &[Seen]) -> BTreeMap<TopicPartition, &str> {
    let mut claims: BTreeMap<&TopicPartition, (i32, Option<&str>)> = BTreeMap::new();
    for member in members {
        for partition in &member.owned {
            let newest = claims.entry(partition).or_insert((i32::MIN, None));
            match member.generation.cmp(&newest.0) {
                std::cmp::Ordering::Greater => {
                    *newest = (member.generation, Some(&member.member));
                }
                std::cmp::Ordering::Equal => newest.1 = None,
                std::cmp::Ordering::Less => {}
            }
        }
    }
    let certain = claims.into_iter();
    certain.filter_map(|(partition, (_, holder))| Some((partition.clone(), holder?))).collect()
}

/// Moves partitions from who has most to who has least while that makes them more alike; each move does, so it ends.
fn balance(shares: &mut Shares, takes: impl Fn(&str, &str) -> bool) {
    loop {
        let mut by_size: Vec<(usize, String)> =
            shares.iter().map(|(member, share)| (share.len(), member.clone())).collect();
        by_size.sort();
        let mut moved = false;
        'search: for (most, giver) in by_size.iter().rev() {
            for (least, taker) in &by_size {
                if *most < least + 2 {
                    break;
                }
                let found = shares.get(giver).and_then(|share| {
                    share.iter().rev().find(|(topic, _)| takes(taker, topic)).cloned()
                });
                let Some(partition) = found else { continue };
                shares.entry(giver.clone()).or_default().remove(&partition);
                shares.entry(taker.clone()).or_default().insert(partition);
                moved = true;
                break 'search;
            }
        }
        if !moved {
            return;
        }
    }
}

/// What another still holds is nobody's until it was let go.
fn withhold(shares: &mut Shares, holders: &BTreeMap<TopicPartition, &str>) {
    for (member, share) in shares {
        share.retain(|partition| holders.get(partition).is_none_or(|holder| holder == member));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(member: &str, owned: &[(&str, i32)], generation: i32) -> Seen {
        let owned = owned.iter().map(|(topic, index)| ((*topic).into(), *index)).collect();
        let topics = ["a".to_owned(), "b".to_owned()].into();
        Seen { member: member.to_owned(), topics, owned, generation }
    }

    fn counts(topic: &str) -> i32 {
        if topic == "a" { 6 } else { 1 }
    }

    /// Rounds until nothing is withheld, as the members would join again.
    fn settle(mut members: Vec<Seen>) -> (Shares, usize) {
        for round in 1..10 {
            let shares = assign(&members, counts);
            let mut again = false;
            for member in &mut members {
                let share = &shares[&member.member];
                again |= member.owned.iter().any(|partition| !share.contains(partition));
                member.owned = share.iter().cloned().collect();
                member.generation = round;
            }
            if !again {
                return (shares, usize::try_from(round).unwrap());
            }
        }
        panic!("never settles");
    }

    #[test]
    fn one_takes_all_and_a_second_gets_half_after_it_was_let_go() {
        let alone = assign(&[seen("m1", &[], -1)], counts);
        assert_eq!(alone["m1"].len(), 7);
        let held: Vec<TopicPartition> = alone["m1"].iter().cloned().collect();
        let first = Seen { owned: held.clone(), generation: 1, ..seen("m1", &[], 1) };
        let round = assign(&[first.clone(), seen("m2", &[], -1)], counts);
        assert_eq!(round["m1"].len(), 4);
        assert!(round["m2"].is_empty(), "what moves is nobody's in this round");
        let (shares, rounds) = settle(vec![first, seen("m2", &[], -1)]);
        assert_eq!((shares["m1"].len(), shares["m2"].len(), rounds), (4, 3, 2));
        assert!(shares["m1"].iter().all(|partition| held.contains(partition)));
    }

    #[test]
    fn who_leaves_is_inherited_and_nothing_else_moves() {
        let (three, _) =
            settle(vec![seen("m1", &[], -1), seen("m2", &[], -1), seen("m3", &[], -1)]);
        let kept = |member: &str| {
            let owned = three[member].iter().cloned().collect();
            Seen { owned, generation: 9, ..seen(member, &[], 9) }
        };
        let (two, rounds) = settle(vec![kept("m1"), kept("m2")]);
        assert_eq!(rounds, 1, "free partitions need no second round");
        assert!(three["m1"].is_subset(&two["m1"]) && three["m2"].is_subset(&two["m2"]));
        assert_eq!(two["m1"].len() + two["m2"].len(), 7);
    }

    #[test]
    fn an_old_claim_and_two_equal_ones_count_for_nothing() {
        let zombie = seen("m1", &[("a", 0), ("a", 1)], 3);
        let owner = seen("m2", &[("a", 0)], 4);
        let shares = assign(&[zombie, owner], |_| 2);
        assert!(shares["m2"].contains(&("a".into(), 0)), "{shares:?}");
        assert!(shares["m1"].contains(&("a".into(), 1)), "{shares:?}");
        let both = [seen("m1", &[("a", 0)], 3), seen("m2", &[("a", 0)], 3)];
        let shares = assign(&both, |_| 1);
        assert_eq!(shares.values().map(BTreeSet::len).sum::<usize>(), 2, "{shares:?}");
    }

    #[test]
    fn a_topic_goes_only_to_those_who_take_it() {
        let mut narrow = seen("m2", &[], -1);
        narrow.topics = ["b".to_owned()].into();
        let shares = assign(&[seen("m1", &[], -1), narrow], counts);
        assert_eq!((shares["m1"].len(), shares["m2"].len()), (6, 1));
        assert!(shares["m2"].contains(&("b".into(), 0)));
    }

    proptest! {
        #[test]
        fn every_partition_has_one_holder_and_counts_differ_by_one(
            members in 1usize..6,
            claims in proptest::collection::vec((0usize..6, 0i32..6, 0i32..3), 0..20),
        ) {
            let mut seen: Vec<Seen> =
                (0..members).map(|i| super::tests::seen(&format!("m{i}"), &[], -1)).collect();
            for (member, partition, generation) in claims {
                let member = &mut seen[member % members];
                member.owned.push(("a".into(), partition));
                member.generation = generation;
            }
            let (shares, rounds) = settle(seen);
            let all: Vec<_> = shares.values().flatten().collect();
            prop_assert_eq!(all.len(), 7);
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 7);
            let sizes: Vec<usize> = shares.values().map(BTreeSet::len).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            prop_assert!(rounds <= 3, "{}", rounds);
        }
    }
}
