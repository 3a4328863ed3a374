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
               or to this machine itself.\n\
               Fix: on the broker, give clients out here a listener of their own (`listeners` and `advertised.listeners` \
               with a name that resolves and is reachable from here), and put that listener's port in `bootstrap`.",
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
               SASL at all.\n\
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
               Fix, with the principal that the broker sees (SASL user, or the certificate's distinguished name):\n\
               source: kafka-acls.sh --bootstrap-server SOURCE --add --allow-principal User:strait --operation Read --operation \
               Describe --operation DescribeConfigs --topic TOPIC; the same with --operation Read --group strait.LINK\n\
               target: kafka-acls.sh --bootstrap-server TARGET --add --allow-principal User:strait --operation Write --operation \
               Read --operation Describe --operation Create --operation Alter --operation DescribeConfigs --operation \
               AlterConfigs --topic TOPIC; and --operation IdempotentWrite --cluster for brokers before 2.8",
    },
    // 040-059 topics and links
    // 060-079 engine and mirrors
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
