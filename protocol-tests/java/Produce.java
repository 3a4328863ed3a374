import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Writes deterministic records. `kind` is `plain` (keys, fixed size), `lines` (JSON of about `size` bytes, compresses well), `keyed` (keys that repeat, for compaction) or
 * `varied` (null and empty keys and values, headers with null values and repeated keys, sizes from 0 up).
 * `transactions` is a repeated pattern such as `["commit:100","abort:30"]`.
 */
final class Produce {
    private static final int BLOCK = 1 << 20;
    private static final Set<String> STOPPED = ConcurrentHashMap.newKeySet();
    private static final String[] WORDS = {
        "shipped", "pending", "cancelled", "returned", "warehouse north", "warehouse south", "express", "standard"
    };

    private final JsonNode args;
    private final SplittableRandom random;
    private final byte[] block = new byte[BLOCK];
    private final int size;
    private final List<Integer> partitions = new ArrayList<>();

    private Produce(JsonNode args) {
        this.args = args;
        random = new SplittableRandom(args.path("seed").asLong(1));
        size = args.path("size").asInt(100);
        for (int i = 0; i < BLOCK; i++) {
            block[i] = (byte) ('a' + random.nextInt(16));
        }
        args.path("partitions").forEach(partition -> partitions.add(partition.asInt()));
    }

    static JsonNode run(JsonNode args) throws Exception {
        return new Produce(args).send();
    }

    /** Ends all writing to a cluster. */
    static JsonNode stop(JsonNode args) {
        STOPPED.add(args.get("bootstrap").asText());
        return args;
    }

    private JsonNode send() throws Exception {
        Properties properties = AdminCalls.properties(args);
        JsonNode pattern = args.path("transactions");
        if (!pattern.isMissingNode()) {
            properties.putIfAbsent("transactional.id", "tx-" + args.get("topic").asText());
        }
        long count = args.path("count").asLong(Long.MAX_VALUE);
        long durationNs = args.path("duration_ms").asLong(Long.MAX_VALUE / 1_000_000) * 1_000_000;
        double perSecond = args.path("per_second").asDouble(0);
        AtomicLong acked = new AtomicLong();
        AtomicReference<Exception> failure = new AtomicReference<>();
        ByteArraySerializer raw = new ByteArraySerializer();
        long start = System.nanoTime();
        long sent = 0;
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties, raw, raw)) {
            boolean transactional = properties.containsKey("transactional.id");
            int step = 0;
            long left = 0;
            String end = "commit";
            if (transactional) {
                producer.initTransactions();
            }
            while (sent < count && System.nanoTime() - start < durationNs && failure.get() == null
                    && !STOPPED.contains(args.get("bootstrap").asText())) {
                if (transactional && left == 0) {
                    if (sent > 0) {
                        end(producer, end);
                    }
                    String[] part = pattern.get(step++ % pattern.size()).asText().split(":");
                    end = part[0];
                    left = Long.parseLong(part[1]);
                    producer.beginTransaction();
                }
                left--;
                producer.send(record(sent++), (metadata, error) -> {
                    if (error == null) {
                        acked.incrementAndGet();
                    } else {
                        failure.compareAndSet(null, error);
                    }
                });
                if (perSecond > 0) {
                    long due = start + (long) (sent * 1e9 / perSecond);
                    long wait = due - System.nanoTime();
                    if (wait > 500_000) {
                        Thread.sleep(wait / 1_000_000, (int) (wait % 1_000_000));
                    }
                }
            }
            producer.flush();
            if (transactional && sent > 0) {
                end(producer, end);
            }
        }
        if (failure.get() != null && !args.path("may_fail").asBoolean(false)) {
            throw failure.get();
        }
        ObjectNode result = Agent.JSON.createObjectNode();
        return result.put("sent", sent).put("acked", acked.get()).put("ms", (System.nanoTime() - start) / 1_000_000);
    }

    private static void end(KafkaProducer<byte[], byte[]> producer, String end) {
        switch (end) {
            case "abort" -> {
                producer.flush();
                producer.abortTransaction();
            }
            case "commit" -> producer.commitTransaction();
            // An orderly close would abort it.
            case "open" -> producer.close(Duration.ZERO);
            default -> throw new IllegalArgumentException(end);
        }
    }

    private ProducerRecord<byte[], byte[]> record(long index) {
        long number = args.path("from").asLong(0) + index;
        Integer partition = partitions.isEmpty() ? null : partitions.get((int) (index % partitions.size()));
        Long timestamp = args.has("timestamp")
                ? Long.valueOf(args.get("timestamp").asLong() + index * args.path("timestamp_step").asLong(1))
                : null;
        byte[] key = ByteBuffer.allocate(8).putLong(number).array();
        byte[] value = slice(size);
        if (size >= 8) {
            ByteBuffer.wrap(value).putLong(number);
        }
        List<Header> headers = new ArrayList<>();
        switch (args.path("kind").asText("plain")) {
            case "plain" -> { }
            case "lines" -> value = line(number);
            case "keyed" -> {
                long keys = args.path("keys").asLong(10);
                key = ("key-" + number % keys).getBytes(StandardCharsets.UTF_8);
                int tombstones = args.path("tombstone_every").asInt(0);
                if (tombstones > 0 && number % tombstones == tombstones - 1) {
                    value = null;
                }
            }
            case "varied" -> {
                boolean keyless = args.path("null_keys").asBoolean(true);
                key = switch (random.nextInt(4)) {
                    case 0 -> keyless ? null : key;
                    case 1 -> new byte[0];
                    case 2 -> slice(random.nextInt(40));
                    default -> key;
                };
                value = switch (random.nextInt(5)) {
                    case 0 -> null;
                    case 1 -> new byte[0];
                    case 2 -> slice(random.nextInt(3 * size + 1));
                    default -> value;
                };
                for (int i = random.nextInt(4); i > 0; i--) {
                    String name = new String[] {"", "trace", "trace", "ünï"}[random.nextInt(4)];
                    byte[] content = random.nextInt(3) == 0 ? null : slice(random.nextInt(20));
                    headers.add(new RecordHeader(name, content));
                }
            }
            default -> throw new IllegalArgumentException("kind " + args.get("kind"));
        }
        return new ProducerRecord<>(args.get("topic").asText(), partition, timestamp, key, value, headers);
    }

    private byte[] line(long number) {
        StringBuilder text = new StringBuilder(size + 64);
        text.append("{\"id\":").append(number);
        for (int i = 0; text.length() < size - 2; i++) {
            text.append(",\"field").append(i).append("\":\"").append(WORDS[random.nextInt(WORDS.length)]).append(' ')
                    .append(random.nextInt(10_000)).append('"');
        }
        return text.append('}').toString().getBytes(StandardCharsets.UTF_8);
    }

    private byte[] slice(int length) {
        byte[] bytes = new byte[length];
        for (int done = 0; done < length; ) {
            int part = Math.min(length - done, BLOCK / 2);
            System.arraycopy(block, random.nextInt(BLOCK - part), bytes, done, part);
            done += part;
        }
        return bytes;
    }
}
