import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * Kafka's own Java client behind standard input and output: one JSON command a line, one JSON answer a line, in any
 * order, matched by id. One such process serves the whole test run, because a JVM start costs a second.
 */
public final class Agent {
    static final ObjectMapper JSON = new ObjectMapper();

    interface Command {
        JsonNode run(JsonNode args) throws Exception;
    }

    private static final Map<String, Command> COMMANDS = Map.of(
            "admin", AdminCalls::run,
            "dump", Dump::run,
            "frames", Frames::run,
            "produce", Produce::run,
            "stop", Produce::stop);

    private Agent() {}

    public static void main(String[] arguments) throws Exception {
        PrintStream answers = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        System.setOut(System.err);
        ExecutorService threads = Executors.newCachedThreadPool(task -> {
            Thread thread = new Thread(task);
            thread.setDaemon(true);
            return thread;
        });
        BufferedReader commands =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            JsonNode command = JSON.readTree(line);
            threads.execute(() -> {
                ObjectNode answer = JSON.createObjectNode().put("id", command.get("id").asLong());
                try {
                    JsonNode args = command.get("args");
                    answer.set("ok", COMMANDS.get(command.get("command").asText()).run(args));
                } catch (Throwable failure) {
                    StringWriter trace = new StringWriter();
                    failure.printStackTrace(new PrintWriter(trace));
                    answer.put("error", trace.toString());
                }
                synchronized (answers) {
                    answers.println(answer);
                    answers.flush();
                }
            });
        }
    }
}
