import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/** What an operator does to a cluster. */
final class AdminCalls {
    private AdminCalls() {}

    /** `bootstrap` and `props` of a command. */
    static Properties properties(JsonNode args) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", args.get("bootstrap").asText());
        args.path("props").properties().forEach(p -> properties.put(p.getKey(), p.getValue().asText()));
        return properties;
    }

    static JsonNode run(JsonNode args) throws Exception {
        Properties properties = properties(args);
        // A frozen broker among the bootstrap addresses must not hold a call for a minute.
        properties.putIfAbsent("request.timeout.ms", "5000");
        properties.putIfAbsent("default.api.timeout.ms", "20000");
        try (Admin admin = Admin.create(properties)) {
            return switch (args.get("call").asText()) {
                case "acl" -> acl(admin, args);
                case "alter" -> alter(admin, args);
                case "create" -> create(admin, args);
                case "delete_group" -> done(admin.deleteConsumerGroups(List.of(args.get("group").asText())).all().get());
                case "delete_records" -> deleteRecords(admin, args);
                case "delete_topic" -> done(admin.deleteTopics(List.of(topic(args))).all().get());
                case "describe" -> describe(admin, args);
                case "elect" -> elect(admin, args);
                case "group_offsets" -> groupOffsets(admin, args);
                case "grow" -> done(admin.createPartitions(
                        Map.of(topic(args), NewPartitions.increaseTo(args.get("partitions").asInt()))).all().get());
                case "offsets" -> offsets(admin, args);
                case "producers" -> producers(admin, args);
                case "quota" -> quota(admin, args);
                case "reassign" -> reassign(admin, args);
                case "set_group_offsets" -> setGroupOffsets(admin, args);
                case "topic_configs" -> topicConfigs(admin, args);
                default -> throw new IllegalArgumentException(args.toString());
            };
        } catch (ExecutionException wrapped) {
            throw wrapped.getCause() instanceof Exception cause ? cause : wrapped;
        }
    }

    private static String topic(JsonNode args) {
        return args.get("topic").asText();
    }

    private static TopicPartition partition(JsonNode args) {
        return new TopicPartition(topic(args), args.path("partition").asInt(0));
    }

    private static JsonNode done(Object ignored) {
        return Agent.JSON.createObjectNode();
    }

    private static Map<String, String> strings(JsonNode object) {
        Map<String, String> map = new HashMap<>();
        object.properties().forEach(field -> map.put(field.getKey(), field.getValue().asText()));
        return map;
    }

    private static JsonNode create(Admin admin, JsonNode args) throws Exception {
        NewTopic topic;
        if (args.has("assignments")) {
            Map<Integer, List<Integer>> assignments = new TreeMap<>();
            args.get("assignments").forEach(replicas -> assignments.put(assignments.size(), ints(replicas)));
            topic = new NewTopic(topic(args), assignments);
        } else {
            topic = new NewTopic(topic(args), Optional.of(args.path("partitions").asInt(1)),
                    Optional.of((short) args.path("replicas").asInt(1)));
        }
        admin.createTopics(List.of(topic.configs(strings(args.path("configs"))))).all().get();
        return done(null);
    }

    private static List<Integer> ints(JsonNode array) {
        List<Integer> list = new ArrayList<>();
        array.forEach(item -> list.add(item.asInt()));
        return list;
    }

    private static JsonNode alter(Admin admin, JsonNode args) throws Exception {
        ConfigResource.Type type = args.has("topic") ? ConfigResource.Type.TOPIC : ConfigResource.Type.BROKER;
        String name = args.has("topic") ? topic(args) : args.get("broker").asText();
        Collection<AlterConfigOp> operations = new ArrayList<>();
        strings(args.get("configs")).forEach((key, value) ->
                operations.add(new AlterConfigOp(new ConfigEntry(key, value), AlterConfigOp.OpType.SET)));
        return done(admin.incrementalAlterConfigs(Map.of(new ConfigResource(type, name), operations)).all().get());
    }

    private static JsonNode deleteRecords(Admin admin, JsonNode args) throws Exception {
        RecordsToDelete below = RecordsToDelete.beforeOffset(args.get("offset").asLong());
        return done(admin.deleteRecords(Map.of(partition(args), below)).all().get());
    }

    private static JsonNode describe(Admin admin, JsonNode args) throws Exception {
        TopicDescription topic =
                admin.describeTopics(List.of(topic(args))).allTopicNames().get().get(topic(args));
        ObjectNode result = Agent.JSON.createObjectNode().put("id", topic.topicId().toString());
        ArrayNode list = result.putArray("partitions");
        for (TopicPartitionInfo partition : topic.partitions()) {
            ObjectNode entry = list.addObject()
                    .put("partition", partition.partition())
                    .put("leader", partition.leader() == null ? -1 : partition.leader().id());
            ArrayNode isr = entry.putArray("isr");
            partition.isr().stream().mapToInt(Node::id).forEach(isr::add);
            ArrayNode replicas = entry.putArray("replicas");
            partition.replicas().stream().mapToInt(Node::id).forEach(replicas::add);
        }
        return result;
    }

    private static JsonNode elect(Admin admin, JsonNode args) throws Exception {
        try {
            return done(admin.electLeaders(ElectionType.PREFERRED, Set.of(partition(args))).all().get());
        } catch (ExecutionException failure) {
            if (failure.getCause() instanceof ElectionNotNeededException) {
                return done(null);
            }
            throw failure;
        }
    }

    private static JsonNode reassign(Admin admin, JsonNode args) throws Exception {
        NewPartitionReassignment replicas = new NewPartitionReassignment(ints(args.get("replicas")));
        return done(admin.alterPartitionReassignments(Map.of(partition(args), Optional.of(replicas))).all().get());
    }

    private static JsonNode groupOffsets(Admin admin, JsonNode args) throws Exception {
        ArrayNode list = Agent.JSON.createArrayNode();
        Map<TopicPartition, OffsetAndMetadata> offsets = admin.listConsumerGroupOffsets(args.get("group").asText())
                .partitionsToOffsetAndMetadata().get();
        offsets.forEach((partition, offset) -> {
            if (offset != null) {
                list.addObject()
                        .put("topic", partition.topic())
                        .put("partition", partition.partition())
                        .put("offset", offset.offset())
                        .put("leader_epoch", offset.leaderEpoch().orElse(-1))
                        .put("metadata", offset.metadata());
            }
        });
        return list;
    }

    private static JsonNode setGroupOffsets(Admin admin, JsonNode args) throws Exception {
        OffsetAndMetadata to = new OffsetAndMetadata(args.get("offset").asLong());
        return done(admin.alterConsumerGroupOffsets(args.get("group").asText(), Map.of(partition(args), to)).all().get());
    }

    private static JsonNode offsets(Admin admin, JsonNode args) throws Exception {
        OffsetSpec spec = switch (args.path("at").asText("latest")) {
            case "earliest" -> OffsetSpec.earliest();
            case "latest" -> OffsetSpec.latest();
            default -> OffsetSpec.forTimestamp(args.get("at").asLong());
        };
        IsolationLevel isolation = args.path("committed").asBoolean(false)
                ? IsolationLevel.READ_COMMITTED
                : IsolationLevel.READ_UNCOMMITTED;
        int partitions = admin.describeTopics(List.of(topic(args))).allTopicNames().get()
                .get(topic(args)).partitions().size();
        Map<TopicPartition, OffsetSpec> wanted = new HashMap<>();
        for (int i = 0; i < partitions; i++) {
            wanted.put(new TopicPartition(topic(args), i), spec);
        }
        var answers = admin.listOffsets(wanted, new ListOffsetsOptions(isolation)).all().get();
        ArrayNode list = Agent.JSON.createArrayNode();
        for (int i = 0; i < partitions; i++) {
            list.add(answers.get(new TopicPartition(topic(args), i)).offset());
        }
        return list;
    }

    private static JsonNode producers(Admin admin, JsonNode args) throws Exception {
        ArrayNode list = Agent.JSON.createArrayNode();
        admin.describeProducers(List.of(partition(args))).all().get().get(partition(args)).activeProducers()
                .forEach(producer -> list.addObject()
                        .put("id", producer.producerId())
                        .put("epoch", producer.producerEpoch())
                        .put("last_sequence", producer.lastSequence()));
        return list;
    }

    private static JsonNode quota(Admin admin, JsonNode args) throws Exception {
        Map<String, String> entity = new HashMap<>();
        String client = args.path("client_id").asText(null);
        String user = args.path("user").asText(null);
        if (client != null) {
            entity.put(ClientQuotaEntity.CLIENT_ID, client.isEmpty() ? null : client);
        }
        if (user != null) {
            entity.put(ClientQuotaEntity.USER, user.isEmpty() ? null : user);
        }
        List<ClientQuotaAlteration.Op> operations = new ArrayList<>();
        args.get("limits").properties().forEach(limit -> operations.add(new ClientQuotaAlteration.Op(
                limit.getKey(), limit.getValue().isNull() ? null : limit.getValue().asDouble())));
        ClientQuotaAlteration change = new ClientQuotaAlteration(new ClientQuotaEntity(entity), operations);
        return done(admin.alterClientQuotas(List.of(change)).all().get());
    }

    private static JsonNode acl(Admin admin, JsonNode args) throws Exception {
        List<AclBinding> bindings = new ArrayList<>();
        for (JsonNode operation : args.get("operations")) {
            ResourcePattern resource = new ResourcePattern(ResourceType.fromString(args.get("resource").asText()),
                    args.get("name").asText(), PatternType.LITERAL);
            AccessControlEntry entry = new AccessControlEntry(args.get("principal").asText(), "*",
                    AclOperation.fromString(operation.asText()), AclPermissionType.ALLOW);
            bindings.add(new AclBinding(resource, entry));
        }
        return done(admin.createAcls(bindings).all().get());
    }

    private static JsonNode topicConfigs(Admin admin, JsonNode args) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic(args));
        ObjectNode result = Agent.JSON.createObjectNode();
        admin.describeConfigs(List.of(resource)).all().get().get(resource).entries().stream()
                .filter(entry -> entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG)
                .forEach(entry -> result.put(entry.name(), entry.value()));
        return result;
    }
}
