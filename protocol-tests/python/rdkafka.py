"""librdkafka behind standard input and output: one JSON command a line, one JSON answer a line.

`produce` writes deterministic records (index, then seeded filler; varied keys, values and headers);
`dump` reads a topic into the same line format as java/Dump.java.
"""

import json
import random
import sys

from confluent_kafka import Consumer, Producer, TopicPartition, TIMESTAMP_CREATE_TIME


def config(args, **defaults):
    return {"bootstrap.servers": args["bootstrap"], **defaults, **args.get("props", {})}


def produce(args):
    rng = random.Random(args.get("seed", 1))
    producer = Producer(config(args, **{"linger.ms": 5, "queue.buffering.max.messages": 200000}))
    failures = []
    acked = [0]

    def delivered(error, _message):
        if error is None:
            acked[0] += 1
        else:
            failures.append(str(error))

    for index in range(args["count"]):
        value = index.to_bytes(8, "big") + rng.randbytes(args.get("size", 100))
        key = [None, b"", index.to_bytes(8, "big")][rng.randrange(3)]
        value = [None, b"", value, value][rng.randrange(4)]
        headers = [
            (["trace", "trace", "x"][rng.randrange(3)], [None, b"", b"h%d" % index][rng.randrange(3)])
            for _ in range(rng.randrange(3))
        ]
        while True:
            try:
                producer.produce(
                    args["topic"],
                    value,
                    key,
                    partition=index % args.get("partitions", 1),
                    headers=headers,
                    on_delivery=delivered,
                )
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    producer.flush(60)
    if failures:
        raise RuntimeError(failures[0])
    return {"sent": args["count"], "acked": acked[0]}


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
        answer = {"ok": {"produce": produce, "dump": dump}[command["command"]](command["args"])}
    except Exception as failure:  # the test reports it
        answer = {"error": repr(failure)}
    print(json.dumps({"id": command["id"], **answer}), flush=True)
