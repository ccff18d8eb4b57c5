"""aiokafka.  suite_aiokafka.py BOOTSTRAP RECORDS [ONLY]"""

import asyncio
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from workload import CODECS, FIRST_TIMESTAMP, PARTITIONS, Workload, run

CLIENT = "aiokafka"


async def create(bootstrap, topic):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(topic, PARTITIONS, 1, topic_configs={"retention.ms": "-1"})]
        )
    except TopicAlreadyExistsError:
        pass
    finally:
        await admin.close()


async def produce(bootstrap, work):
    await create(bootstrap, work.topic)
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        enable_idempotence=True,
        compression_type=None if work.codec == "none" else work.codec,
        linger_ms=5,
        max_batch_size=65536,
    )
    await producer.start()
    try:
        sent = []
        for index in range(work.count):
            sent.append(
                await producer.send(
                    work.topic,
                    key=work.key(index),
                    value=work.value(index),
                    partition=index % PARTITIONS,
                    headers=work.headers(index),
                    timestamp_ms=FIRST_TIMESTAMP + index,
                )
            )
        await producer.flush()
        for future in sent:
            await future
    finally:
        await producer.stop()


async def started(consumer):
    await consumer.start()
    return consumer


def consumer(bootstrap, group, *topics):
    return started(
        AIOKafkaConsumer(
            *topics,
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
    )


async def read(reader, work, until):
    end = time.monotonic() + 120
    while len(work.seen) < until:
        assert time.monotonic() < end, f"only {len(work.seen)} of {until} records"
        for records in (await reader.getmany(timeout_ms=500, max_records=500)).values():
            for r in records:
                work.check(r.partition, r.offset, r.timestamp, r.key, r.value, list(r.headers))


async def produce_and_read(bootstrap, codec, each):
    work = Workload(CLIENT, codec, each)
    await produce(bootstrap, work)
    reader = await consumer(bootstrap, None)
    try:
        partitions = [TopicPartition(work.topic, p) for p in range(PARTITIONS)]
        reader.assign(partitions)
        await reader.seek_to_beginning()
        await read(reader, work, each)
        ends = await reader.end_offsets(partitions)
        assert sum(ends.values()) == each, f"the topic ends at {ends}"
    finally:
        await reader.stop()


async def commit_and_resume(bootstrap, each):
    work = Workload(CLIENT, "gzip", each)
    group = f"resume-{CLIENT}"
    first = await consumer(bootstrap, group, work.topic)
    await read(first, work, each // 2)
    await first.commit()
    await first.stop()
    assert len(work.seen) < each, "the first consumer has read everything"
    second = await consumer(bootstrap, group, work.topic)
    await read(second, work, each)
    await second.commit()
    await second.stop()
    third = await consumer(bootstrap, group, work.topic)
    more = await third.getmany(timeout_ms=2000)
    committed = [await third.committed(TopicPartition(work.topic, p)) for p in range(PARTITIONS)]
    await third.stop()
    assert not more, f"read again from {list(more)}"
    assert sum(committed) == each, f"committed {committed}"


async def members_come_and_go(bootstrap, each):
    """A second member joins and the first one leaves; nothing is read twice, nothing is left."""
    work = Workload(CLIENT, "none", each)
    group = f"scaled-{CLIENT}"
    owned, overlaps = {}, []

    class Listener(ConsumerRebalanceListener):
        def __init__(self, name, reader):
            self.name, self.reader = name, reader

        async def on_partitions_revoked(self, revoked):
            # What was read is committed before another one has the partition.
            if revoked:
                await self.reader.commit()
            for partition in revoked:
                owned.pop(partition, None)

        async def on_partitions_assigned(self, assigned):
            for partition in assigned:
                if partition in owned:
                    overlaps.append(f"{self.name} is given what {owned[partition]} has")
                owned[partition] = self.name

    async def member(name):
        reader = await consumer(bootstrap, group)
        reader.subscribe([work.topic], listener=Listener(name, reader))
        return reader

    members = [await member("first")]
    end = time.monotonic() + 120
    both = False
    while len(work.seen) < each:
        assert time.monotonic() < end, f"only {len(work.seen)} of {each} records, owned: {owned}"
        if len(members) == 1 and not both and len(work.seen) > each // 10:
            members.append(await member("second"))
        both = both or len(set(owned.values())) == 2
        if len(members) == 2 and both and len(work.seen) > each // 2:
            first = members.pop(0)
            await first.commit()
            await first.stop()
            # Nobody is told when a consumer stops.
            for partition in [p for p, name in owned.items() if name == "first"]:
                owned.pop(partition)
        # Slowly, until both are there.
        for reader in members:
            found = await reader.getmany(timeout_ms=50, max_records=500 if both else 20)
            for records in found.values():
                for r in records:
                    work.check(r.partition, r.offset, r.timestamp, r.key, r.value, list(r.headers))
    for reader in members:
        await reader.stop()
    assert both, "the members never shared the topic"
    assert not overlaps, overlaps


async def transactions(bootstrap, each):
    """Consumes, transforms and produces in transactions, some of which are aborted."""
    source, out, group = f"clients-{CLIENT}-none", f"txn-{CLIENT}", f"txn-{CLIENT}"
    await create(bootstrap, out)
    total = min(each, 5_000)
    partitions = [TopicPartition(source, p) for p in range(PARTITIONS)]
    reader = await consumer(bootstrap, group)
    reader.assign(partitions)
    for partition in partitions:
        reader.seek(partition, 0)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"txn-{CLIENT}")
    await producer.start()
    done, turn = 0, 0
    end = time.monotonic() + 120
    while done < total:
        assert time.monotonic() < end, f"only {done} of {total} records"
        before = {p: await reader.position(p) for p in partitions}
        found = await reader.getmany(timeout_ms=1000, max_records=min(500, total - done))
        records = [r for some in found.values() for r in some]
        if not records:
            continue
        await producer.begin_transaction()
        for r in records:
            await producer.send(out, key=r.key, value=r.value or b"", partition=r.partition)
        offsets = {p: await reader.position(p) for p in partitions}
        await producer.send_offsets_to_transaction(offsets, group)
        turn += 1
        if turn % 3 == 2:
            await producer.abort_transaction()
            for partition, offset in before.items():
                reader.seek(partition, offset)
        else:
            await producer.commit_transaction()
            done += len(records)
    await producer.stop()
    committed = [await reader.committed(p) for p in partitions]
    await reader.stop()
    assert sum(committed) == total, f"committed {committed}"
    reader = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    await reader.start()
    reader.assign([TopicPartition(out, p) for p in range(PARTITIONS)])
    await reader.seek_to_beginning()
    read_back, quiet = 0, 0
    while quiet < 2:
        assert time.monotonic() < end, f"read_committed sees {read_back} of {total} records"
        found = await reader.getmany(timeout_ms=500)
        count = sum(len(some) for some in found.values())
        read_back += count
        quiet = quiet + 1 if read_back >= total and not count else 0
    await reader.stop()
    assert read_back == total, f"read_committed sees {read_back} records instead of {total}"


def main():
    bootstrap, records = sys.argv[1], int(sys.argv[2])
    each = records // len(CODECS)
    tests = [
        (
            f"produce-and-read.{c}",
            lambda c=c: asyncio.run(produce_and_read(bootstrap, c, each)),
        )
        for c in CODECS
    ]
    for name, body in (
        ("commit-and-resume", commit_and_resume),
        ("members-come-and-go", members_come_and_go),
        ("transactions", transactions),
    ):
        tests.append((name, lambda body=body: asyncio.run(body(bootstrap, each))))
    run(CLIENT, sys.argv[3] if len(sys.argv) > 3 else None, tests)


main()
