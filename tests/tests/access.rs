//! A Kafka that refuses what it allowed before: said in /readyz for as long as it lasts, waited for, and
//! no reason for a process to end.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use runlog_tests::generator::generate;
use runlog_tests::{Environment, Pipeline, Stack};

const SOON: Duration = Duration::from_secs(30);
/// Longer than Kafka is not asked.
const STAYS: Duration = Duration::from_secs(7);

/// A process that starts while its group is refused takes part once it is allowed.
async fn refused_group(stack: &Stack, pipeline: &Pipeline) {
    let group = pipeline.group.as_str();
    let but_read = "--allow-principal User:* --operation Describe --group";
    let but_read: Vec<&str> = but_read.split(' ').chain([group]).collect();
    stack
        .acl(&[&["--add"], but_read.as_slice()].concat())
        .await
        .unwrap();
    let mut late = pipeline.ingest().unwrap();
    late.wait_unready(&["\"group\"", group, "allow"], SOON)
        .await
        .unwrap();
    stack
        .acl(&[&["--remove", "--force"], but_read.as_slice()].concat())
        .await
        .unwrap();
    late.wait_ready().await.unwrap();
    assert_eq!(late.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_refuses_is_said_and_waited_for() {
    let environment = Environment::from_env().unwrap();
    let (stack, environment) = Stack::start(&environment).await.unwrap();
    let pipeline = Pipeline::on(environment.clone(), 2).await.unwrap();
    let mut ingest = pipeline.ingest().unwrap();
    ingest.wait_ready().await.unwrap();
    let mut produced = pipeline.topic.send(&generate(111, 200, 2)).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();

    let topic = pipeline.topic.name.as_str();
    let but_read = "--allow-principal User:* --operation Describe --operation Write --topic";
    let but_read: Vec<&str> = but_read.split(' ').chain([topic]).collect();
    stack
        .acl(&[&["--add"], but_read.as_slice()].concat())
        .await
        .unwrap();
    produced.extend(pipeline.topic.send(&generate(112, 200, 2)).await.unwrap());
    ingest
        .wait_unready(&["\"topics\"", topic, "allow READ"], SOON)
        .await
        .unwrap();
    // Nothing else speaks against it: the reason stays by itself.
    let since = Instant::now();
    while since.elapsed() < STAYS {
        ingest
            .wait_unready(&["\"topics\"", topic, "allow READ"], SOON)
            .await
            .unwrap();
    }
    stack
        .acl(&[&["--remove", "--force"], but_read.as_slice()].concat())
        .await
        .unwrap();
    ingest.wait_ready().await.unwrap();
    pipeline.assert_as_sent(&produced).await.unwrap();

    refused_group(&stack, &pipeline).await;
    produced.extend(pipeline.topic.send(&generate(113, 200, 2)).await.unwrap());
    pipeline.assert_as_sent(&produced).await.unwrap();
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));

    // What the classic protocol asks for again and again is final under KIP-848: a new client asks.
    let pipeline = Pipeline::on(environment, 1).await.unwrap();
    let new = "[kafka.properties]\n\"group.protocol\" = \"consumer\"\n";
    pipeline.configure(new).unwrap();
    refused_group(&stack, &pipeline).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_said_and_waited_for() {
    let mut pipeline = Pipeline::fresh(2).await.unwrap();
    pipeline.topic.remove().await.unwrap();
    let mut ingest = pipeline.ingest().unwrap();
    ingest
        .wait_unready(
            &["\"topics\"", &pipeline.topic.name, "does not exist"],
            SOON,
        )
        .await
        .unwrap();
    pipeline.topic = pipeline.topic.made_after_removal().await.unwrap();
    let produced = pipeline.topic.send(&generate(114, 200, 2)).await.unwrap();
    ingest.wait_ready().await.unwrap();
    pipeline.assert_as_sent(&produced).await.unwrap();
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}
