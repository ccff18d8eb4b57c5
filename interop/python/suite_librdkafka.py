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


def consumer(bootstrap, group, protocol="classic"):
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "group.protocol": protocol,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )


def check(work, message):
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


def read(reader, work, until):
    end = time.monotonic() + 120
    while len(work.seen) < until:
        assert time.monotonic() < end, f"only {len(work.seen)} of {until} records"
        for message in reader.consume(500, 0.5):
            check(work, message)


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


def commit_and_resume(bootstrap, each, protocol):
    work = Workload(CLIENT, "gzip", each)
    group = f"resume-{CLIENT}-{protocol}"
    first = consumer(bootstrap, group, protocol)
    first.subscribe([work.topic])
    read(first, work, each // 2)
    first.commit(asynchronous=False)
    first.close()
    assert len(work.seen) < each, "the first consumer has read everything"
    second = consumer(bootstrap, group, protocol)
    second.subscribe([work.topic])
    read(second, work, each)
    second.commit(asynchronous=False)
    second.close()
    third = consumer(bootstrap, group, protocol)
    third.subscribe([work.topic])
    more = third.consume(10, 2.0)
    committed = third.committed([TopicPartition(work.topic, p) for p in range(PARTITIONS)], 10)
    third.close()
    assert not more, f"read again: {len(more)} records"
    assert sum(c.offset for c in committed) == each, f"committed {committed}"


def members_come_and_go(bootstrap, each, protocol):
    """A second member joins and the first one leaves; nothing is read twice, nothing is left."""
    work = Workload(CLIENT, "none", each)
    group = f"scaled-{CLIENT}-{protocol}"
    owned = {}

    def member(name):
        def assigned(_, partitions):
            for p in partitions:
                assert p.partition not in owned, f"{name} is given what {owned[p.partition]} has"
                owned[p.partition] = name

        def revoked(reader, partitions):
            # What was read is committed before another one has the partition.
            positions = [p for p in reader.position(partitions) if p.offset >= 0]
            if positions:
                reader.commit(offsets=positions, asynchronous=False)
            for p in partitions:
                owned.pop(p.partition, None)

        reader = consumer(bootstrap, group, protocol)
        reader.subscribe([work.topic], on_assign=assigned, on_revoke=revoked, on_lost=revoked)
        return reader

    members = [member("first")]
    end = time.monotonic() + 120
    both = False
    while len(work.seen) < each:
        assert time.monotonic() < end, f"only {len(work.seen)} of {each} records, owned: {owned}"
        if len(members) == 1 and not both and len(work.seen) > each // 10:
            members.append(member("second"))
        both = both or len(set(owned.values())) == 2
        if len(members) == 2 and both and len(work.seen) > each // 2:
            members.pop(0).close()
        # So slowly, until both are there, that records remain for the second one to read.
        for reader in members:
            for message in reader.consume(500 if both else max(1, each // 500), 0.05):
                check(work, message)
        if len(members) == 2 and not both:
            time.sleep(0.05)
    for reader in members:
        reader.close()
    assert both, "the members never shared the topic"


def transactions(bootstrap, each):
    """Consumes, transforms and produces in transactions, some of which are aborted."""
    source = f"clients-{CLIENT}-none"
    out = f"txn-{CLIENT}"
    create(bootstrap, out)
    total = min(each, 5_000)
    reader = consumer(bootstrap, f"txn-{CLIENT}", "consumer")
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": f"txn-{CLIENT}"})
    producer.init_transactions(30)
    reader.assign([TopicPartition(source, p, 0) for p in range(PARTITIONS)])
    # Where the group is, by partition.
    place = dict.fromkeys(range(PARTITIONS), 0)
    done, turn = 0, 0
    end = time.monotonic() + 120
    while done < total:
        assert time.monotonic() < end, f"only {done} of {total} records"
        before = dict(place)
        messages = reader.consume(min(500, total - done), 1.0)
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            assert not message.error(), message.error()
            p = message.partition()
            assert message.offset() == place[p], f"{message.offset()} of {p}, {place[p]} is due"
            place[p] += 1
            producer.produce(out, key=message.key(), value=message.value() or b"", partition=p)
        offsets = [TopicPartition(source, p, offset) for p, offset in place.items()]
        producer.send_offsets_to_transaction(offsets, reader.consumer_group_metadata(), 30)
        turn += 1
        if turn % 3 == 2:
            producer.abort_transaction(30)
            place = before
            for p, offset in place.items():
                reader.seek(TopicPartition(source, p, offset))
        else:
            producer.commit_transaction(30)
            done += len(messages)
    committed = reader.committed([TopicPartition(source, p) for p in range(PARTITIONS)], 30)
    reader.close()
    assert sum(c.offset for c in committed) == total, f"committed {committed}"
    reader = consumer(bootstrap, f"txn-{CLIENT}-read")
    reader.assign([TopicPartition(out, p, 0) for p in range(PARTITIONS)])
    read_back = 0
    while read_back < total:
        assert time.monotonic() < end, f"read_committed sees {read_back} of {total} records"
        read_back += len(reader.consume(500, 0.5))
    read_back += len(reader.consume(500, 1.0))
    reader.close()
    assert read_back == total, f"read_committed sees {read_back} records instead of {total}"


def main():
    bootstrap, records = sys.argv[1], int(sys.argv[2])
    each = records // len(CODECS)
    tests = [
        (f"produce-and-read.{c}", lambda c=c: produce_and_read(bootstrap, c, each)) for c in CODECS
    ]
    for p in ("classic", "consumer"):
        tests.append((f"commit-and-resume.{p}", lambda p=p: commit_and_resume(bootstrap, each, p)))
        tests.append(
            (f"members-come-and-go.{p}", lambda p=p: members_come_and_go(bootstrap, each, p))
        )
    tests.append(("transactions", lambda: transactions(bootstrap, each)))
    run(CLIENT, sys.argv[3] if len(sys.argv) > 3 else None, tests)


main()
