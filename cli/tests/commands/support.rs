//! What the tests stand on: the program, a fresh database, fresh topics, and what is in them.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};

/// A record as it stands in a topic.
#[derive(Debug, PartialEq)]
pub(crate) struct Published {
    pub(crate) partition: i32,
    pub(crate) key: Option<String>,
    pub(crate) value: Vec<u8>,
    pub(crate) content_type: Option<String>,
}

/// A database and a topic of one test's own.
pub(crate) struct Place {
    pub(crate) kafka: String,
    pub(crate) database: PgConnectOptions,
    pub(crate) topic: String,
    /// The role that the program has in the database; `None` = a superuser's rights, to migrate with.
    role: Option<&'static str>,
}

fn required(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: these tests run with `make test`"))
}

pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::now_v7().simple())
}

impl Place {
    /// An empty database, and the name of a topic that is not there.
    pub(crate) async fn empty() -> Self {
        let server: PgConnectOptions = required("RUNLOG_TEST_DATABASE_URL").parse().unwrap();
        let name = unique("runlog_cli");
        let mut connection = server.connect().await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        connection.execute(sqlx::raw_sql(create)).await.unwrap();
        connection.close().await.unwrap();
        Self {
            kafka: required("RUNLOG_TEST_KAFKA"),
            database: server.database(&name),
            topic: unique("cli"),
            role: None,
        }
    }

    /// A database with the schema, where the program has the rights of an operator.
    pub(crate) async fn migrated() -> Self {
        let mut place = Self::empty().await;
        place.runlog(&["migrate"]).done();
        place.role = Some("runlog_operator");
        place
    }

    /// A topic with `partitions`, and a database with the schema.
    pub(crate) async fn with_topic(partitions: i32) -> Self {
        let place = Self::migrated().await;
        let admin: AdminClient<DefaultClientContext> = place.client().create().unwrap();
        let topic = NewTopic::new(&place.topic, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        for made in admin.create_topics([&topic], &options).await.unwrap() {
            made.unwrap();
        }
        place
    }

    /// Takes the records below an offset out of a partition, as retention does.
    pub(crate) async fn delete_below(&self, partition: i32, offset: i64) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))
            .unwrap();
        let deleted = admin.delete_records(&list, &AdminOptions::new()).await;
        for element in deleted.unwrap().elements() {
            element.error().unwrap();
        }
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.kafka);
        client
    }

    /// The program in these surroundings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runlog"));
        command
            .args(arguments)
            .env_remove("RUNLOG_TENANT")
            .env("RUNLOG_KAFKA__BOOTSTRAP_SERVERS", &self.kafka)
            .env("RUNLOG_DATABASE__URL", self.url())
            .env(
                "RUNLOG_INGEST__TOPICS",
                format!("[{{name={:?}}}]", self.topic),
            )
            // No runlog.toml of whoever runs the tests.
            .current_dir(std::env::temp_dir());
        command
    }

    fn url(&self) -> String {
        let mut url = self.database.to_url_lossy();
        if let Some(role) = self.role {
            url.query_pairs_mut().append_pair("options[role]", role);
        }
        url.into()
    }

    /// Runs the program to its end.
    pub(crate) fn runlog(&self, arguments: &[&str]) -> Ran {
        Ran(self.command(arguments).output().unwrap())
    }

    /// Runs the program with this on its stdin.
    pub(crate) fn runlog_with(&self, arguments: &[&str], stdin: &[u8]) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let stdin = stdin.to_vec();
        let writer = std::thread::spawn(move || pipe.write_all(&stdin));
        let output = child.wait_with_output().unwrap();
        // A program that stops early closes its end: that is for the test to judge by its output.
        let _ = writer.join().unwrap();
        Ran(output)
    }

    /// A connection to the test's database.
    pub(crate) async fn connection(&self) -> PgConnection {
        self.database.connect().await.unwrap()
    }

    /// Everything in the topic, partition by partition.
    pub(crate) fn published(&self) -> Vec<Published> {
        let mut config = self.client();
        config
            .set("group.id", "cli-tests")
            .set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().unwrap();
        let timeout = Duration::from_secs(30);
        let metadata = consumer.fetch_metadata(Some(&self.topic), timeout).unwrap();
        let mut wanted = 0;
        let mut assignment = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer
                .fetch_watermarks(&self.topic, partition.id(), timeout)
                .unwrap();
            wanted += high - low;
            assignment
                .add_partition_offset(&self.topic, partition.id(), Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let deadline = Instant::now() + timeout;
        let mut records = Vec::new();
        while (records.len() as i64) < wanted {
            assert!(
                Instant::now() < deadline,
                "only {} of {wanted} records",
                records.len()
            );
            let Some(message) = consumer.poll(Duration::from_millis(200)) else {
                continue;
            };
            let message = message.unwrap();
            let header = message.headers().and_then(|headers| {
                headers
                    .iter()
                    .find(|header| header.key == "content-type")?
                    .value
            });
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            records.push(Published {
                partition: message.partition(),
                key: message.key().map(text),
                value: message.payload().unwrap_or_default().to_vec(),
                content_type: header.map(text),
            });
        }
        records
    }
}

/// What a run of the program gave.
pub(crate) struct Ran(Output);

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self(output)
    }
}

impl Ran {
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0.stdout
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// Asserts the exit code, showing what was said where it differs.
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            code,
            "stdout: {}\nstderr: {}",
            self.stdout(),
            self.stderr()
        );
        self
    }

    pub(crate) fn done(self) -> Self {
        self.ended(0)
    }

    /// stdout as one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.0.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout(), self.stderr()))
    }
}
