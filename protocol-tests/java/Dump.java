import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedOutputStream;
import java.io.BufferedWriter;
import java.io.DataOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.zip.CRC32;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads a topic from its log starts to the ends seen at the start. Per partition: the count and a digest over all
 * fields but the offset, in order; and, if a file is asked for, one line per record with every field. With `numbers`
 * the keys are numbers as Produce.java writes them: `highest` is the highest read, there is no digest, and the file holds
 * 24 bytes for each record: partition, offset, number, and a CRC-32 over all fields but the offset. `tail` begins that many
 * offsets before the ends.
 */
final class Dump {
    private static final HexFormat HEX = HexFormat.of();

    private static final class Tally {
        long count;
        long first = -1;
        long last = -1;
        long highest = -1;
        boolean descending;
        final MessageDigest digest;

        Tally() throws Exception {
            digest = MessageDigest.getInstance("SHA-1");
        }

        void add(ConsumerRecord<byte[], byte[]> record) {
            if (first < 0) {
                first = record.offset();
            }
            descending |= record.offset() <= last;
            last = record.offset();
            count++;
        }

        void digest(ConsumerRecord<byte[], byte[]> record, ByteBuffer scratch) {
            scratch.clear();
            scratch.putLong(record.timestamp()).putInt(record.timestampType().id).flip();
            digest.update(scratch);
            bytes(record.key(), scratch);
            bytes(record.value(), scratch);
            for (Header header : record.headers()) {
                bytes(header.key().getBytes(StandardCharsets.UTF_8), scratch);
                bytes(header.value(), scratch);
            }
            scratch.clear();
            digest.update((byte) 0x0a);
        }

        private void bytes(byte[] value, ByteBuffer scratch) {
            scratch.clear();
            scratch.putInt(value == null ? -1 : value.length).flip();
            digest.update(scratch);
            if (value != null) {
                digest.update(value);
            }
        }
    }

    private Dump() {}

    static JsonNode run(JsonNode args) throws Exception {
        Properties properties = AdminCalls.properties(args);
        properties.putIfAbsent("isolation.level", "read_committed");
        properties.putIfAbsent("fetch.max.wait.ms", "100");
        properties.putIfAbsent("max.poll.records", "5000");
        properties.putIfAbsent("max.partition.fetch.bytes", "4194304");
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "none");
        String topic = args.get("topic").asText();
        long deadline = System.nanoTime() + Duration.ofSeconds(args.path("seconds").asLong(120)).toNanos();
        ByteArrayDeserializer raw = new ByteArrayDeserializer();
        boolean numbers = args.path("numbers").asBoolean(false);
        long tail = args.path("tail").asLong(Long.MAX_VALUE);
        ByteBuffer scratch = ByteBuffer.allocate(16);
        Map<Integer, Tally> tallies = new TreeMap<>();
        ObjectNode result = Agent.JSON.createObjectNode();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties, raw, raw);
                BufferedWriter lines = args.has("file") && !numbers
                        ? Files.newBufferedWriter(Path.of(args.get("file").asText()))
                        : null;
                DataOutputStream entries = args.has("file") && numbers
                        ? new DataOutputStream(new BufferedOutputStream(
                                Files.newOutputStream(Path.of(args.get("file").asText())), 1 << 16))
                        : null) {
            List<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
                    .map(info -> new TopicPartition(topic, info.partition()))
                    .toList();
            consumer.assign(partitions);
            Map<TopicPartition, Long> begins = consumer.beginningOffsets(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            for (TopicPartition partition : partitions) {
                tallies.put(partition.partition(), new Tally());
                consumer.seek(partition, Math.max(begins.get(partition), ends.get(partition) - tail));
            }
            while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("read of " + topic + " is not at its ends " + ends + " but at "
                            + partitions.stream().map(p -> p + ":" + consumer.position(p)).toList());
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    if (record.offset() >= ends.get(new TopicPartition(topic, record.partition()))) {
                        continue;
                    }
                    Tally tally = tallies.get(record.partition());
                    tally.add(record);
                    if (numbers) {
                        long number = ByteBuffer.wrap(record.key()).getLong();
                        tally.highest = Math.max(tally.highest, number);
                        if (entries != null) {
                            entries.writeInt(record.partition());
                            entries.writeLong(record.offset());
                            entries.writeLong(number);
                            entries.writeInt(sum(record, scratch));
                        }
                        continue;
                    }
                    tally.digest(record, scratch);
                    if (lines != null) {
                        line(lines, record);
                    }
                }
            }
            ArrayNode list = result.putArray("partitions");
            tallies.forEach((partition, tally) -> {
                TopicPartition key = new TopicPartition(topic, partition);
                list.addObject()
                        .put("partition", partition)
                        .put("begin", begins.get(key))
                        .put("end", ends.get(key))
                        .put("count", tally.count)
                        .put("first", tally.first)
                        .put("last", tally.last)
                        .put("highest", tally.highest)
                        .put("descending", tally.descending)
                        .put("digest", HEX.formatHex(tally.digest.digest()));
            });
        }
        return result;
    }

    private static int sum(ConsumerRecord<byte[], byte[]> record, ByteBuffer scratch) {
        CRC32 sum = new CRC32();
        scratch.clear();
        scratch.putLong(record.timestamp()).putInt(record.timestampType().id).flip();
        sum.update(scratch);
        sum(sum, record.key(), scratch);
        sum(sum, record.value(), scratch);
        for (Header header : record.headers()) {
            sum(sum, header.key().getBytes(StandardCharsets.UTF_8), scratch);
            sum(sum, header.value(), scratch);
        }
        return (int) sum.getValue();
    }

    private static void sum(CRC32 sum, byte[] value, ByteBuffer scratch) {
        scratch.clear();
        scratch.putInt(value == null ? -1 : value.length).flip();
        sum.update(scratch);
        if (value != null) {
            sum.update(value);
        }
    }

    private static void line(BufferedWriter out, ConsumerRecord<byte[], byte[]> record) throws Exception {
        out.write(record.partition() + "\t" + record.offset() + "\t" + record.timestamp() + "\t"
                + record.timestampType() + "\t" + hex(record.key()) + "\t" + hex(record.value()) + "\t");
        for (Header header : record.headers()) {
            out.write(hex(header.key().getBytes(StandardCharsets.UTF_8)) + "=" + hex(header.value()) + ",");
        }
        out.write('\n');
    }

    private static String hex(byte[] value) {
        return value == null ? "null" : HEX.formatHex(value);
    }
}
