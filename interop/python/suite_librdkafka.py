"""librdkafka, through confluent-kafka.  suite_librdkafka.py BOOTSTRAP RECORDS [ONLY]"""

import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from workload import CODECS, FIRST_TIMESTAMP, PARTITIONS, Workload, run

CLIENT = "librdkafka"


def create(bootstrap, topic):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    made = admin.create_topics(
        [NewTopic(topic, PARTITIONS, 1, config={"retention.ms": "-1"})], operation_timeout=30
    )
    try:
        made[topic].result(30)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def produce(bootstrap, work):
    create(bootstrap, work.topic)
    errors = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "compression.type": work.codec,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
        }
    )

    def delivered(error, _):
        if error is not None:
            errors.append(error)

    for index in range(work.count):
        producer.produce(
            work.topic,
            key=work.key(index),
            value=work.value(index),
            partition=index % PARTITIONS,
            headers=work.headers(index),
            timestamp=FIRST_TIMESTAMP + index,
            on_delivery=delivered,
        )
        if index % 1000 == 0:
            producer.poll(0)
    left = producer.flush(60)
    assert left == 0, f"{left} records not sent"
    assert not errors, f"{len(errors)} errors, the first: {errors[0]}"


def consumer(bootstrap, group):
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )


def read(reader, work, until):
    end = time.monotonic() + 120
    while len(work.seen) < until:
        assert time.monotonic() < end, f"only {len(work.seen)} of {until} records"
        for message in reader.consume(500, 0.5):
            if message.error():
                raise KafkaException(message.error())
            work.check(
                message.partition(),
                message.offset(),
                message.timestamp()[1],
                message.key(),
                message.value(),
                message.headers(),
            )


def produce_and_read(bootstrap, codec, each):
    work = Workload(CLIENT, codec, each)
    produce(bootstrap, work)
    reader = consumer(bootstrap, f"read-{CLIENT}-{codec}")
    try:
        reader.assign([TopicPartition(work.topic, p, 0) for p in range(PARTITIONS)])
        read(reader, work, each)
        for p in range(PARTITIONS):
            low, high = reader.get_watermark_offsets(TopicPartition(work.topic, p), timeout=10)
            count = len(range(p, each, PARTITIONS))
            assert (low, high) == (0, count), f"partition {p} goes from {low} to {high}"
    finally:
        reader.close()


def commit_and_resume(bootstrap, each):
    work = Workload(CLIENT, "gzip", each)
    group = f"resume-{CLIENT}"
    first = consumer(bootstrap, group)
    first.subscribe([work.topic])
    read(first, work, each // 2)
    first.commit(asynchronous=False)
    first.close()
    assert len(work.seen) < each, "the first consumer has read everything"
    second = consumer(bootstrap, group)
    second.subscribe([work.topic])
    read(second, work, each)
    second.commit(asynchronous=False)
    second.close()
    third = consumer(bootstrap, group)
    third.subscribe([work.topic])
    more = third.consume(10, 2.0)
    committed = third.committed([TopicPartition(work.topic, p) for p in range(PARTITIONS)], 10)
    third.close()
    assert not more, f"read again: {len(more)} records"
    assert sum(c.offset for c in committed) == each, f"committed {committed}"


def main():
    bootstrap, records = sys.argv[1], int(sys.argv[2])
    each = records // len(CODECS)
    tests = [
        (f"produce-and-read.{c}", lambda c=c: produce_and_read(bootstrap, c, each)) for c in CODECS
    ]
    tests.append(("commit-and-resume", lambda: commit_and_resume(bootstrap, each)))
    run(CLIENT, sys.argv[3] if len(sys.argv) > 3 else None, tests)


main()
