//! Which brokers get the replicas of new partitions.
//!
//! Kafka's striping: brokers are laid out by rack, and each partition takes its replicas from as
//! many racks as there are, starting one rack further than the partition before it and one broker
//! further within each rack, so that leaders and followers spread evenly. The start is drawn from
//! the given randomness: with the same draws the placement is the same.

use std::collections::BTreeMap;

use klamm_env::Rng;
use klamm_metadata::MetadataImage;
use thiserror::Error;

/// Why replicas cannot be placed. The texts are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlacementError {
    /// Zero replicas, or fewer.
    #[error("Invalid replication factor {0}: the replication factor must be positive.")]
    NotPositive(i16),
    /// No broker can take a leader.
    #[error("All brokers are currently fenced, or have all their log directories cordoned.")]
    AllFenced,
    /// More replicas than brokers.
    #[error(
        "The target replication factor of {replicas} cannot be reached because only {brokers} \
         broker(s) are registered or some brokers have all their log directories cordoned."
    )]
    TooFewBrokers {
        /// Replicas asked for.
        replicas: i16,
        /// Brokers that could take one.
        brokers: usize,
    },
}

/// A broker that may take replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsableBroker {
    /// Node id.
    pub id: i32,
    /// Rack, if it is known.
    pub rack: Option<String>,
    /// Whether the broker is fenced: it may follow, but not come first.
    pub fenced: bool,
}

/// The brokers of a cluster that may take replicas: neither on their way out nor cordoned.
pub fn usable_brokers(image: &MetadataImage) -> Vec<UsableBroker> {
    image
        .brokers()
        .filter(|broker| !broker.in_controlled_shutdown && !broker.is_cordoned())
        .map(|broker| UsableBroker {
            id: broker.id,
            rack: broker.rack.clone(),
            fenced: broker.fenced,
        })
        .collect()
}

/// Replicas for each of `partitions` new partitions, the preferred leader first.
pub fn place(
    brokers: &[UsableBroker],
    partitions: usize,
    replicas: i16,
    rng: &dyn Rng,
) -> Result<Vec<Vec<i32>>, PlacementError> {
    let count = usize::try_from(replicas).ok().filter(|&count| count > 0);
    let Some(count) = count else {
        return Err(PlacementError::NotPositive(replicas));
    };
    if brokers.iter().all(|broker| broker.fenced) {
        return Err(PlacementError::AllFenced);
    }
    if count > brokers.len() {
        return Err(PlacementError::TooFewBrokers {
            replicas,
            brokers: brokers.len(),
        });
    }
    let mut racks = Racks::new(brokers, rng);
    Ok((0..partitions).map(|_| racks.place(count)).collect())
}

/// Brokers of one rack and one state, taken in a circle that starts one further each round.
#[derive(Default)]
struct Ring {
    brokers: Vec<i32>,
    taken: usize,
    offset: usize,
    round: usize,
}

impl Ring {
    fn start(&mut self, rng: &dyn Rng) {
        self.brokers.sort_unstable();
        self.offset = rng.below(self.brokers.len() as u64) as usize;
    }

    fn next(&mut self, round: usize) -> Option<i32> {
        if self.brokers.is_empty() {
            return None;
        }
        if self.round != round {
            self.round = round;
            self.taken = 0;
            self.offset = (self.offset + 1) % self.brokers.len();
        }
        if self.taken >= self.brokers.len() {
            return None;
        }
        let broker = self.brokers[(self.taken + self.offset) % self.brokers.len()];
        self.taken += 1;
        Some(broker)
    }
}

#[derive(Default)]
struct Rack {
    unfenced: Ring,
    fenced: Ring,
}

struct Racks<'a> {
    racks: Vec<Rack>,
    rng: &'a dyn Rng,
    unfenced: usize,
    round: usize,
    offset: usize,
}

impl<'a> Racks<'a> {
    fn new(brokers: &[UsableBroker], rng: &'a dyn Rng) -> Self {
        // Sorted by name, brokers without rack first.
        let mut racks: BTreeMap<Option<&str>, Rack> = BTreeMap::new();
        for broker in brokers {
            let rack = racks.entry(broker.rack.as_deref()).or_default();
            let ring = if broker.fenced {
                &mut rack.fenced
            } else {
                &mut rack.unfenced
            };
            ring.brokers.push(broker.id);
        }
        let mut racks: Vec<Rack> = racks.into_values().collect();
        for rack in &mut racks {
            rack.fenced.start(rng);
            rack.unfenced.start(rng);
        }
        Racks {
            unfenced: brokers.iter().filter(|broker| !broker.fenced).count(),
            offset: rng.below(racks.len() as u64) as usize,
            racks,
            rng,
            round: 0,
        }
    }

    /// Replicas of one partition. There are at least `count` brokers, one of them unfenced.
    fn place(&mut self, count: usize) -> Vec<i32> {
        if self.round == self.unfenced && self.unfenced > 1 {
            // All offsets were used once: mix, so that the same followers do not meet again.
            self.shuffle();
            self.round = 0;
        }
        self.offset %= self.racks.len();
        let mut replicas = Vec::with_capacity(count);
        let mut first_rack = Some(self.offset);
        for step in 0..self.racks.len() {
            let rack = (self.offset + step) % self.racks.len();
            if let Some(leader) = self.racks[rack].unfenced.next(self.round) {
                replicas.push(leader);
                first_rack = Some(rack);
                break;
            }
        }
        // The other replicas go round the racks; the first time around, the leader's is left out.
        let mut rack = self.offset;
        while replicas.len() < count {
            if first_rack == Some(rack) {
                first_rack = None;
            } else {
                let round = self.round;
                let Rack { unfenced, fenced } = &mut self.racks[rack];
                replicas.extend(unfenced.next(round).or_else(|| fenced.next(round)));
            }
            rack = (rack + 1) % self.racks.len();
        }
        self.round += 1;
        self.offset += 1;
        replicas
    }

    fn shuffle(&mut self) {
        shuffle(&mut self.racks, self.rng);
        for rack in &mut self.racks {
            shuffle(&mut rack.unfenced.brokers, self.rng);
            shuffle(&mut rack.fenced.brokers, self.rng);
        }
    }
}

fn shuffle<T>(items: &mut [T], rng: &dyn Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.below(last as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use klamm_env::SplitMix64;
    use proptest::prelude::*;

    use super::*;

    fn brokers(racks: &[Option<&str>]) -> Vec<UsableBroker> {
        let broker = |(id, rack): (usize, &Option<&str>)| UsableBroker {
            id: id as i32,
            rack: rack.map(str::to_owned),
            fenced: false,
        };
        racks.iter().enumerate().map(broker).collect()
    }

    #[test]
    fn leaders_spread_over_all_brokers() {
        let rng = SplitMix64::new(3);
        let placed = place(&brokers(&[None; 5]), 10, 3, &rng).unwrap();
        let mut leaders: Vec<i32> = placed.iter().map(|replicas| replicas[0]).collect();
        leaders.sort_unstable();
        assert_eq!(leaders, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn replicas_spread_over_all_racks() {
        let racks = [
            Some("a"),
            Some("a"),
            Some("b"),
            Some("b"),
            Some("c"),
            Some("c"),
        ];
        let all = brokers(&racks);
        let placed = place(&all, 30, 3, &SplitMix64::new(9)).unwrap();
        for replicas in placed {
            let used: BTreeSet<_> = replicas.iter().map(|&r| racks[r as usize]).collect();
            assert_eq!(used.len(), 3, "{replicas:?}");
        }
    }

    #[test]
    fn a_fenced_broker_never_comes_first() {
        let mut all = brokers(&[None, None, None]);
        all[1].fenced = true;
        let placed = place(&all, 20, 3, &SplitMix64::new(1)).unwrap();
        assert!(
            placed
                .iter()
                .all(|replicas| replicas[0] != 1 && replicas.contains(&1))
        );
    }

    #[test]
    fn refuses_what_cannot_be_placed() {
        let rng = SplitMix64::new(1);
        let mut one = brokers(&[None]);
        assert_eq!(place(&one, 1, 0, &rng), Err(PlacementError::NotPositive(0)));
        let error = place(&one, 1, 2, &rng).unwrap_err();
        assert_eq!(
            error,
            PlacementError::TooFewBrokers {
                replicas: 2,
                brokers: 1
            }
        );
        one[0].fenced = true;
        assert_eq!(place(&one, 1, 1, &rng), Err(PlacementError::AllFenced));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn every_placement_is_sound(
            layout in prop::collection::vec((0..4_u8, any::<bool>()), 1..9),
            partitions in 1..40_usize,
            replicas in 1..9_i16,
            seed in any::<u64>(),
        ) {
            let all: Vec<UsableBroker> = layout
                .iter()
                .enumerate()
                .map(|(id, (rack, fenced))| UsableBroker {
                    id: id as i32,
                    rack: (*rack > 0).then(|| rack.to_string()),
                    fenced: *fenced,
                })
                .collect();
            let placed = place(&all, partitions, replicas, &SplitMix64::new(seed));
            prop_assert_eq!(&placed, &place(&all, partitions, replicas, &SplitMix64::new(seed)));
            let Ok(placed) = placed else {
                let live = all.iter().any(|b| !b.fenced);
                prop_assert!(!live || replicas as usize > all.len());
                return Ok(());
            };
            prop_assert_eq!(placed.len(), partitions);
            let racks: BTreeSet<_> = all.iter().map(|b| &b.rack).collect();
            for replicas_of in &placed {
                let distinct: BTreeSet<_> = replicas_of.iter().collect();
                prop_assert_eq!(distinct.len(), replicas as usize);
                prop_assert!(!all[replicas_of[0] as usize].fenced);
                let used: BTreeSet<_> = replicas_of.iter().map(|&r| &all[r as usize].rack).collect();
                prop_assert_eq!(used.len(), racks.len().min(replicas as usize));
            }
        }
    }
}
