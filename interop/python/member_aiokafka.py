"""A member of a classic group: aiokafka.

member_aiokafka.py BOOTSTRAP TOPIC GROUP ASSIGNOR

Ends with its input.
"""

import asyncio
import sys
import time

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError

from member_lines import (
    COMMIT_INTERVAL,
    FETCH_MIN_BYTES,
    FETCH_WAIT_MS,
    HEARTBEAT_INTERVAL_MS,
    SESSION_TIMEOUT_MS,
    Teller,
)

ASSIGNORS = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor}


class Member(ConsumerRebalanceListener):
    def __init__(self, teller, consumer, topic):
        self.teller, self.consumer, self.topic = teller, consumer, topic

    async def commit(self):
        offsets = dict(self.teller.following)
        if not offsets:
            return
        try:
            await self.consumer.commit(
                {TopicPartition(self.topic, p): o for p, o in offsets.items()}
            )
        except KafkaError as error:
            self.teller.refused(repr(error))
        else:
            self.teller.committed(offsets)

    async def on_partitions_revoked(self, revoked):
        if revoked:
            await self.commit()
        self.teller.partitions("revoked", [p.partition for p in revoked])

    async def on_partitions_assigned(self, assigned):
        self.teller.partitions("assigned", [p.partition for p in assigned])


async def main(bootstrap, topic, group, assignor):
    teller = Teller()
    teller.stop_at_end_of_input()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        partition_assignment_strategy=(ASSIGNORS[assignor],),
        session_timeout_ms=SESSION_TIMEOUT_MS,
        heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        fetch_min_bytes=FETCH_MIN_BYTES,
    )
    member = Member(teller, consumer, topic)
    await consumer.start()
    consumer.subscribe([topic], listener=member)
    last = time.monotonic()
    while not teller.stopped:
        for records in (await consumer.getmany(timeout_ms=100, max_records=500)).values():
            for record in records:
                teller.read(record.partition, record.offset, record.value)
        teller.flush()
        if time.monotonic() - last > COMMIT_INTERVAL:
            await member.commit()
            last = time.monotonic()
    await member.commit()
    # Nobody is told when a consumer stops.
    teller.partitions("revoked", [p.partition for p in consumer.assignment()])
    await consumer.stop()
    teller.tell("ended")


asyncio.run(main(*sys.argv[1:]))
