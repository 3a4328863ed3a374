// Made the files beside this one, with the Java client of Kafka 3.9.2:
//   mkdir vec && java -cp 'kafka_2.13-3.9.2/libs/*' Vectors.java
// java-<codec>.batch: 20 records from offset 1000. java-<codec>-compacted.batch: the same after the log cleaner's own filter
// took every record with (offset - 1000) % 3 == 1, and set a delete horizon. java-<codec>-v<magic>.set: the same records in
// the formats before Kafka 0.11 (no headers; no times in v0). What is in the records: see the loop, and `expected` in
// `tests_support.rs`.
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.compress.*;
import org.apache.kafka.common.header.*;
import org.apache.kafka.common.header.internals.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.utils.*;
import java.nio.*; import java.nio.file.*; import java.nio.charset.*;

public class Vectors {
  static byte[] b(String s) { return s.getBytes(StandardCharsets.UTF_8); }
  static ByteBuffer build(byte magic, Compression c) {
    ByteBuffer buf = ByteBuffer.allocate(1 << 16);
    MemoryRecordsBuilder m = magic == 2
      ? MemoryRecords.builder(buf, magic, c, TimestampType.CREATE_TIME, 1000, -1, 77, (short) 2, 500, false, 3)
      : MemoryRecords.builder(buf, magic, c, TimestampType.CREATE_TIME, 1000, -1);
    for (int i = 0; i < 20; i++) {
      long ts = magic == 0 ? -1 : 1_700_000_000_000L + i * 10 - (i == 5 ? 1000 : 0);
      byte[] key = i % 4 == 0 ? null : i % 4 == 1 ? b("") : b("key " + i);
      byte[] value = i % 5 == 0 ? null : i % 5 == 1 ? b("") : b("v".repeat(i * 20));
      Header[] h = magic == 2 && i % 3 == 0 ? new Header[] { new RecordHeader("h", null), new RecordHeader("h", b("x")), new RecordHeader("", b("")) } : new Header[0];
      if (magic == 2) m.append(ts, key, value, h); else m.append(ts, key, value);
    }
    MemoryRecords r = m.build();
    return r.buffer();
  }
  static void write(String name, ByteBuffer b) throws Exception { byte[] a = new byte[b.remaining()]; b.duplicate().get(a); Files.write(Path.of("vec/" + name), a); System.out.println(name + " " + a.length); }
  public static void main(String[] x) throws Exception {
    for (CompressionType t : CompressionType.values()) {
      Compression c = Compression.of(t).build();
      ByteBuffer b = build((byte) 2, c);
      write("java-" + t.name + ".batch", b);
      MemoryRecords in = MemoryRecords.readableRecords(b.duplicate());
      ByteBuffer out = ByteBuffer.allocate(1 << 16);
      MemoryRecords.FilterResult f = in.filterTo(new TopicPartition("t", 0), new MemoryRecords.RecordFilter(1_800_000_000_000L, 86_400_000L) {
        protected MemoryRecords.RecordFilter.BatchRetentionResult checkBatchRetention(RecordBatch batch) { return new MemoryRecords.RecordFilter.BatchRetentionResult(MemoryRecords.RecordFilter.BatchRetention.DELETE_EMPTY, false); }
        protected boolean shouldRetainRecord(RecordBatch batch, org.apache.kafka.common.record.Record r) { return (r.offset() - 1000) % 3 != 1; }
      }, out, 1 << 20, BufferSupplier.NO_CACHING);
      out.flip();
      write("java-" + t.name + "-compacted.batch", out);
      if (t != CompressionType.ZSTD) for (byte magic = 0; magic < 2; magic++) write("java-" + t.name + "-v" + magic + ".set", build(magic, c));
    }
  }
}
