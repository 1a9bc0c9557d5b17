//! Asks Kafka about topics: their own ids (KIP-516), their partitions, and whether this client may read
//! them (KIP-430). The safe binding does not have that question; all that is unsafe about it is here.
//! Used by [`crate::topics`], on the poll thread.
//!
//! The client library sends the question and takes the answer on its own threads; here it is only
//! posted, and looked for.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ as READ;
use rdkafka::bindings::{
    RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT, rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new,
    rd_kafka_AdminOptions_set_include_authorized_operations,
    rd_kafka_AdminOptions_set_request_timeout, rd_kafka_DescribeTopics,
    rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
    rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_authorized_operations,
    rd_kafka_TopicDescription_error, rd_kafka_TopicDescription_name,
    rd_kafka_TopicDescription_partitions, rd_kafka_TopicDescription_t,
    rd_kafka_TopicDescription_topic_id, rd_kafka_Uuid_least_significant_bits,
    rd_kafka_Uuid_most_significant_bits, rd_kafka_admin_op_t, rd_kafka_error_code,
    rd_kafka_error_destroy, rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy,
    rd_kafka_event_error, rd_kafka_event_t, rd_kafka_event_type, rd_kafka_queue_destroy,
    rd_kafka_queue_new, rd_kafka_queue_poll, rd_kafka_queue_t, rd_kafka_resp_err_t,
};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use uuid::Uuid;

/// What Kafka says of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Description {
    /// Its id; `None` = this Kafka has no ids.
    pub(crate) id: Option<Uuid>,
    /// How many partitions it has; `None` = this Kafka was not asked.
    pub(crate) partitions: Option<i32>,
    /// Whether this client may read it.
    pub(crate) may_read: bool,
}

/// What Kafka says of one topic, or why it says nothing.
pub(crate) type Described = Result<Description, RDKafkaErrorCode>;

/// A way to ask, over the connections of a client that lives longer.
pub(crate) struct DescribeTopics<'c, C: ClientContext> {
    client: &'c Client<C>,
    /// Where the answers come in.
    queue: NonNull<rd_kafka_queue_t>,
}

impl<'c, C: ClientContext> DescribeTopics<'c, C> {
    /// `None` where the client library cannot make a queue.
    pub(crate) fn new(client: &'c Client<C>) -> Option<Self> {
        // SAFETY: the client is alive, and stays so as long as `self`, which drops the queue.
        let queue = NonNull::new(unsafe { rd_kafka_queue_new(client.native_ptr()) })?;
        Some(Self { client, queue })
    }

    /// Posts the question; an answer comes within `bound`, be it an error. Does not wait.
    pub(crate) fn ask(&self, topics: &[CString], bound: Duration) {
        let mut names: Vec<*const c_char> = topics.iter().map(|name| name.as_ptr()).collect();
        let bound = i32::try_from(bound.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the client and the queue are alive. The library copies the names, the collection
        // and the options before it returns, so that all of them may be destroyed here; it takes
        // null for options that it could not make.
        unsafe {
            let client = self.client.native_ptr();
            let options = rd_kafka_AdminOptions_new(
                client,
                rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            );
            if !options.is_null() {
                rd_kafka_AdminOptions_set_request_timeout(options, bound, ptr::null_mut(), 0);
                let error = rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
                if !error.is_null() {
                    rd_kafka_error_destroy(error);
                }
            }
            let collection =
                rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            rd_kafka_DescribeTopics(client, collection, options, self.queue.as_ptr());
            rd_kafka_TopicCollection_destroy(collection);
            if !options.is_null() {
                rd_kafka_AdminOptions_destroy(options);
            }
        }
    }

    /// The answer, if it comes within `wait`: each topic with what is said of it, or the error of
    /// the whole question.
    pub(crate) fn answer(
        &self,
        wait: Duration,
    ) -> Option<Result<Vec<(String, Described)>, RDKafkaErrorCode>> {
        let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive, and belongs to this thread.
        let event = Event::new(unsafe { rd_kafka_queue_poll(self.queue.as_ptr(), wait) })?;
        event.described()
    }
}

impl<C: ClientContext> Drop for DescribeTopics<'_, C> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and destroyed once. Answers that are still to come are dropped by
        // the library.
        unsafe { rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// An event of the queue, which owns all that it tells.
struct Event(NonNull<rd_kafka_event_t>);

impl Event {
    fn new(event: *mut rd_kafka_event_t) -> Option<Self> {
        NonNull::new(event).map(Self)
    }

    fn described(&self) -> Option<Result<Vec<(String, Described)>, RDKafkaErrorCode>> {
        // SAFETY: the event is alive as long as `self`. Its result and the list of topics belong to
        // it, and are only read before it goes. Null for an event of another type is looked for.
        unsafe {
            if rd_kafka_event_type(self.0.as_ptr()) != RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT {
                return None;
            }
            let error = rd_kafka_event_error(self.0.as_ptr());
            if error != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Some(Err(error.into()));
            }
            let result = rd_kafka_event_DescribeTopics_result(self.0.as_ptr());
            if result.is_null() {
                return None;
            }
            let mut count = 0;
            let topics = rd_kafka_DescribeTopics_result_topics(result, &mut count);
            let one = |at: usize| Topic::new(*topics.add(at));
            Some(Ok((0..count)
                .filter_map(one)
                .map(|t| t.described())
                .collect()))
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the queue gave it to us, and it is destroyed once.
        unsafe { rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

/// One topic of an event.
struct Topic<'e>(NonNull<rd_kafka_TopicDescription_t>, PhantomData<&'e Event>);

impl Topic<'_> {
    fn new(topic: *const rd_kafka_TopicDescription_t) -> Option<Self> {
        // A broker that leaves a topic out of its answer leaves its place empty.
        NonNull::new(topic.cast_mut()).map(|topic| Self(topic, PhantomData))
    }

    fn described(&self) -> (String, Described) {
        // SAFETY: the description lives as long as its event. The library ends the name with a NUL,
        // gives null for "no error", and points to an id and a list of that length inside the
        // description.
        unsafe {
            let name = CStr::from_ptr(rd_kafka_TopicDescription_name(self.0.as_ptr()));
            let name = name.to_string_lossy().into_owned();
            let error = rd_kafka_TopicDescription_error(self.0.as_ptr());
            if !error.is_null() {
                return (name, Err(rd_kafka_error_code(error).into()));
            }
            let id = rd_kafka_TopicDescription_topic_id(self.0.as_ptr());
            let id = Uuid::from_u64_pair(
                rd_kafka_Uuid_most_significant_bits(id).cast_unsigned(),
                rd_kafka_Uuid_least_significant_bits(id).cast_unsigned(),
            );
            let mut partitions = 0;
            rd_kafka_TopicDescription_partitions(self.0.as_ptr(), &mut partitions);
            let mut count = 0;
            let allowed =
                rd_kafka_TopicDescription_authorized_operations(self.0.as_ptr(), &mut count);
            // A broker from before KIP-430 names none: not even those that let it answer.
            let may_read =
                allowed.is_null() || count == 0 || (0..count).any(|at| *allowed.add(at) == READ);
            let description = Description {
                id: Some(id).filter(|id| !id.is_nil()),
                partitions: i32::try_from(partitions).ok(),
                may_read,
            };
            (name, Ok(description))
        }
    }
}
