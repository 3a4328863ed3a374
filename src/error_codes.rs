//! The stable `ST-nnn` codes: what `strait explain` prints. A number is never given a second meaning.
//!
//! 001-009 configuration, 010-029 connections, 030-039 rights, 040-059 topics and links, 060-079 engine and mirrors.

use crate::error::Code;

/// One code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Its number.
    pub code: u16,
    /// What happened, in a few words.
    pub title: &'static str,
    /// Why it happens and what to do.
    pub text: &'static str,
}

/// The long text of a code.
pub fn explain(code: Code) -> Option<&'static Explanation> {
    EXPLANATIONS.iter().find(|explanation| explanation.code == code.0)
}

/// All codes, in the order of their numbers.
pub const EXPLANATIONS: &[Explanation] = &[
    // 001-009 configuration
    Explanation {
        code: 6,
        title: "the demo or the loopback bench cannot be set up",
        text: "Each needs a few ports of the loopback interface and a directory under the system's temporary one for its \
               certificate; the message has what was refused.\n\
               Fix: make room there, or set TMPDIR.",
    },
    Explanation {
        code: 7,
        title: "no running process answers",
        text: "`strait status` reads `/status` of a running `strait run`, at `telemetry.listen` of the configuration or at \
               `--telemetry`. Nobody answered there, something that is not Strait, or one that wants TLS or another token.\n\
               Fix: start it, or name its address; with `--telemetry https://..`, `--telemetry-ca` and \
               `--telemetry-token-file` where it has them. `strait lag` needs no running process.",
    },
    Explanation {
        code: 8,
        title: "telemetry cannot listen",
        text: "The address in `telemetry.listen` is taken, most often by another Strait, or is not one of this machine.\n\
               Fix: set another address, or `telemetry: { listen: off }`.",
    },
    Explanation {
        code: 9,
        title: "a password would travel unencrypted",
        text: "SASL PLAIN sends the password itself. Without `tls:` anyone on the way can read it, so Strait refuses.\n\
               Fix: set `tls:` for the cluster, or use SCRAM. Where the network is trusted all the same (a sidecar, a \
               test), set `sasl.allow_plaintext: true`.",
    },
    // 010-029 connections
    Explanation {
        code: 10,
        title: "a bootstrap host does not resolve",
        text: "No address was found for a name in `bootstrap`.\n\
               Fix: check the spelling, and that the name server of this machine (in a container: of the pod) knows it: \
               `getent hosts NAME`.",
    },
    Explanation {
        code: 11,
        title: "an advertised listener is for another network",
        text: "A Kafka client dials a bootstrap address only to ask for the cluster's metadata; then it dials the addresses \
               that the brokers advertise. Bootstrap worked, and the metadata points to a name that does not resolve here, \
               or to an address that is not dialled: this machine itself, a link-local or multicast one, a cloud's metadata \
               service, a bootstrap address of another cluster of the configuration. Names are judged by what they resolve to.\n\
               Fix: on the broker, give clients out here a listener of their own (`listeners` and `advertised.listeners` \
               with a name that resolves and is reachable from here), and put that listener's port in `bootstrap`. Where such an \
               address is meant, list it, its network or its host:port in `clusters.<name>.advertised.allow`.",
    },
    Explanation {
        code: 12,
        title: "plaintext was spoken to a TLS port",
        text: "The peer answered a plaintext request with a TLS alert, or closed the connection at once, as a TLS listener \
               does.\n\
               Fix: set `tls:` for the cluster (`tls: {}` trusts the public CAs, `tls: { ca: FILE }` your own).",
    },
    Explanation {
        code: 13,
        title: "TLS was spoken to a plaintext port",
        text: "The peer closed the connection at the TLS hello, or answered with something else. A plaintext Kafka listener \
               reads the hello as a request of 369 MB and hangs up.\n\
               Fix: dial the TLS listener's port, or remove `tls:` if the cluster has none.",
    },
    Explanation {
        code: 14,
        title: "the peer is not Kafka",
        text: "The first bytes of the answer are another protocol's (HTTP, SSH).\n\
               Fix: check host and port; Kafka's are usually 9092 to 9094.",
    },
    Explanation {
        code: 15,
        title: "a broker cannot be reached",
        text: "The TCP connection was refused, or there is no route.\n\
               Fix: check that the broker runs and listens on that port, and the firewalls and network policies between.",
    },
    Explanation {
        code: 16,
        title: "a broker did not answer in time",
        text: "The message says at which step: resolving the name, TCP, TLS, ApiVersions, SASL, or a request in use. An \
               answer that is overdue ends the connection, because Kafka answers in order and all others are behind it.\n\
               Fix: in TCP, a firewall that drops. In TLS or ApiVersions, most often the wrong kind of listener (ST-012, \
               ST-013). In use, a broker that is overloaded, or a link too slow for what is asked at once.",
    },
    Explanation {
        code: 17,
        title: "the broker's certificate is not trusted",
        text: "It is signed by a CA that is not in `tls.ca` (or, without `tls.ca`, not among the system's public roots), an \
               intermediate is missing, or it is not fit for a server.\n\
               Fix: `tls.ca` is the PEM file of the CA that signed the brokers' certificates. See what is sent: `openssl \
               s_client -connect HOST:PORT -showcerts`. There is no switch that turns the check off.",
    },
    Explanation {
        code: 18,
        title: "the broker's certificate is for another name",
        text: "The name that was dialled is not among the certificate's subject alternative names; the message lists them. A \
               common name (CN) alone does not count, nor does a name cover an IP address.\n\
               Fix: dial (and advertise) a name that the certificate has, issue one with the right names, or set \
               `tls.server_name` to the name that all brokers' certificates share.",
    },
    Explanation {
        code: 19,
        title: "the broker's certificate is out of date",
        text: "It has expired or is not valid yet, by this machine's clock.\n\
               Fix: renew it on the broker, or set the clock.",
    },
    Explanation {
        code: 20,
        title: "a client certificate is missing or refused",
        text: "The listener has `ssl.client.auth=required`.\n\
               Fix: set `tls.cert` (with its chain) and `tls.key`. If they are set: the broker's truststore must hold the CA \
               that signed the certificate, and it must be in date and allow client authentication.",
    },
    Explanation {
        code: 21,
        title: "TLS could not be agreed on",
        text: "No common version or cipher, or the handshake broke off. Strait speaks TLS 1.3 and TLS 1.2 with ECDHE and an \
               AEAD cipher.\n\
               Fix: `ssl.enabled.protocols` and `ssl.cipher.suites` of the listener.",
    },
    Explanation {
        code: 22,
        title: "the broker refused the credentials",
        text: "SASL_AUTHENTICATION_FAILED: wrong user or password, a user without a SCRAM credential for this mechanism, or \
               a token that the broker does not accept. A broker does not say which.\n\
               Fix: for SCRAM, `kafka-configs.sh --describe --entity-type users` lists who has a credential for which \
               mechanism. For OAUTHBEARER the message holds the broker's reason.",
    },
    Explanation {
        code: 23,
        title: "the SASL mechanism is not enabled on the listener",
        text: "UNSUPPORTED_SASL_MECHANISM or ILLEGAL_SASL_STATE: the listener offers others (the message lists them), or has no \
               SASL at all. Or the reverse: `sasl:` is not set, and the broker closes at the first request that needs it.\n\
               Fix: set `sasl.mechanism` to one of them, dial the SASL listener's port, or enable it \
               (`sasl.enabled.mechanisms`).",
    },
    Explanation {
        code: 24,
        title: "the broker's side of the authentication cannot be trusted",
        text: "The broker did not prove that it knows the password, changed the nonce, asked for an iteration count outside \
               4,096 to 100,000, or sent a message out of form. A peer that is not the broker does this to get at the \
               password.\n\
               Fix: check that the address is the broker's, and use TLS. For iteration counts: create the credential anew \
               with `iterations=8192`.",
    },
    Explanation {
        code: 25,
        title: "the broker is too old for a request",
        text: "It does not offer an API, or not in a version that Strait speaks. The message says what it offers.\n\
               Fix: Strait is tested with Kafka 3.9 and 4.x; brokers from 2.8 on offer what the main path needs.",
    },
    Explanation {
        code: 26,
        title: "the peer broke the protocol",
        text: "A wrong correlation id, a frame of an impossible size, an answer that cannot be read, bytes that nobody asked \
               for. Strait closes the connection and dials again.\n\
               Fix: if it comes back, look for a proxy that alters the stream, or report it with the message.",
    },
    Explanation {
        code: 27,
        title: "the connection was lost",
        text: "The peer or something between closed it. Strait dials again; nothing is lost or doubled by that.\n\
               Fix: none for a restart of a broker. If it comes regularly, look for idle timeouts \
               (`connections.max.idle.ms`, load balancers).",
    },
    Explanation {
        code: 28,
        title: "no OAUTHBEARER token",
        text: "The token file could not be used, or the token endpoint did not give a token; the message has its reason.\n\
               Fix: ask the endpoint by hand: `curl -d grant_type=client_credentials -u ID:SECRET URL`.",
    },
    Explanation {
        code: 29,
        title: "a certificate or key file cannot be used",
        text: "It cannot be read, is not PEM, holds something else than its place needs, or the key does not belong to the \
               certificate.\n\
               Fix: `tls.ca` and `tls.cert` are PEM certificates, `tls.key` an unencrypted PEM private key. From a Java \
               keystore: `openssl pkcs12 -in keystore.p12 -nodes -out client.pem`.",
    },
    // 030-039 rights
    Explanation {
        code: 30,
        title: "a right is missing",
        text: "The broker answered with ..._AUTHORIZATION_FAILED; the message names the resource. A broker also says \
               UNKNOWN_TOPIC_OR_PARTITION for topics that one may not describe.\n\
               Fix: with the principal that the broker sees (SASL user, or the certificate's distinguished name):\n\
               source: kafka-acls.sh --bootstrap-server SOURCE --add --allow-principal User:strait --operation Read --operation \
               Describe --operation DescribeConfigs --topic TOPIC; the same with --operation Read --group strait.LINK\n\
               target: kafka-acls.sh --bootstrap-server TARGET --add --allow-principal User:strait --operation Write --operation \
               Read --operation Describe --operation Create --operation Alter --operation DescribeConfigs --operation \
               AlterConfigs --topic TOPIC; and --operation IdempotentWrite --cluster for brokers before 2.8",
    },
    Explanation {
        code: 31,
        title: "the settings of a topic cannot be read",
        text: "On the source they are needed to make a target topic like it, so the topic waits. On the target they tell the \
               largest batch and the timestamp type; without them a stock broker's defaults are assumed, and a batch that the \
               target refuses all the same is handled by its error.\n\
               Fix: grant DescribeConfigs on the topic (the message has the command), or create the target topic by hand.",
    },
    // 040-059 topics and links
    Explanation {
        code: 40,
        title: "a link from a cluster to itself",
        text: "Both clusters of the link have the same cluster id. It would read its own copies and copy them again.\n\
               Fix: one of the two `bootstrap` lists points to the wrong cluster.",
    },
    Explanation {
        code: 41,
        title: "a pattern matches no topic",
        text: "Patterns must match the whole name. The nearest names are in the message. A topic that the user may not describe \
               does not show at all.\n\
               Fix: correct the pattern, or grant Describe (Read includes it). A topic that is created later is found by itself.",
    },
    Explanation {
        code: 42,
        title: "a name that the target cannot have",
        text: "Kafka takes 1 to 249 letters, digits, '.', '_' and '-', and keeps a few names for its brokers.\n\
               Fix: exclude the topic, or change the link's `naming`.",
    },
    Explanation {
        code: 43,
        title: "several source topics would have one name on the target",
        text: "Their records would be mixed in one topic without a way back, so none of them is copied.\n\
               Fix: a template must hold `{topic}`; or exclude all but one.",
    },
    Explanation {
        code: 44,
        title: "a topic that the way back makes is left out",
        text: "Under the link's `naming`, a link in the other direction would have made this name out of a topic of the target. \
               Copying it would give each cluster a longer name after every round.\n\
               Fix: none if that is what it is; a topic of its own is copied when `include` holds its very name.",
    },
    Explanation {
        code: 45,
        title: "topic names that differ only in '.' and '_'",
        text: "Kafka's metrics write both as '_', and a KRaft controller refuses to create the second (ST-054).\n\
               Fix: rename one, or use another `naming`.",
    },
    Explanation {
        code: 46,
        title: "another topic is in the way",
        text: "The target has a topic of that name with fewer partitions than the source's, and this link has never copied to \
               it. Adding partitions changes where keys go for everybody who writes to it, and cannot be undone, so it is left \
               alone.\n\
               Fix: if it is meant for this link, grow it with the command in the message; if not, use another `naming`.",
    },
    Explanation {
        code: 47,
        title: "the source topic was re-created",
        text: "Its name is the same and its topic id is not: other records under old offsets. Nothing of the new topic is \
               written behind the old one's copy.\n\
               Fix: to copy the new topic behind the old one's records, set `on_recreate: restart` on the link. To begin with an \
               empty target topic, stop Strait, delete the target topic, `strait reset LINK --topic TOPIC --to earliest`, start it.",
    },
    Explanation {
        code: 48,
        title: "the target topic was re-created",
        text: "What was copied and committed is gone from the target. Going on would leave a hole.\n\
               Fix: delete the link's offsets of the topic (the message has the command) to copy it from the start again.",
    },
    Explanation {
        code: 49,
        title: "the target topic went away",
        text: "It was deleted while it was being written, or the right to describe it was withdrawn. It is not made again by \
               itself: it would begin behind what is committed.\n\
               Fix: grant Describe again, or delete the link's offsets of the topic (the message has the command) to copy it from \
               the start again.",
    },
    Explanation {
        code: 50,
        title: "the target's policy refused a topic",
        text: "POLICY_VIOLATION from `create.topic.policy.class.name`; its words are in the message.\n\
               Fix: satisfy it (`replication_factor` of the link is the usual cause), or create the topic by hand. It is asked for \
               again by itself.",
    },
    Explanation {
        code: 51,
        title: "the target has too few brokers for the replication factor",
        text: "INVALID_REPLICATION_FACTOR.\n\
               Fix: set `replication_factor` of the link to the number of the target's brokers or less. Without it the target's \
               `default.replication.factor` counts.",
    },
    Explanation {
        code: 52,
        title: "the target refused the number of partitions",
        text: "INVALID_PARTITIONS: a limit of the target's.\n\
               Fix: create the topic by hand with the number of partitions that the source's has.",
    },
    Explanation {
        code: 53,
        title: "the target does not take a setting of the topic",
        text: "INVALID_CONFIG. A setting that the target's Kafka does not know is left out, with a warning; one whose value it \
               refuses stops the topic.\n\
               Fix: correct the setting on the source topic, or create the target topic by hand without it.",
    },
    Explanation {
        code: 54,
        title: "the target refused a topic",
        text: "Its own words are in the message; most often a name that differs from another topic's only in '.' and '_'.\n\
               Fix: exclude the topic, change the link's `naming`, or create the topic by hand.",
    },
    Explanation {
        code: 55,
        title: "the target cannot make or grow a topic now",
        text: "No controller, a timeout, a quota, or partitions being moved. It is asked for again by itself.\n\
               Fix: none, unless it lasts: then look at the target's controller.",
    },
    Explanation {
        code: 56,
        title: "the target puts its own times on records",
        text: "The target topic has `message.timestamp.type=LogAppendTime`, so the copies cannot have the times of the \
               originals.\n\
               Fix: set it to CreateTime on the target topic (the message has the command). Topics that Strait makes have it.",
    },
    Explanation {
        code: 57,
        title: "the target compacts what the source does not",
        text: "Records without a key are refused by a compacted topic, and older records of a key disappear from it.\n\
               Fix: set `cleanup.policy` of the target topic as on the source, or use another `naming`.",
    },
    Explanation {
        code: 58,
        title: "the link's position cannot be read",
        text: "The coordinator of the group `strait.<link>` on the source answered with the error in the message. It is asked \
               again by itself.\n\
               Fix: none while brokers restart; if it lasts, look at the state of `__consumer_offsets`.",
    },
    Explanation {
        code: 59,
        title: "the link is running",
        text: "`strait reset` names the position at which a link goes on. While an instance of it runs, its group has members, and \
               the broker takes positions from them alone.\n\
               Fix: stop every instance of the link, reset, start again. A member that was killed is forgotten after its \
               session timeout.",
    },
    // 060-079 engine and mirrors
    Explanation {
        code: 60,
        title: "the data path lost a connection or a leader",
        text: "A fetch or produce connection ended, or a partition has no leader at the moment. The mirror looks again by itself, and reads \
               the target back before it sends again.\n\
               Fix: none while brokers restart or leaders move; if it lasts, look at the broker that the message names.",
    },
    Explanation {
        code: 61,
        title: "the target refuses a batch",
        text: "The target's broker answered with an error that sending again does not cure: too large for `max.message.bytes`, a record \
               without a key to a compacted topic, a timestamp outside the topic's bounds. The mirror is parked in front of the \
               batch, its neighbours go on, and nothing is committed past it.\n\
               Fix: change the target topic's setting that the error names (max.message.bytes, cleanup.policy, \
               message.timestamp.before.max.ms and .after.max.ms), then start the link again.",
    },
    Explanation {
        code: 62,
        title: "a source batch cannot be copied",
        text: "The batch is damaged (its CRC does not match, also when it was fetched again), of an unknown format or codec, or holds a \
               record that alone is too large for the target. What lies before it is copied; nothing after it.\n\
               Fix: inspect the segment on the source broker with kafka-dump-log.sh. To step over it, set `on_poison: skip` on the \
               link, or stop Strait, `strait reset LINK --topic TOPIC --partition N --to OFFSET`, start it again.",
    },
    Explanation {
        code: 63,
        title: "the source log was truncated",
        text: "The source no longer holds what was copied from it: an unclean leader election lost acknowledged records. The target holds \
               records that the source does not.\n\
               Fix: decide which side is right; then name the position: stop Strait, `strait reset`, start it again.",
    },
    Explanation {
        code: 64,
        title: "the target appended what it must not",
        text: "A batch was acknowledged behind one that had been refused, or below the end of the last: the target was truncated or \
               re-created, or lost its producer state while requests were in flight. Nothing is committed past it.\n\
               Fix: compare the end of the target's partition with the committed position before the link is started again.",
    },
    Explanation {
        code: 65,
        title: "the position or the numbering of a mirror is not certain",
        text: "The target holds batches of this mirror, but the source group has no offset for it (it expired, or was deleted), or somebody \
               else writes under the mirror's producer id. Beginning anywhere could lose or repeat records.\n\
               Fix: name the position with `strait reset` (stop Strait, reset, start again), or delete the target topic to copy it \
               anew.",
    },
    Explanation {
        code: 66,
        title: "the target topic was re-created",
        text: "The commit says that the copy was written to a topic of another id. The new one does not hold what the position counts as \
               copied.\n\
               Fix: to copy from the start, stop Strait, `strait reset LINK --topic TOPIC --to earliest`, start it again.",
    },
    Explanation {
        code: 67,
        title: "the source topic was re-created",
        text: "The committed position belongs to a topic of another id; its offsets mean nothing in the new one. Or there is no \
               position (a topic's go with it) and the target holds records of another topic of that name, or of a link that \
               was renamed since. Nothing is written behind them.\n\
               Fix: stop Strait, `strait reset LINK --topic TOPIC --to earliest`, start it again.",
    },
    Explanation {
        code: 68,
        title: "the target log was truncated",
        text: "The target's log ends below what was acknowledged, or records were deleted before they could be read back: what it holds \
               of this mirror is not known.\n\
               Fix: compare both ends of the partition, then name the position: stop Strait, `strait reset`, start it again.",
    },
    Explanation {
        code: 69,
        title: "a broker answered with an error",
        text: "The message has Kafka's name for it. Errors that pass are tried again with a growing pause.\n\
               Fix: what the error's name asks for; none if it passes.",
    },
    Explanation {
        code: 70,
        title: "records were deleted before they were copied",
        text: "Retention or DeleteRecords at the source overtook the mirror. The message has the exact offsets; they are counted in \
               strait_gap_offsets_total. What a process had copied that died before it committed is not lost: it is found out by the \
               records that both sides hold. Where those cannot be told from each other, it stops whatever `on_gap` says.\n\
               Fix: to go on without them, set `on_gap: continue` on the link, or stop Strait, `strait reset LINK \
               --topic TOPIC --partition N --to earliest`, start it again.",
    },
    Explanation {
        code: 71,
        title: "a thread or a runtime could not be started",
        text: "The operating system refused it.\n\
               Fix: raise the limit of processes (`ulimit -u`), or use fewer lanes.",
    },
    Explanation {
        code: 72,
        title: "a task panicked",
        text: "A bug in Strait. The process ends rather than go on with mirrors that stand still; nothing uncommitted is lost, a start \
               resumes at the committed positions.\n\
               Fix: report it with the log.",
    },
    Explanation {
        code: 73,
        title: "records of two clusters cannot be told apart, or would come back",
        text: "A record's origin is 28 bits of the id of the cluster where it was first written. Either two clusters of the \
               configuration have ids that give the same bits (one pair in 268 million), or `forward` names the very cluster \
               that the link writes to, under another name.\n\
               Fix: leave that cluster out of `forward`; two clusters that clash cannot be in one web of links.",
    },
    Explanation {
        code: 74,
        title: "records go in a circle",
        text: "A batch was copied more often than there are clusters in the configuration: links of several configurations \
               together bring it to a cluster a second time. The partition stops before that batch.\n\
               Fix: find the origin that two ways carry, and leave it out of one link's `forward`. If the way is right and \
               longer than the configuration knows, name its clusters under `clusters`.",
    },
    Explanation {
        code: 76,
        title: "a consumer that is no Strait is in the link's group",
        text: "The group `strait.<link>` on the source is the link's own: its instances share their partitions through it, and it holds \
               the positions. Partitions that another consumer holds are not copied, and offsets that it commits name other \
               positions.\n\
               Fix: stop that consumer or give it another group.id; kafka-consumer-groups.sh --describe --members --group \
               strait.<link> lists all members.",
    },
    Explanation {
        code: 77,
        title: "the link's group does not take this instance",
        text: "The coordinator of the group `strait.<link>` on the source answered with the error in the message. Without membership \
               nothing is copied. It is asked again by itself.\n\
               Fix: what the error's name asks for. Two instances with one `membership.instance_id` cannot both be members. Where the \
               broker's KIP-848 is the trouble, `membership: { protocol: classic }`.",
    },
    Explanation {
        code: 78,
        title: "nothing can be committed for the moment",
        text: "The group `strait.<link>` does not count this process as the member that it was: it shares its partitions anew, or the \
               membership was lost and is asked for again. Partitions that are somebody else's now are dropped.\n\
               Fix: none, it passes; if it lasts, look at the source's coordinator of the group.",
    },
    Explanation {
        code: 79,
        title: "records of too many origins",
        text: "A partition passes on records of more than 60 origins; the position of each must fit into the group's commit.\n\
               Fix: name fewer clusters in the link's `forward`.",
    },
    Explanation {
        code: 80,
        title: "waits for late requests of the process before",
        text: "The process that copied this partition before ended without leaving it, and the target keeps no order between its last \
               requests and ours: the records are older than the target's memory of producers (producer.id.expiration.ms), or the \
               link's settings changed. The partition waits 30 s, after which none of those requests can come.\n\
               Fix: none, it passes; a process that is stopped by SIGTERM leaves nothing to wait for.",
    },
    Explanation {
        code: 81,
        title: "the target does not take this link's transactions as they are",
        text: "With `delivery: transactional` each partition's records and position are written in transactions of the target. The \
               message names the setting of the target's brokers that stands in the way.\n\
               Fix: change that setting, or the link's `transaction`.",
    },
    Explanation {
        code: 82,
        title: "the topic of a measurement cannot be made, filled, copied or removed",
        text: "`strait bench link` makes a topic `strait.bench.<random>` on both clusters of the link, fills it on the source, \
               copies it and removes it; `strait proto conformance` does the like with `strait.conformance.<random>`. The message has \
               the cluster's words.\n\
               Fix: what the message says. Where a topic stayed, `kafka-topics.sh --delete --topic NAME` removes it; no link copies \
               it by a pattern.",
    },
    Explanation {
        code: 85,
        title: "a changed certificate or secret file is not used",
        text: "Certificates, keys, CAs, passwords and tokens in files are read again every 1.5 s while Strait runs. The file in the \
               message has changed, and what it holds cannot be used: certificate and key do not belong together, it is not PEM, \
               empty, expired or cannot be read. What was read before stays in use; nothing stands still until that ends.\n\
               Fix: write the file that the message names anew; it is taken by itself. `openssl x509 -noout -text -in FILE` shows a \
               certificate. strait_security_files_refused is 1 until then.",
    },
    Explanation {
        code: 86,
        title: "a certificate ends soon",
        text: "Our own certificate towards a cluster, that of the telemetry listener, or the one that a broker showed at the last \
               new connection, ends in 30, 7 or 1 days, or has ended (sooner for certificates that live for less than four \
               months). Connections that are open go on; new ones are refused from then on.\n\
               Fix: ours: write a new pair to `tls.cert` and `tls.key`, of the cluster or of `telemetry`. A broker's: renew it \
               there.",
    },
    Explanation {
        code: 88,
        title: "the limit of open files is too low",
        text: "Each connection is an open file, and a lane has some to every broker of both clusters that leads one of its \
               partitions. Strait raises the soft limit to the hard one at start; that one is too low even to begin. A \
               process that meets it later goes on with the connections that it has, and dials again.\n\
               Fix: raise it (`ulimit -n 65536`; `LimitNOFILE=` in a systemd unit), or set fewer `engine.lanes`.",
    },
    Explanation {
        code: 89,
        title: "a batch waits for memory",
        text: "A broker answers with one whole batch at least, however large. One that its lane has no room for stands in the one place \
               beyond `engine.memory`; while that is taken the next one waits, and with it the connection that it comes over and \
               all partitions that are read over that. A partition that gets no further gives the place back after some seconds, \
               unless what has it was sent already: then it waits for the target's answer, a minute at most, or half a minute after \
               the connection was lost. One that stands inside a batch that was cut into parts keeps it. It goes on by itself.\n\
               Fix: where it lasts, see what is in the way of partitions with other troubles on the target, and raise \
               `engine.memory` to five times the largest batch for each lane.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_in_order_and_say_what_to_do() {
        let codes: Vec<u16> = EXPLANATIONS.iter().map(|e| e.code).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
        for explanation in EXPLANATIONS {
            assert!(!explanation.title.ends_with('.'), "ST-{:03}", explanation.code);
            assert!(explanation.text.contains("Fix:"), "ST-{:03}", explanation.code);
        }
        assert!(explain(Code(12)).is_some_and(|e| e.title.contains("TLS port")));
        assert!(explain(Code(999)).is_none());
    }
}
