//! What the client library fetches, and from where, by the means of the group's protocol: partitions
//! one by one, or only all of them at once. Called by [`crate::group`] and [`crate::poll`].

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use crate::group::Group;
use crate::partitions::{Reading, TopicPartition};

impl Group {
    /// Adds `list` to what is fetched, by the protocol's own means.
    pub(crate) fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
    ) -> KafkaResult<()> {
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(list),
            // The eager protocol knows only whole assignments: everything that is read, where it is.
            _ => consumer.assign(&self.whole_assignment()?),
        }
    }

    /// Takes one partition out of what is fetched. It must no longer be among the partitions.
    pub(crate) fn unassign(
        &self,
        consumer: &BaseConsumer<Self>,
        name: &TopicPartition,
    ) -> KafkaResult<()> {
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => {
                let mut list = TopicPartitionList::new();
                list.add_partition(&name.topic, name.partition);
                consumer.incremental_unassign(&list)
            }
            _ => consumer.assign(&self.whole_assignment()?),
        }
    }

    /// Fetches a partition anew, from where it is to be read now.
    pub(crate) fn restart(
        &self,
        consumer: &BaseConsumer<Self>,
        name: &TopicPartition,
    ) -> KafkaResult<()> {
        let Some(from) = self
            .partitions()
            .reading(&name.topic, name.partition)
            .map(|reading| reading.fetch_from())
        else {
            return Ok(());
        };
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&name.topic, name.partition, Offset::Offset(from))?;
        if let RebalanceProtocol::Cooperative = consumer.rebalance_protocol() {
            consumer.incremental_unassign(&list)?;
        }
        self.assign(consumer, &list)
    }

    fn whole_assignment(&self) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, reading) in self.partitions().readings() {
            list.add_partition_offset(topic, partition, Offset::Offset(reading.fetch_from()))?;
        }
        Ok(list)
    }
}

/// Writes stored offsets to Kafka, for tools that show lag. Nothing is ever read back from there.
pub(crate) fn show_to_kafka(consumer: &BaseConsumer<Group>, stored: &[(TopicPartition, i64)]) {
    let mut list = TopicPartitionList::new();
    for (name, offset) in stored {
        if let Err(error) =
            list.add_partition_offset(&name.topic, name.partition, Offset::Offset(*offset))
        {
            tracing::debug!(%error, partition = %name, "not an offset for Kafka");
        }
    }
    failpoints::hit("ingest.before_show");
    if list.count() > 0
        && let Err(error) = consumer.commit(&list, CommitMode::Async)
    {
        tracing::debug!(%error, "cannot show the offsets to Kafka");
    }
}

/// Takes back the pauses of partitions that are let go of: the client library keeps a pause beyond the
/// assignment, and a partition that comes back would never be fetched again.
pub(crate) fn forget_pauses(consumer: &BaseConsumer<Group>, let_go: &[(TopicPartition, Reading)]) {
    let mut list = TopicPartitionList::new();
    for (name, _) in let_go.iter().filter(|(_, reading)| reading.paused) {
        list.add_partition(&name.topic, name.partition);
    }
    if list.count() > 0
        && let Err(error) = consumer.resume(&list)
    {
        tracing::warn!(%error, "cannot resume partitions that are let go of");
    }
}

/// Those of the partitions that the client library fetches: not the ones that wait or are halted.
pub(crate) fn fetched_of(
    consumer: &BaseConsumer<Group>,
    names: &[TopicPartition],
) -> KafkaResult<TopicPartitionList> {
    let fetched = names_of(&consumer.assignment()?);
    let mut list = TopicPartitionList::new();
    for name in names.iter().filter(|name| fetched.contains(name)) {
        list.add_partition(&name.topic, name.partition);
    }
    Ok(list)
}

pub(crate) fn names_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let name =
        |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| TopicPartition {
            topic: element.topic().to_owned(),
            partition: element.partition(),
        };
    list.elements().into_iter().map(name).collect()
}
