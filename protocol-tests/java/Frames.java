import com.fasterxml.jackson.databind.JsonNode;
import java.io.DataInputStream;
import java.io.FileInputStream;
import java.io.BufferedInputStream;
import java.io.PrintWriter;
import java.lang.reflect.Constructor;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.Readable;

/**
 * Reads answers with Kafka's own classes: a file of (name, version, body) in, a line for each out, which holds every
 * field's path and value, or why it cannot be read.
 */
final class Frames {
    private record Classes(Constructor<?> reader, Method converter) {
        static Classes of(String name) throws ReflectiveOperationException {
            Class<?> data = Class.forName("org.apache.kafka.common.message." + name + "ResponseData");
            Class<?> json = Class.forName(data.getName() + "JsonConverter");
            return new Classes(
                    data.getConstructor(Readable.class, short.class),
                    json.getMethod("write", data, short.class));
        }
    }

    private Frames() {}

    static JsonNode run(JsonNode args) throws Exception {
        Map<String, Classes> known = new HashMap<>();
        long count = 0;
        try (DataInputStream in =
                        new DataInputStream(new BufferedInputStream(new FileInputStream(args.get("file").asText())));
                PrintWriter out = new PrintWriter(args.get("out").asText(), StandardCharsets.UTF_8)) {
            while (in.available() > 0) {
                String name = in.readUTF();
                short version = in.readShort();
                ByteBuffer body = ByteBuffer.wrap(in.readNBytes(in.readInt()));
                if (!known.containsKey(name)) {
                    known.put(name, Classes.of(name));
                }
                StringBuilder line = new StringBuilder();
                try {
                    Message message =
                            (Message) known.get(name).reader().newInstance(new ByteBufferAccessor(body), version);
                    leaves("", (JsonNode) known.get(name).converter().invoke(null, message, version), line);
                    line.append("left=").append(body.remaining());
                } catch (ReflectiveOperationException failure) {
                    line.append("error=").append(failure.getCause());
                }
                out.println(line);
                count++;
            }
        }
        return Agent.JSON.createObjectNode().put("count", count);
    }

    private static void leaves(String path, JsonNode node, StringBuilder line) throws Exception {
        if (node.isArray()) {
            for (JsonNode element : node) {
                leaves(path, element, line);
            }
        } else if (node.isObject()) {
            for (var fields = node.fields(); fields.hasNext(); ) {
                var field = fields.next();
                leaves(path.isEmpty() ? field.getKey() : path + "." + field.getKey(), field.getValue(), line);
            }
        } else {
            String value = node.isBinary() ? "b" + HexFormat.of().formatHex(node.binaryValue()) : node.asText();
            line.append(path).append('=').append(value).append(' ');
        }
    }
}
