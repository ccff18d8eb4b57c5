//! Assignors and hashes against what Kafka's own classes answered
//! (`tests/golden/GroupGolden.java`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_protocol::ByteStr;
use klamm_records::Uuid;

use crate::group::cluster::{ListedTopic, TopicList};
use crate::group::consumer::assignor::{Assignor, GroupSpec, MemberSpec};
use crate::group::consumer::{Partitions, TopicHashes};

const ASSIGNORS: &str = include_str!("../../../../tests/golden/assignors.txt");
const HASHES: &str = include_str!("../../../../tests/golden/topic-hashes.tsv");

fn partitions(text: &str) -> Partitions {
    if text == "-" {
        return Partitions::new();
    }
    let topic = |entry: &str| {
        let (id, partitions) = entry.split_once(':').unwrap();
        let partitions = partitions.split(',').map(|p| p.parse().unwrap());
        (id.parse().unwrap(), partitions.collect())
    };
    text.split(';').map(topic).collect()
}

#[test]
fn assignors_give_what_kafkas_give() {
    let mut count = 0;
    for case in ASSIGNORS.split("end\n").filter(|case| !case.is_empty()) {
        let mut assignor = Assignor::Uniform;
        let mut is_homogeneous = false;
        let mut counts: BTreeMap<Uuid, i32> = BTreeMap::new();
        let mut members = Vec::new();
        let mut expected: BTreeMap<ByteStr, Partitions> = BTreeMap::new();
        for line in case.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["case", name, kind] => {
                    assignor = Assignor::from_name(name).unwrap();
                    is_homogeneous = kind == "same";
                }
                ["topic", id, count] => {
                    counts.insert(id.parse().unwrap(), count.parse().unwrap());
                }
                ["member", id, instance, topics, assignment] => members.push(MemberSpec {
                    id: id.into(),
                    instance_id: (instance != "null").then(|| instance.into()),
                    topics: topics.split(',').map(|id| id.parse().unwrap()).collect(),
                    assignment: Arc::new(partitions(assignment)),
                }),
                ["gets", id, assignment] => {
                    expected.insert(id.into(), partitions(assignment));
                }
                _ => panic!("{line}"),
            }
        }
        let assigned: BTreeSet<(Uuid, i32)> = members
            .iter()
            .flat_map(|member| {
                let topics = member.assignment.iter();
                topics.flat_map(|(id, partitions)| partitions.iter().map(|p| (*id, *p)))
            })
            .collect();
        let spec = GroupSpec::new(members, is_homogeneous, counts, assigned);
        let mut given = assignor.assign(&spec);
        for id in expected.keys() {
            given.entry(id.clone()).or_default();
        }
        assert_eq!(given, expected, "{case}");
        count += 1;
    }
    assert!(count > 400, "only {count} cases");
}

#[test]
fn hashes_of_topics_are_kafkas() {
    let mut topics = TopicList::default();
    for line in HASHES.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, id, racks, hash] = columns[..] else {
            panic!("{line}");
        };
        let of_partition = |racks: &str| -> Vec<ByteStr> {
            let racks = racks.split(',').filter(|rack| !rack.is_empty());
            racks.map(ByteStr::from).collect()
        };
        let topic = ListedTopic {
            id: id.parse().unwrap(),
            partitions: racks.split(';').map(of_partition).collect(),
        };
        topics.topics.insert(name.into(), topic);
        topics.version += 1;
        let mut names: Vec<ByteStr> = topics.topics.keys().cloned().collect();
        names.push("zzz-missing".into());
        let found = TopicHashes::default().group_hash(names.iter(), &topics);
        assert_eq!(found.to_string(), hash, "{line}");
    }
    let none = TopicHashes::default().group_hash([ByteStr::from("missing")].iter(), &topics);
    assert_eq!(none, 0);
}
