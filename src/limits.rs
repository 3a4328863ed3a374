//! Every bound in one place, with its unit in its name and the reason for it (I4, I5).

use std::time::Duration;

/// Largest response of a control-plane API. A Metadata answer for 100,000 partitions is about 10 MiB.
pub const CONTROL_FRAME_BYTES_MAX: usize = 64 << 20;
/// Largest response before a peer is authenticated: nothing legitimate there is larger than a few KiB.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 256 << 10;
/// Memory that the lists of a decoded answer may take, for each byte of its frame, and what is free besides. The answers of
/// real brokers take two to five times their bytes; a list of empty elements would take sixteen.
pub const DECODED_RATIO_MAX: usize = 8;
/// See [`DECODED_RATIO_MAX`].
pub const DECODED_BYTES_FREE: usize = 64 << 10;
/// Largest Fetch response: a broker may exceed what was asked by one batch, and the largest batch that
/// `message.max.bytes` is set to in practice is 100 MiB.
pub const FETCH_FRAME_BYTES_MAX: usize = 128 << 20;
/// Requests in flight on one connection. The broker works on one at a time; the rest cover the round trip.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 512;
/// Bytes handed to a connection and not yet taken by its socket; a request more is accepted while it is below. Enough
/// to keep the socket busy while the lane does other work: what is further behind belongs to the mirrors' windows.
pub const CONNECTION_QUEUE_BYTES_MAX: usize = 16 << 20;
/// Buffers that a thread keeps for its next frames. More is given back to the allocator.
pub const POOL_IDLE_BYTES_MAX: usize = 32 << 20;
/// What is reserved for a frame before any of it arrived: a peer that only claims 100 MiB costs this much (I4).
pub const FRAME_STEP_BYTES: usize = 1 << 20;
/// Plaintext that rustls takes before the socket does: 64 records, a full vectored write. On a socket measured 20-45 %
/// cheaper than its default of 64 KiB.
pub const TLS_BUFFER_BYTES: usize = 1 << 20;
/// Certificates, keys and token files: more is not one of them.
pub const SECURITY_FILE_BYTES_MAX: u64 = 4 << 20;
/// Characters of an advertised host: DNS allows 253.
pub const HOST_CHARS_MAX: usize = 255;
/// Brokers of a cluster; the largest known clusters have some hundreds.
pub const BROKERS_MAX: usize = 10_000;
/// Partitions of a cluster, over all topics; KRaft is specified for some millions, tested to two.
pub const PARTITIONS_MAX: usize = 4_000_000;
/// How often a cluster's metadata is looked at, and the least time between two looks that were asked for.
pub const METADATA_INTERVAL: Duration = Duration::from_secs(5);
/// See [`METADATA_INTERVAL`].
pub const METADATA_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// Addresses that are tried for one name.
pub const ADDRESSES_PER_NAME_MAX: usize = 8;
/// What another cluster's name may take to resolve, to be told apart from an advertised one.
pub const FOREIGN_NAME_TIMEOUT: Duration = Duration::from_secs(1);
/// TCP connect, TLS handshake, ApiVersions and SASL together, for one address.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer to a request, unless the request itself waits longer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The least time between two dials of a broker that cannot be reached, whoever wants it.
pub const REDIAL_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// First and largest wait before a broker is dialled again.
pub const RECONNECT_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(10));
/// First and largest wait before a parked mirror is tried again (`on_failure: retry`).
pub const PARKED_RETRY_BACKOFF: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(300));
/// How often that is done without an acknowledgement in between: about a day.
pub const PARKED_RETRIES_MAX: u32 = 300;
/// How long a request of a process that died, or of a connection that was lost, may still be on its way to the log.
pub const LATE_REQUEST: Duration = REQUEST_TIMEOUT;
/// Target offsets behind an anchor that a start reads back in any case, some seconds' worth. Of more, where others write
/// there, the leader's memory is taken at its word.
pub const READ_BACK_OFFSETS: i64 = 1_000_000;
/// What the broker may wait for its replicas.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// Refusals in a row of one batch with an error that says nothing, before the link's `on_failure` decides: about a minute.
pub const UNKNOWN_REFUSALS_MAX: u32 = 14;
/// The same of one that nobody can read.
pub const UNKNOWN_REFUSALS_OF_DAMAGE_MAX: u32 = 2;
/// How often a batch that a broker calls damaged is sent again: the damage may be of the way.
pub const DAMAGED_SENDS_MAX: u32 = 3;
/// A broker's `throttle_time_ms` is obeyed up to this (I7: a lying broker must not stop a mirror for days).
pub const THROTTLE_MAX: Duration = Duration::from_secs(60);
/// Records of the source that are compared with the target's tail behind a gap, at least.
pub const COMPARED_RECORDS_MIN: usize = 1000;
/// Target brokers that a lane dials before it has a mirror of theirs.
pub const GREETED_BROKERS_MAX: usize = 8;
/// Bytes that one Fetch asks for. 1 MiB frames stay in the CPU's cache between the two sockets.
pub const FETCH_BYTES: usize = 1 << 20;
/// Bytes that one Produce request gathers.
pub const PRODUCE_BYTES: usize = 1 << 20;
/// A batch that is made of several small ones. Larger ones gained nothing on loopback, and four such fill a request.
pub const JOINED_BYTES_MAX: usize = 256 << 10;
/// What is opened to be joined, all together.
pub const JOINED_OPENED_BYTES_MAX: usize = 16 << 20;
/// The largest batch that is joined to others: above, a copy costs more than the request that it saves.
pub const JOINED_PART_BYTES_MAX: usize = 32 << 10;
/// Batches that are made one at most.
pub const JOINED_MAX: usize = 8192;
/// Decompressed size of one batch when it has to be recoded; a bomb ends here.
pub const RECODE_BYTES_MAX: usize = 256 << 20;
/// SCRAM iteration counts that are accepted: RFC 7677's floor; above, a server burns our CPU.
pub const SCRAM_ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=100_000;
/// Salt of a SCRAM credential; Kafka's has about 32 bytes.
pub const SCRAM_SALT_BYTES_MAX: usize = 64;
/// An OAUTHBEARER token; those with many claims reach some KiB.
pub const TOKEN_BYTES_MAX: usize = 64 << 10;
/// A token endpoint's whole answer.
pub const TOKEN_ANSWER_BYTES_MAX: usize = 128 << 10;
/// How often certificates, keys and secrets are read again. What two looks in a row agree on is used: within 3 s, and the time
/// that it takes to read them twice.
pub const SECURITY_LOOK_INTERVAL: Duration = Duration::from_millis(1500);
/// How long a pipe that the configuration names may take to give its secret.
pub const PIPE_WAIT: Duration = Duration::from_secs(10);
/// Brokers of a cluster whose certificates' ends are remembered.
pub const CERTIFICATES_SEEN_MAX: usize = 1000;
/// When a SASL session that could not be renewed for want of a token is tried again.
pub const SESSION_RETRY: Duration = Duration::from_millis(500);
/// How long before its SASL session ends a connection is not taken for new work, if it could not be renewed; a quarter of a
/// session at most.
pub const SESSION_END_MARGIN: Duration = Duration::from_secs(10);
/// A SASL session that ends sooner is none: a connection would live for less than it takes to open.
pub const SESSION_LIFETIME_MIN: Duration = Duration::from_secs(2);
/// A token endpoint's answer, within [`CONNECT_TIMEOUT`].
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a token is kept when the endpoint does not say how long it lives, and at most.
pub const TOKEN_LIFETIME: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(24 * 3600));
/// SCRAM and OAUTHBEARER server messages.
pub const SASL_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// What a broker may hold back of its producer state's life before the window closes to one (rule W2):
/// half of `producer.id.expiration.ms`, whose default is 24 h.
pub const PRODUCER_STATE_TRUSTED_MS: i64 = 12 * 3600 * 1000;
/// Characters of commit metadata that a broker takes by default (`offset.metadata.max.bytes`).
pub const COMMIT_METADATA_CHARS_MAX: usize = 4096;
/// A stock broker's `message.max.bytes`, taken while the topic's own is not known.
pub const MAX_MESSAGE_BYTES_DEFAULT: usize = 1_048_588;
/// Warnings that a link remembers having told; past it, it may tell one again.
pub const WARNINGS_REMEMBERED_MAX: usize = 10_000;
/// A line of standard error that is handed on as a whole; longer ones come in parts.
pub const LOG_LINE_BYTES: usize = 64 << 10;
/// Connections to telemetry at a time, and how long one may take to ask and to be answered. A scrape takes one.
pub const TELEMETRY_CONNECTIONS_MAX: usize = 64;
/// Where all of these are taken, a peer keeps its place for so long while it has not asked: a round trip or two.
pub const TELEMETRY_ASK_GRACE: Duration = Duration::from_millis(100);
/// The same over TLS, where the handshake comes first.
pub const TELEMETRY_HANDSHAKE_GRACE: Duration = Duration::from_secs(1);
/// The same of one that asked and reads its answer.
pub const TELEMETRY_READ_GRACE: Duration = Duration::from_secs(1);
/// Texts of one path that are being read: a page of metrics of ten thousand partitions with long names has 30 MB.
pub const TELEMETRY_TEXTS_MAX: usize = 2;
/// A request's header must be whole by then (slow-loris).
pub const TELEMETRY_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection to telemetry ends by then, whether its answer was read or not.
pub const TELEMETRY_CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);
/// A request to telemetry, header and all.
pub const TELEMETRY_REQUEST_BYTES_MAX: usize = 16 << 10;
/// Mirrors that have series of their own, five each: what a Prometheus takes from one target without pain.
pub const METRIC_MIRRORS_MAX: usize = 10_000;
/// Topics that have series of their own, eleven each.
pub const METRIC_TOPICS_MAX: usize = 5_000;
/// Mirrors and topics in trouble that `/status` lists by name, per link.
pub const STATUS_TROUBLES_MAX: usize = 100;
/// An answer of `/status` that our own client reads.
pub const STATUS_BYTES_MAX: usize = 64 << 20;
/// Log lines that wait for whoever reads standard error; more are left out and counted.
pub const LOG_QUEUE_BYTES_MAX: usize = 1 << 20;
/// What the end of the process waits for the last of them.
pub const LOG_FLUSH: Duration = Duration::from_secs(1);
/// Open files that a process begins with, and those of each lane: its runtime and first connections. A link between two
/// single brokers has 38 with two lanes; each broker more adds some.
pub const FILES_FIXED: u64 = 24;
/// See [`FILES_FIXED`].
pub const FILES_PER_LANE: u64 = 8;
/// A configuration file. The largest that makes sense lists some thousand topics.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;
/// Values in a configuration, those that YAML aliases repeat included.
pub const CONFIG_NODES_MAX: usize = 100_000;
/// Topics in one administrative request: an answer with all settings of a topic is about 4 KiB.
pub const TOPICS_PER_ADMIN_REQUEST_MAX: usize = 100;
/// Metadata records that one administrative request makes: one for each topic, partition and setting. A KRaft controller
/// refuses a request that would make more than 10,000, and all of its topics with it.
pub const RECORDS_PER_ADMIN_REQUEST_MAX: usize = 5_000;
/// How often the target topics' settings are read again.
pub const TARGET_FACTS_REFRESH: Duration = Duration::from_secs(60);
/// When a topic that the target refused is asked for again: a cure needs no restart.
pub const REFUSED_TOPIC_RETRY: Duration = Duration::from_secs(15);
/// When a topic that was made must have shown in the metadata.
pub const CREATED_TOPIC_LOOK: Duration = Duration::from_secs(5);
/// How far the metadata may be behind the last topic that was made: brokers take their time where thousands are.
pub const CREATED_TOPICS_LAG: Duration = Duration::from_secs(30);
/// How long a cluster may be out of reach of the control plane before the link is said to have failed.
pub const UNREACHABLE_TOLD: Duration = Duration::from_secs(5);
/// Commands that wait in a lane's mailbox before those that cancel each other are taken out.
pub const MAILBOX_COMMANDS_MAX: usize = 4096;
/// Source brokers that wait to be dialled by a lane's reader; more wait on the lane.
pub const READER_DIALS_MAX: usize = 64;
/// Requests that wait for a reader's connection: a fetcher asks for one answer at a time.
pub const READER_CALLS_MAX: usize = 1;
/// What a thread waits for its last tasks.
pub const LANE_SHUTDOWN: Duration = Duration::from_millis(500);
/// A mirror's window unless the link says otherwise. What is on its way stays far below it where the link is short.
pub const WINDOW_BYTES_DEFAULT: usize = 64 << 20;
/// Bytes on their way over one target connection, however short its round trip: the broker has the next requests at hand
/// while the lane does other work.
pub const FLOW_BYTES_MIN: usize = 2 << 20;
/// Bytes that wait for one target connection: what it takes while the source answers a Fetch.
pub const AHEAD_BYTES_MAX: usize = 2 << 20;
/// The same for each mirror of a lane, if that is more: a mirror costs about 100 bytes to leave a fetch session and join it.
pub const AHEAD_BYTES_PER_MIRROR: usize = 4 << 10;
/// The lowest rate that a link may be held to: a batch of a stock broker's largest size still takes less than its timeout.
pub const RATE_LIMIT_MIN: u64 = 64 << 10;
/// A mirror at its source's end stays in the tail while less than this lies before it: some answers.
pub const TAIL_BYTES_MAX: u64 = 4 << 20;
/// The same in time: so long the end may run ahead of it.
pub const TAIL_BEHIND_MAX: Duration = Duration::from_secs(1);
/// What a record is taken to weigh while none of its partition was seen.
pub const RECORD_BYTES_GUESS: u64 = 1 << 10;
/// What the sources' ends may take to be told to a mirror that begins; without them it begins all the same.
pub const ENDS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection stays open that no mirror uses: far less than brokers leave it (`connections.max.idle.ms`, 10 min).
pub const IDLE_CONNECTION: Duration = Duration::from_secs(60);
/// A mirror that gets no further for so long leaves the next one its turn to catch up: more than a few need for an answer each
/// where the link's limit is low.
pub const TURN_STALL_MAX: Duration = Duration::from_secs(60);
/// How often that is looked at, and where the logs of those end that wait for their turn.
pub const TURN_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How often mirrors that wait for room are looked at without a sign of room.
pub const HELD_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How often whoever waits for a lane's memory looks again without a sign of room.
pub const ROOM_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a source connection waits for the memory of a batch before that is told: twice what a mirror may stand that could give
/// its memory back.
pub const ROOM_WAIT_TOLD: Duration = Duration::from_secs(10);
/// How often an answer that has not come is looked at for that. A broker holds an answer for less.
pub const ROOM_WAIT_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a mirror that gets no further may keep memory that others wait for: a leader's change is over by then.
pub const STANDS_MAX: Duration = Duration::from_secs(5);
/// How often that is doubled for one that may only be slow.
pub const STANDS_DOUBLINGS_MAX: u32 = 5;
/// How often that is looked at while somebody waits.
pub const STANDS_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What a mirror that gave its memory back waits before it fetches again: others come first.
pub const GIVEN_BACK_PAUSE: Duration = Duration::from_secs(5);
/// How far before a log's end it is looked at for batches of our own, one Fetch each.
pub const TAIL_LOOKS: [i64; 4] = [1, 100, 10_000, 1_000_000];

/// What mirrors may take to be let go: their last acks, their last commit, and a rebalance in between. Below the time that
/// the group allows for it; after it nothing is committed for them any more.
pub const RELEASE_TIMEOUT: Duration = Duration::from_secs(15);
/// Partitions in one OffsetCommit: each becomes a record of about 300 bytes, anchor included, in one batch of at most
/// `message.max.bytes` (1 MiB).
pub const COMMITS_PER_REQUEST_MAX: usize = 1000;
/// Runs of a mirror's offset map, 40 bytes each: with what the anchor takes of them, 64 tell every hole of the last minutes
/// of most topics, and cost 25 MiB where ten thousand partitions are full of holes.
pub const OFFSET_RUNS_MAX: usize = 64;
/// Stretches in which the source offsets of one batch with holes are remembered while it is on its way.
pub const BATCH_SPANS_MAX: usize = 64;
/// Places of batches that a read-back remembers, 32 bytes each, one for each stretch without another writer's records.
pub const LANDED_MAX: usize = 4096;
/// Batches found twice on the target that one read remembers, 16 bytes each: a crash leaves one.
pub const DOUBLES_MAX: usize = 1024;
/// Records behind a commit that are compared with what is left of a source that lost some of them, 48 bytes each on both sides
/// together: some seconds of most partitions.
pub const OVERLAP_RECORDS_MAX: usize = 1 << 17;
/// Origins whose records one mirror carries on, each with 35 characters of the anchor.
pub const ORIGINS_MAX: usize = 60;
/// Characters of the anchor that the offset map may take: every commit of a partition writes them.
pub const ANCHOR_RUNS_CHARS_MAX: usize = 1200;
/// Bytes of metadata in one OffsetCommit, which becomes one batch of at most `message.max.bytes` (1 MiB).
pub const COMMIT_METADATA_BYTES_MAX: usize = 512 << 10;
/// How long a transaction may stay open beyond its interval before its coordinator aborts it, at least: the last batch may
/// wait half a minute for its replicas. A mirror that dies holds up readers of committed records as long, if nobody takes over.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections to one coordinator, mirrors pinned to them: a broker answers one request of each at a time.
pub const COORDINATIONS_PER_BROKER: usize = 4;
