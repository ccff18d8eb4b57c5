"""A member of a consumer group: librdkafka.

member_librdkafka.py BOOTSTRAP TOPIC GROUP PROTOCOL

PROTOCOL is `consumer`, or the assignor of a classic group. Ends with its input.
"""

import sys
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

from member_lines import (
    COMMIT_INTERVAL,
    FETCH_MIN_BYTES,
    FETCH_WAIT_MS,
    HEARTBEAT_INTERVAL_MS,
    SESSION_TIMEOUT_MS,
    Teller,
)


def settings(bootstrap, group, protocol):
    common = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "fetch.min.bytes": FETCH_MIN_BYTES,
        "log_level": 4,
    }
    if protocol == "consumer":
        return common | {"group.protocol": "consumer"}
    return common | {
        "group.protocol": "classic",
        "partition.assignment.strategy": protocol,
        "session.timeout.ms": SESSION_TIMEOUT_MS,
        "heartbeat.interval.ms": HEARTBEAT_INTERVAL_MS,
    }


def main(bootstrap, topic, group, protocol):
    teller = Teller()
    teller.stop_at_end_of_input()
    consumer = Consumer(settings(bootstrap, group, protocol))

    def commit():
        if not teller.following:
            return
        offsets = [TopicPartition(topic, p, o) for p, o in teller.following.items()]
        try:
            taken = consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            teller.refused(error)
            return
        teller.committed({t.partition: t.offset for t in taken if t.error is None})
        for answer in taken:
            if answer.error is not None:
                teller.refused(answer.error)

    def numbers(partitions):
        return [p.partition for p in partitions]

    def on_revoke(_, partitions):
        commit()
        teller.partitions("revoked", numbers(partitions))

    consumer.subscribe(
        [topic],
        on_assign=lambda _, partitions: teller.partitions("assigned", numbers(partitions)),
        on_revoke=on_revoke,
        on_lost=lambda _, partitions: teller.partitions("lost", numbers(partitions)),
    )
    last = time.monotonic()
    while not teller.stopped:
        for message in consumer.consume(500, 0.1):
            if message.error() is not None:
                print(message.error(), file=sys.stderr)
            else:
                teller.read(message.partition(), message.offset(), message.value())
        teller.flush()
        if time.monotonic() - last > COMMIT_INTERVAL:
            commit()
            last = time.monotonic()
    consumer.close()
    teller.tell("ended")


main(*sys.argv[1:])
