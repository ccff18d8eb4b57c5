"""librdkafka with the consumer group protocol.  suite_consumer_groups.py BOOTSTRAP 0 [ONLY]"""

import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from workload import run

PARTITIONS = 6
LIMIT_S = 60


def create(bootstrap, topic, count):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    write(bootstrap, topic, count)


def write(bootstrap, topic, count):
    producer = Producer({"bootstrap.servers": bootstrap})
    for index in range(count):
        producer.produce(topic, value=str(index), partition=index % PARTITIONS)
    assert producer.flush(30) == 0, "records not sent"


class Crowd:
    """Members of one group, polled in turn."""

    def __init__(self, bootstrap, group):
        self.bootstrap, self.group = bootstrap, group
        self.members, self.seen = [], set()

    def join(self, topic, **more):
        config = {
            "bootstrap.servers": self.bootstrap,
            "group.id": self.group,
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
        config.update({name.replace("_", "."): value for name, value in more.items()})
        member = Consumer(config)
        member.subscribe([topic])
        self.members.append(member)
        return member

    def leave(self, which):
        self.members.pop(which).close()

    def poll(self):
        for member in self.members:
            message = member.poll(0.05)
            if message is None:
                continue
            if message.error():
                raise KafkaException(message.error())
            place = (message.topic(), message.partition(), message.offset())
            assert place not in self.seen, f"{place} came twice"
            self.seen.add(place)
            member.commit(message, asynchronous=False)

    def shares(self):
        return [
            {(part.topic, part.partition) for part in member.assignment()}
            for member in self.members
        ]

    def until(self, what, reached):
        end = time.monotonic() + LIMIT_S
        while not reached():
            assert time.monotonic() < end, f"{what} not reached: {len(self.seen)} records, {self.shares()}"
            self.poll()

    def settle(self, sizes):
        def settled():
            shares = self.shares()
            together = set().union(*shares)
            return sorted(map(len, shares)) == sizes and len(together) == sum(sizes)

        self.until(f"shares of {sizes}", settled)

    def close(self):
        for member in self.members:
            member.close()


def scale(bootstrap):
    create(bootstrap, "cg-rd-scale", 120)
    crowd = Crowd(bootstrap, "cg-rd-scaling")
    crowd.join("cg-rd-scale")
    crowd.settle([6])
    crowd.join("cg-rd-scale")
    crowd.join("cg-rd-scale")
    crowd.settle([2, 2, 2])
    crowd.until("all records", lambda: len(crowd.seen) == 120)
    crowd.leave(0)
    crowd.settle([3, 3])
    write(bootstrap, "cg-rd-scale", 60)
    crowd.until("more records", lambda: len(crowd.seen) == 180)
    crowd.close()
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "cg-rd-scaling"})
    parts = [TopicPartition("cg-rd-scale", part) for part in range(PARTITIONS)]
    committed = [part.offset for part in reader.committed(parts, timeout=10)]
    reader.close()
    assert committed == [30] * PARTITIONS, f"committed {committed}"


def statics(bootstrap):
    create(bootstrap, "cg-rd-static", 6)
    crowd = Crowd(bootstrap, "cg-rd-statics")
    crowd.join("cg-rd-static", group_instance_id="one")
    crowd.join("cg-rd-static", group_instance_id="two")
    crowd.settle([3, 3])
    before = crowd.shares()[1]
    crowd.leave(1)
    crowd.join("cg-rd-static", group_instance_id="two")
    crowd.settle([3, 3])
    assert crowd.shares()[1] == before, f"{crowd.shares()[1]} instead of {before}"
    crowd.close()


def regexes(bootstrap):
    create(bootstrap, "cg-rd-re-a", 6)
    crowd = Crowd(bootstrap, "cg-rd-regexes")
    crowd.join("^cg-rd-re-.*")
    crowd.settle([6])
    crowd.until("all records", lambda: len(crowd.seen) == 6)
    crowd.close()


if __name__ == "__main__":
    bootstrap = sys.argv[1]
    only = sys.argv[3] if len(sys.argv) > 3 else None
    run(
        "consumer-groups",
        only,
        [
            ("librdkafka-scale", lambda: scale(bootstrap)),
            ("librdkafka-static", lambda: statics(bootstrap)),
            ("librdkafka-regexes", lambda: regexes(bootstrap)),
        ],
    )
