"""librdkafka behind standard input and output: one JSON command a line, one JSON answer a line.

`produce` writes deterministic records (index, then seeded filler; varied keys, values and headers);
`numbered` writes for a time and at a rate what java/Produce.java numbers: the number is the key;
`dump` reads a topic into the same line format as java/Dump.java.
"""

import json
import random
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition, TIMESTAMP_CREATE_TIME


def config(args, **defaults):
    return {"bootstrap.servers": args["bootstrap"], **defaults, **args.get("props", {})}


class Delivery:
    def __init__(self):
        self.acked = 0
        self.failures = []

    def done(self, error, _message):
        if error is None:
            self.acked += 1
        else:
            self.failures.append(str(error))

    def send(self, producer, topic, value, key, partition, headers):
        while True:
            try:
                producer.produce(
                    topic, value, key, partition=partition, headers=headers, on_delivery=self.done
                )
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)

    def finish(self, producer):
        producer.flush(60)
        if self.failures:
            raise RuntimeError(self.failures[0])
        return self.acked


def produce(args):
    rng = random.Random(args.get("seed", 1))
    producer = Producer(config(args, **{"linger.ms": 5, "queue.buffering.max.messages": 200000}))
    delivery = Delivery()
    for index in range(args["count"]):
        value = index.to_bytes(8, "big") + rng.randbytes(args.get("size", 100))
        key = [None, b"", index.to_bytes(8, "big")][rng.randrange(3)]
        value = [None, b"", value, value][rng.randrange(4)]
        headers = [
            (["trace", "trace", "x"][rng.randrange(3)], [None, b"", b"h%d" % index][rng.randrange(3)])
            for _ in range(rng.randrange(3))
        ]
        delivery.send(producer, args["topic"], value, key, index % args.get("partitions", 1), headers)
    return {"sent": args["count"], "acked": delivery.finish(producer)}


def numbered(args):
    producer = Producer(config(args, **{"linger.ms": 5, "enable.idempotence": True}))
    delivery = Delivery()
    value = random.Random(1).randbytes(args["size"])
    start = time.monotonic()
    index = 0
    while time.monotonic() - start < args["duration_ms"] / 1000:
        early = start + index / args["per_second"] - time.monotonic()
        if early > 0.001:
            producer.poll(early)
            continue
        key = (args["from"] + index).to_bytes(8, "big")
        delivery.send(producer, args["topic"], value, key, index % args["partitions"], [])
        index += 1
    return {"sent": index, "acked": delivery.finish(producer)}


def dump(args):
    consumer = Consumer(
        config(
            args,
            **{
                "group.id": "unused",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            },
        )
    )
    partitions = consumer.list_topics(args["topic"], 10).topics[args["topic"]].partitions
    starts = []
    for partition in partitions:
        low, _ = consumer.get_watermark_offsets(TopicPartition(args["topic"], partition), 10)
        starts.append(TopicPartition(args["topic"], partition, low))
    consumer.assign(starts)
    at_end = set()
    count = 0

    def text(value):
        return "null" if value is None else value.hex()

    with open(args["file"], "w") as out:
        while len(at_end) < len(starts):
            message = consumer.poll(30)
            if message is None:
                raise RuntimeError("no message in 30 s")
            if message.error():
                if message.error().code() == -191:  # _PARTITION_EOF
                    at_end.add(message.partition())
                    continue
                raise RuntimeError(str(message.error()))
            count += 1
            kind, time = message.timestamp()
            kind = "CreateTime" if kind == TIMESTAMP_CREATE_TIME else "LogAppendTime"
            headers = "".join(f"{k.encode().hex()}={text(v)}," for k, v in message.headers() or [])
            fields = [message.partition(), message.offset(), time, kind, text(message.key()), text(message.value())]
            out.write("\t".join(map(str, fields)) + "\t" + headers + "\n")
    consumer.close()
    return {"count": count}


for line in sys.stdin:
    command = json.loads(line)
    try:
        answer = {"ok": {"produce": produce, "numbered": numbered, "dump": dump}[command["command"]](command["args"])}
    except Exception as failure:  # the test reports it
        answer = {"error": repr(failure)}
    print(json.dumps({"id": command["id"], **answer}), flush=True)
