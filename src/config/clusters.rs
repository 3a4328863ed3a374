//! Clusters: brokers, TLS and SASL, with the files and secrets that they name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::problem::Severity;
use super::resolved::{
    Address, Advertised, Cluster, Sasl, ScramHash, Secret, SecretPart, Tls, TokenSource,
};
use super::secrets;
use super::values::{parse_address, parse_allowed};
use super::written::{Fields, Reading, Text};
use super::yaml::{At, Entry, Node, Value};

impl Reading<'_> {
    /// By name; none where a cluster was named but is not usable, so that links to it are not blamed as well.
    pub(super) fn clusters(&mut self, node: &Node) -> BTreeMap<String, Option<(At, Arc<Cluster>)>> {
        let mut clusters = BTreeMap::new();
        let Some(fields) = self.fields(node, "clusters".into(), "clusters") else {
            return BTreeMap::new();
        };
        if fields.entries().is_empty() {
            self.error(
                node.at,
                "no clusters",
                "name the source and the target, each with `bootstrap`",
            );
        }
        for entry in fields.entries() {
            self.name(entry, "a cluster");
            let cluster = self.cluster(entry).map(|cluster| (entry.key_at, cluster));
            clusters.insert(entry.key.clone(), cluster);
        }
        tell_apart(&mut clusters);
        let share = |(name, read): (_, Option<(At, Cluster)>)| {
            (name, read.map(|(at, cluster)| (at, Arc::new(cluster))))
        };
        clusters.into_iter().map(share).collect()
    }

    fn cluster(&mut self, entry: &Entry) -> Option<Cluster> {
        let path = format!("clusters.{}", entry.key);
        let mut fields = self.fields(&entry.node, path, "a cluster")?;
        let before = self.problems.len();
        let bootstrap = match fields.get(self, "bootstrap") {
            Some(node) => {
                let path = fields.path_of("bootstrap");
                let texts = self.texts(node, &path);
                if matches!(&node.value, Value::List(list) if list.is_empty()) {
                    self.error(node.at, "no bootstrap brokers", "write at least one host:port");
                }
                texts.iter().filter_map(|text| self.address(text)).collect()
            }
            None => {
                let fix = "add `bootstrap: [\"host:9092\"]`";
                self.error(entry.key_at, "`bootstrap` is missing", fix);
                Vec::new()
            }
        };
        let tls_node = fields.get(self, "tls");
        let tls = tls_node.and_then(|node| self.tls(node, fields.path_of("tls")));
        let sasl = fields.get(self, "sasl");
        let sasl =
            sasl.and_then(|node| self.sasl(node, fields.path_of("sasl"), tls_node.is_some()));
        let advertised = fields.get(self, "advertised");
        let advertised =
            advertised.and_then(|node| self.advertised(node, fields.path_of("advertised")));
        fields.not_yet(self, &["proxy", "client_id"]);
        fields.finish(self);
        let broken = self.problems[before..].iter().any(|p| p.severity == Severity::Error);
        let advertised = advertised.unwrap_or_default();
        (!broken).then(|| Cluster { name: entry.key.clone(), bootstrap, tls, sasl, advertised })
    }

    fn address(&mut self, text: &Text) -> Option<Address> {
        parse_address(&text.value)
            .map_err(|(what, fix)| {
                let fix = if text.referenced { "write host:port".into() } else { fix };
                self.error(text.at, format!("{}: {what}", text.quoted()), fix);
            })
            .ok()
    }

    fn advertised(&mut self, node: &Node, path: String) -> Option<Advertised> {
        let mut fields = self.fields(node, path, "advertised")?;
        let allow = fields.get(self, "allow");
        let texts = allow.map(|node| self.texts(node, &fields.path_of("allow")));
        fields.finish(self);
        let mut allow = Vec::new();
        for text in texts.unwrap_or_default() {
            match parse_allowed(&text.value) {
                Ok(allowed) => allow.push(allowed),
                Err((what, fix)) => {
                    self.error(text.at, format!("{}: {what}", text.quoted()), fix);
                }
            }
        }
        Some(Advertised { allow, foreign: Vec::new() })
    }

    fn tls(&mut self, node: &Node, path: String) -> Option<Tls> {
        if !matches!(node.value, Value::Map(_)) {
            let what = format!("`tls` must be a mapping, this is {}", node.value.kind());
            self.error(
                node.at,
                what,
                "write `tls: {}` for the public roots, or `tls: { ca: ca.pem }`",
            );
            return None;
        }
        let mut fields = self.fields(node, path, "tls")?;
        let mut file = |reading: &mut Self, key| {
            let node = fields.get(reading, key)?;
            let found = reading.file(node, &fields.path_of(key));
            Some((node.at, found))
        };
        let ca = file(self, "ca").and_then(|(_, path)| path);
        let (cert, key) = (file(self, "cert"), file(self, "key"));
        match (&cert, &key) {
            (Some((at, _)), None) => {
                self.error(*at, "`cert` without `key`", "name the certificate's private key too");
            }
            (None, Some((at, _))) => {
                self.error(*at, "`key` without `cert`", "name the key's certificate too");
            }
            _ => {}
        }
        let identity = cert.and_then(|(_, path)| path).zip(key.and_then(|(_, path)| path));
        let server_name = fields.text(self, "server_name").map(|text| text.value);
        let choices = [("1.2", false), ("1.3", true)];
        let tls13_only = fields.choice(self, "min_version", &choices, &[]).unwrap_or(false);
        for key in ["verify", "insecure", "insecure_skip_verify", "skip_verify"] {
            if let Some(at) = fields.take_known(key) {
                let what = format!("`{key}`: certificate checks cannot be switched off");
                self.error(
                    at,
                    what,
                    "name the private CA with `ca`, or another name with `server_name`",
                );
            }
        }
        fields.finish(self);
        Some(Tls { ca, identity, server_name, tls13_only })
    }

    fn sasl(&mut self, node: &Node, path: String, tls: bool) -> Option<Sasl> {
        #[derive(Clone, Copy)]
        enum Mechanism {
            Plain,
            Scram(ScramHash),
            OAuthBearer,
        }
        let mut fields = self.fields(node, path, "sasl")?;
        let choices = [
            ("PLAIN", Mechanism::Plain),
            ("SCRAM-SHA-256", Mechanism::Scram(ScramHash::Sha256)),
            ("SCRAM-SHA-512", Mechanism::Scram(ScramHash::Sha512)),
            ("OAUTHBEARER", Mechanism::OAuthBearer),
        ];
        let later = ["GSSAPI", "AWS_MSK_IAM"];
        let Some(mechanism) = fields.choice(self, "mechanism", &choices, &later) else {
            if !fields.has("mechanism") {
                let fix = "add `mechanism: SCRAM-SHA-512` (or SCRAM-SHA-256, PLAIN, OAUTHBEARER)";
                self.error(node.at, "`mechanism` is missing", fix);
            }
            return None;
        };
        let sasl = match mechanism {
            Mechanism::Plain => {
                let allow_plaintext = fields.boolean(self, "allow_plaintext").unwrap_or(false);
                let (username, password) = fields.user_and_password(self)?;
                if !tls && !allow_plaintext {
                    let what = "PLAIN without `tls` sends the password readable";
                    self.error(
                        node.at,
                        what,
                        "add `tls: {}` to the cluster, or SCRAM, or `allow_plaintext: true`",
                    );
                }
                Some(Sasl::Plain { username, password, allow_plaintext })
            }
            Mechanism::Scram(hash) => {
                let (username, password) = fields.user_and_password(self)?;
                Some(Sasl::Scram { hash, username, password })
            }
            Mechanism::OAuthBearer => fields.token_source(self).map(Sasl::OAuthBearer),
        };
        fields.finish(self);
        sasl
    }
}

/// Tells each cluster which addresses are others'.
fn tell_apart(clusters: &mut BTreeMap<String, Option<(At, Cluster)>>) {
    let all: Vec<(String, Vec<Address>)> = clusters
        .values()
        .flatten()
        .map(|(_, cluster)| (cluster.name.clone(), cluster.bootstrap.clone()))
        .collect();
    for (_, cluster) in clusters.values_mut().flatten() {
        for (name, bootstrap) in &all {
            let shared = bootstrap.iter().any(|address| cluster.bootstrap.contains(address));
            if !shared && *name != cluster.name {
                let theirs = bootstrap.iter().map(|address| (address.clone(), name.clone()));
                cluster.advertised.foreign.extend(theirs);
            }
        }
    }
}

impl Fields<'_> {
    /// A secret: under `key` as text or reference, or under `file_key` as the path of its file.
    pub(super) fn secret(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
        file_key: &'static str,
    ) -> Option<Secret> {
        if let Some(node) = self.get(reading, file_key) {
            let file = reading.file(node, &self.path_of(file_key))?;
            if let Some(at) = self.take_known(key) {
                reading.error(at, format!("both `{key}` and `{file_key}`"), "keep one of the two");
            }
            self.know(&[key]);
            return match secrets::read(&file) {
                Ok(text) => Some(Secret::read(text, vec![SecretPart::File(file)])),
                Err(unresolved) => {
                    reading.error(node.at, unresolved.what, unresolved.fix);
                    None
                }
            };
        }
        let text = self.required(reading, key)?;
        if !text.referenced {
            let what = format!("`{key}` stands in the file");
            let fix = format!("write \"${{env:NAME}}\" or \"${{file:PATH}}\", or use `{file_key}`");
            reading.warning(text.at, what, fix);
        }
        Some(Secret::read(text.value, text.parts))
    }

    fn user_and_password(&mut self, reading: &mut Reading<'_>) -> Option<(String, Secret)> {
        let username = self.required(reading, "username").map(|text| text.value);
        let password = self.secret(reading, "password", "password_file");
        username.zip(password)
    }

    fn token_source(&mut self, reading: &mut Reading<'_>) -> Option<TokenSource> {
        if let Some(node) = self.get(reading, "token_file") {
            let path = self.path_of("token_file");
            return reading.file(node, &path).map(TokenSource::File);
        }
        if !self.has("token_endpoint") {
            self.know(&["token_endpoint", "client_id", "client_secret", "scope"]);
            let fix = "add `token_file`, or `token_endpoint`, `client_id` and `client_secret`";
            reading.error(self.at, "OAUTHBEARER without a token", fix);
            return None;
        }
        let endpoint = self.required(reading, "token_endpoint");
        if let Some(text) = &endpoint
            && !text.value.starts_with("https://")
        {
            let what = format!("`token_endpoint` is {}", text.quoted());
            reading.error(
                text.at,
                what,
                "write an https:// address: the client secret is sent there",
            );
        }
        let client_id = self.required(reading, "client_id");
        let client_secret = self.secret(reading, "client_secret", "client_secret_file");
        let scope = self.text(reading, "scope").map(|text| text.value);
        let ca = self.get(reading, "ca");
        let ca = ca.and_then(|node| reading.file(node, &self.path_of("ca")));
        Some(TokenSource::ClientCredentials {
            token_endpoint: endpoint?.value,
            client_id: client_id?.value,
            client_secret: client_secret?,
            scope,
            ca,
        })
    }
}
