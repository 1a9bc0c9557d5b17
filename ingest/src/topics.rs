//! What Kafka says of the topics: whether they are there and may be read, how many partitions they
//! have, and their ids, since a topic that was deleted and made again has another. Asked for by the poll
//! thread ([`Asker`]), and compared with what is stored ([`Topics`], pure) there and in the group's
//! callbacks.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::client::Client;
use rdkafka::error::RDKafkaErrorCode;
use uuid::Uuid;

use crate::describe_topics::{DescribeTopics, Described, Description};
use crate::group::Group;

/// How often Kafka is asked. A topic that is made again between two answers, and refilled beyond the
/// stored offset, may be read for so long.
const ASK: Duration = Duration::from_secs(5);
/// How long Kafka may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// What is taken to be so where this Kafka cannot be asked.
const UNDESCRIBED: Description = Description {
    id: None,
    partitions: None,
    may_read: true,
};

/// Whether the topic that Kafka has is the one whose records were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// It is.
    Same,
    /// It is not: this is its id.
    Another(Uuid),
    /// One of the two ids is not known.
    Unknown,
    /// Kafka has to be asked first.
    Unsure,
}

/// Why a topic cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Kafka does not have it.
    Missing,
    /// This client may not read it.
    Refused,
}

/// What Kafka said last, by topic.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    answers: BTreeMap<String, Answer>,
    obstacles: BTreeMap<String, Obstacle>,
    /// Whether somebody needs an answer soon.
    wanted: bool,
}

#[derive(Debug)]
struct Answer {
    /// `None` where this Kafka has none for the topic.
    id: Option<Uuid>,
    partitions: Option<i32>,
    /// When the question was asked.
    asked: Instant,
}

impl Topics {
    /// Compares a stored id with Kafka's, as it is now: only an answer to a question that was asked
    /// after `since` counts.
    pub(crate) fn identity(
        &mut self,
        topic: &str,
        stored: Option<Uuid>,
        since: Instant,
    ) -> Identity {
        match self.answers.get(topic) {
            Some(answer) if answer.asked > since => match (stored, answer.id) {
                (Some(stored), Some(id)) if stored == id => Identity::Same,
                (Some(_), Some(id)) => Identity::Another(id),
                _ => Identity::Unknown,
            },
            _ => {
                self.wanted = true;
                Identity::Unsure
            }
        }
    }

    /// Whether the last answer, however old, was another id than the stored one: a reason to ask.
    pub(crate) fn seems_another(&self, topic: &str, stored: Option<Uuid>) -> bool {
        let id = self.answers.get(topic).and_then(|answer| answer.id);
        matches!((stored, id), (Some(stored), Some(id)) if stored != id)
    }

    /// Kafka's id of the topic, from a question that was asked after `since`.
    pub(crate) fn id(&self, topic: &str, since: Instant) -> Option<Uuid> {
        let answer = self.answers.get(topic)?;
        answer.id.filter(|_| answer.asked > since)
    }

    /// How many partitions each topic has, as far as Kafka said.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (&str, i32)> {
        let answers = self.answers.iter();
        answers.filter_map(|(topic, answer)| Some((topic.as_str(), answer.partitions?)))
    }

    /// The topics that cannot be read, by name, and why.
    pub(crate) fn obstacles(&self) -> impl Iterator<Item = (&str, Obstacle)> {
        let obstacles = self.obstacles.iter();
        obstacles.map(|(topic, obstacle)| (topic.as_str(), *obstacle))
    }

    /// Whether nothing is known that keeps this topic from being read.
    pub(crate) fn is_readable(&self, topic: &str) -> bool {
        !self.obstacles.contains_key(topic)
    }

    /// Asks soon.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    fn take(&mut self, topic: &str, described: Described, asked: Instant) {
        use RDKafkaErrorCode::{
            TopicAuthorizationFailed, UnknownTopic, UnknownTopicId, UnknownTopicOrPartition,
        };
        let obstacle = match described {
            Ok(Description { may_read: true, .. }) => None,
            Ok(_) | Err(TopicAuthorizationFailed) => Some(Obstacle::Refused),
            Err(UnknownTopic | UnknownTopicId | UnknownTopicOrPartition) => Some(Obstacle::Missing),
            // Nothing is said of it just now.
            Err(_) => self.obstacles.get(topic).copied(),
        };
        match obstacle {
            Some(obstacle) => self.obstacles.insert(topic.to_owned(), obstacle),
            None => self.obstacles.remove(topic),
        };
        let (id, partitions) = match described {
            Ok(Description { id, partitions, .. }) => (id, partitions),
            Err(TopicAuthorizationFailed) => (None, None),
            Err(error) => {
                tracing::debug!(topic, %error, "Kafka does not tell the topic's id");
                self.answers.remove(topic);
                return;
            }
        };
        let answer = Answer {
            id,
            partitions,
            asked,
        };
        self.answers.insert(topic.to_owned(), answer);
    }
}

/// Asks Kafka, one question at a time.
pub(crate) struct Asker<'c> {
    describe: DescribeTopics<'c, Group>,
    topics: Vec<CString>,
    /// Since when a question is under way.
    asked: Option<Instant>,
    next_ask: Instant,
}

impl<'c> Asker<'c> {
    /// # Errors
    /// Where the client library cannot make a queue, or a topic's name holds a NUL.
    pub(crate) fn new(client: &'c Client<Group>, topics: &[&str]) -> anyhow::Result<Self> {
        let describe =
            DescribeTopics::new(client).context("the Kafka client cannot make a queue")?;
        let topics = topics.iter().map(|topic| CString::new(*topic));
        Ok(Self {
            describe,
            topics: topics.collect::<Result<_, _>>()?,
            asked: None,
            next_ask: Instant::now(),
        })
    }

    /// Asks when it is time to, and files an answer that has come or that comes within `wait`.
    /// Returns whether one has.
    pub(crate) fn serve(&mut self, known: &mut Topics, wait: Duration) -> bool {
        let now = Instant::now();
        if self.asked.is_none() && (known.wanted || now >= self.next_ask) {
            known.wanted = false;
            self.asked = Some(now);
            self.next_ask = now + ASK;
            self.describe.ask(&self.topics, ANSWER);
        }
        let (Some(asked), Some(answer)) = (self.asked, self.describe.answer(wait)) else {
            return false;
        };
        self.asked = None;
        match answer {
            Ok(topics) => topics
                .into_iter()
                .for_each(|(topic, described)| known.take(&topic, described, asked)),
            Err(RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion) => {
                for topic in self.topics.iter().filter_map(|t| t.to_str().ok()) {
                    known.take(topic, Ok(UNDESCRIBED), asked);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "Kafka does not describe the topics");
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "run-events";

    fn described(id: Option<Uuid>) -> Described {
        Ok(Description {
            id,
            partitions: Some(3),
            may_read: true,
        })
    }

    #[test]
    fn what_keeps_a_topic_from_being_read_stays_until_kafka_says_otherwise() {
        use RDKafkaErrorCode::{
            LeaderNotAvailable, TopicAuthorizationFailed, UnknownTopicOrPartition,
        };
        let (mut topics, asked) = (Topics::default(), Instant::now());
        let mut is = |answer, expected: Option<Obstacle>| {
            topics.take(TOPIC, answer, asked);
            assert_eq!(topics.obstacles().next().map(|(_, why)| why), expected);
            assert_eq!(topics.is_readable(TOPIC), expected.is_none());
        };
        is(described(None), None);
        let unread = Description {
            may_read: false,
            ..UNDESCRIBED
        };
        is(Ok(unread), Some(Obstacle::Refused));
        is(Err(LeaderNotAvailable), Some(Obstacle::Refused));
        is(Err(UnknownTopicOrPartition), Some(Obstacle::Missing));
        is(Err(TopicAuthorizationFailed), Some(Obstacle::Refused));
        is(described(None), None);
        assert!(topics.is_readable("another"));
        assert_eq!(topics.partitions().collect::<Vec<_>>(), [(TOPIC, 3)]);
    }

    #[test]
    fn only_an_answer_that_is_younger_than_the_doubt_counts() {
        let (mut ids, stored) = (Topics::default(), Uuid::from_u128(1));
        let another = Uuid::from_u128(2);
        let asked = Instant::now();
        let (before, after) = (asked - ANSWER, asked + ANSWER);
        assert_eq!(
            ids.identity(TOPIC, Some(stored), before),
            Identity::Unsure,
            "nothing was answered yet"
        );
        assert!(std::mem::take(&mut ids.wanted), "so it is asked");
        ids.take(TOPIC, described(Some(another)), asked);
        assert!(ids.seems_another(TOPIC, Some(stored)));
        assert!(!ids.seems_another(TOPIC, None) && !ids.seems_another(TOPIC, Some(another)));
        assert_eq!(ids.identity(TOPIC, Some(stored), after), Identity::Unsure);
        assert!(ids.wanted);
        assert_eq!(
            ids.identity(TOPIC, Some(stored), before),
            Identity::Another(another)
        );
        assert_eq!(ids.identity(TOPIC, Some(another), before), Identity::Same);
        assert_eq!(ids.identity(TOPIC, None, before), Identity::Unknown);
        assert_eq!(ids.id(TOPIC, before), Some(another));
        assert_eq!(ids.id(TOPIC, after), None);
    }

    #[test]
    fn a_kafka_without_ids_is_an_answer_and_a_missing_topic_is_none() {
        let (mut ids, stored) = (Topics::default(), Some(Uuid::from_u128(1)));
        let asked = Instant::now();
        let before = asked - ANSWER;
        ids.take(TOPIC, described(None), asked);
        assert_eq!(ids.identity(TOPIC, stored, before), Identity::Unknown);
        ids.take(
            TOPIC,
            Err(RDKafkaErrorCode::TopicAuthorizationFailed),
            asked,
        );
        assert_eq!(ids.identity(TOPIC, stored, before), Identity::Unknown);
        ids.take(TOPIC, Err(RDKafkaErrorCode::UnknownTopicOrPartition), asked);
        assert_eq!(ids.identity(TOPIC, stored, before), Identity::Unsure);
    }
}
