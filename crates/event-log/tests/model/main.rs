//! The log against a model of it: random batches, faults and owners on a real PostgreSQL on one
//! side, and an in-memory log written from the contract alone on the other; every outcome and every
//! row is compared.
//!
//! RUNLOG_MODEL_CASES = how many sequences of steps; RUNLOG_MODEL_SEED = the seed of an earlier run
//! (64 hex digits, printed by every run), to repeat it. A failing sequence is shrunk and printed.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod comparison;
mod ground;
mod reference;
mod steps;
#[path = "../support/mod.rs"]
mod support;
mod world;

use ground::Ground;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use support::database::with_database;
use world::World;

const DEFAULT_CASES: u32 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_what_the_contract_says_whatever_happens() {
    let cases = std::env::var("RUNLOG_MODEL_CASES").map_or(DEFAULT_CASES, |n| n.parse().unwrap());
    let seed: [u8; 32] = match std::env::var("RUNLOG_MODEL_SEED") {
        Ok(hex) => hex::decode(hex).unwrap().try_into().unwrap(),
        Err(_) => rand::random(),
    };
    eprintln!(
        "model: RUNLOG_MODEL_CASES={cases} RUNLOG_MODEL_SEED={}",
        hex::encode(seed)
    );
    with_database(move |database| async move {
        let ground = Ground::new(database).await;
        let runtime = tokio::runtime::Handle::current();
        let config = Config {
            cases,
            failure_persistence: None,
            max_shrink_time: 60_000,
            ..Config::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let result = tokio::task::block_in_place(|| {
            runner.run(&steps::steps(), |steps| {
                runtime.block_on(World::play(&ground, &steps));
                Ok(())
            })
        });
        match result {
            Ok(()) => eprintln!("model: {}", ground.seen()),
            Err(TestError::Fail(reason, steps)) => {
                panic!("{reason}\nwith the steps {steps:#?}")
            }
            Err(TestError::Abort(reason)) => panic!("{reason}"),
        }
    })
    .await;
}
