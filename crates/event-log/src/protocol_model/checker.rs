//! An exhaustive explorer of small state machines: every state that can be reached, every transition
//! checked, the shortest schedule to a broken property, and how many complete schedules there are.
//! Knows nothing of logs. (The crate stateright does not count schedules and brings a web server.)

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::{self, Debug, Display};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How often something worth seeing was seen.
pub(crate) type Seen = BTreeMap<&'static str, u64>;

/// A state machine with properties.
pub(crate) trait Model {
    type State: Clone + Hash;
    type Action: Copy + Debug;

    fn start(&self) -> Self::State;

    /// What may happen next. None = the schedule is complete.
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;

    /// What an action makes of a state. Counts what happened in `seen`.
    ///
    /// # Errors
    /// The property that the transition or the new state breaks.
    fn step(
        &self,
        state: &Self::State,
        action: Self::Action,
        seen: &mut Seen,
    ) -> Result<Self::State, String>;

    /// # Errors
    /// The property that a complete schedule breaks by ending in this state.
    fn check_end(&self, state: &Self::State, seen: &mut Seen) -> Result<(), String>;

    /// An action in words.
    fn describe(&self, state: &Self::State, action: Self::Action) -> String;
}

/// What an exploration without a broken property found.
#[derive(Debug)]
pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    /// Complete schedules: paths from the start to an end.
    pub(crate) interleavings: u128,
    pub(crate) longest: usize,
    pub(crate) seen: Seen,
    pub(crate) took: Duration,
}

impl Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} states, {} transitions, {:.3e} interleavings of up to {} steps, {:.1} s",
            self.states,
            self.transitions,
            self.interleavings as f64,
            self.longest,
            self.took.as_secs_f64()
        )
    }
}

/// A schedule that breaks a property.
#[derive(Debug)]
pub(crate) struct Counterexample {
    pub(crate) broken: String,
    /// The steps in words, in order.
    pub(crate) schedule: Vec<String>,
}

impl Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken: {}", self.broken)?;
        for (n, step) in self.schedule.iter().enumerate() {
            writeln!(f, "{:3}. {step}", n + 1)?;
        }
        Ok(())
    }
}

/// States by number, in the order in which they were found; how each was found first; all edges.
struct Graph<A> {
    numbers: HashMap<u64, u32>,
    found_by: Vec<Option<(u32, A)>>,
    edges: Vec<(u32, u32)>,
}

impl<A: Copy> Graph<A> {
    /// The number of a state, if it is new.
    fn visit(&mut self, state: &impl Hash, by: Option<(u32, A)>) -> Option<u32> {
        let next = self.found_by.len() as u32;
        let (number, is_new) = match self.numbers.entry(fingerprint(state)) {
            Entry::Occupied(entry) => (*entry.get(), false),
            Entry::Vacant(entry) => (*entry.insert(next), true),
        };
        if let Some((from, _)) = by {
            self.edges.push((from, number));
        }
        is_new.then(|| {
            self.found_by.push(by);
            number
        })
    }

    /// The actions that lead from the start to a state.
    fn path_to(&self, mut number: u32) -> Vec<A> {
        let mut path = Vec::new();
        while let Some((from, action)) = self.found_by[number as usize] {
            path.push(action);
            number = from;
        }
        path.reverse();
        path
    }

    /// How many paths lead from the start to an end, and the length of the longest.
    fn paths(&self) -> (u128, usize) {
        let count = self.found_by.len();
        let mut offsets = vec![0usize; count + 1];
        let mut waits_for = vec![0u32; count];
        for (from, to) in &self.edges {
            offsets[*from as usize + 1] += 1;
            waits_for[*to as usize] += 1;
        }
        for n in 0..count {
            offsets[n + 1] += offsets[n];
        }
        let mut place = offsets.clone();
        let mut targets = vec![0u32; self.edges.len()];
        for (from, to) in &self.edges {
            targets[place[*from as usize]] = *to;
            place[*from as usize] += 1;
        }
        let (mut ways, mut depth) = (vec![0u128; count], vec![0usize; count]);
        ways[0] = 1;
        let (mut ready, mut done, mut total) = (vec![0u32], 0, 0u128);
        while let Some(from) = ready.pop() {
            let from = from as usize;
            done += 1;
            let next = &targets[offsets[from]..offsets[from + 1]];
            if next.is_empty() {
                total = total.saturating_add(ways[from]);
            }
            for to in next {
                let to_index = *to as usize;
                ways[to_index] = ways[to_index].saturating_add(ways[from]);
                depth[to_index] = depth[to_index].max(depth[from] + 1);
                waits_for[to_index] -= 1;
                if waits_for[to_index] == 0 {
                    ready.push(*to);
                }
            }
        }
        assert_eq!(
            done, count,
            "the states form a cycle: a schedule need not end"
        );
        (total, depth.into_iter().max().unwrap_or(0))
    }
}

/// Visits every state, nearest to the start first.
///
/// # Errors
/// The shortest schedule that breaks a property.
pub(crate) fn explore<M: Model>(model: &M) -> Result<Explored, Box<Counterexample>> {
    let began = Instant::now();
    let mut seen = Seen::new();
    let mut graph = Graph {
        numbers: HashMap::new(),
        found_by: Vec::new(),
        edges: Vec::new(),
    };
    let start = model.start();
    let mut waiting = VecDeque::new();
    waiting.extend(graph.visit(&start, None).map(|number| (number, start)));
    while let Some((number, state)) = waiting.pop_front() {
        let actions = model.actions(&state);
        if actions.is_empty() {
            model
                .check_end(&state, &mut seen)
                .map_err(|broken| counterexample(model, broken, graph.path_to(number), None))?;
        }
        for action in actions {
            let next = model.step(&state, action, &mut seen).map_err(|broken| {
                counterexample(model, broken, graph.path_to(number), Some(action))
            })?;
            if let Some(new) = graph.visit(&next, Some((number, action))) {
                waiting.push_back((new, next));
            }
        }
    }
    let (interleavings, longest) = graph.paths();
    Ok(Explored {
        states: graph.found_by.len(),
        transitions: graph.edges.len(),
        interleavings,
        longest,
        seen,
        took: began.elapsed(),
    })
}

/// Plays complete schedules drawn at random: for machines that are too large to explore.
///
/// # Errors
/// The first schedule that breaks a property.
pub(crate) fn wander<M: Model>(
    model: &M,
    schedules: u64,
    seed: u64,
) -> Result<Seen, Box<Counterexample>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut seen = Seen::new();
    for _ in 0..schedules {
        let mut state = model.start();
        let mut path = Vec::new();
        loop {
            let actions = model.actions(&state);
            if actions.is_empty() {
                let result = model.check_end(&state, &mut seen);
                result.map_err(|broken| counterexample(model, broken, path, None))?;
                break;
            }
            let action = actions[random.random_range(0..actions.len())];
            match model.step(&state, action, &mut seen) {
                Ok(next) => state = next,
                Err(broken) => return Err(counterexample(model, broken, path, Some(action))),
            }
            path.push(action);
        }
    }
    Ok(seen)
}

fn counterexample<M: Model>(
    model: &M,
    broken: String,
    mut path: Vec<M::Action>,
    last: Option<M::Action>,
) -> Box<Counterexample> {
    path.extend(last);
    let mut state = model.start();
    let mut schedule = Vec::new();
    for action in path {
        schedule.push(model.describe(&state, action));
        match model.step(&state, action, &mut Seen::new()) {
            Ok(next) => state = next,
            Err(_) => break,
        }
    }
    Box::new(Counterexample { broken, schedule })
}

/// Two states in a million collide with a chance below one in ten million.
pub(crate) fn fingerprint(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters that each go up to `top`, in any order; `forbidden` must not be reached.
    struct Counters {
        top: u8,
        forbidden: Option<(u8, u8)>,
    }

    impl Model for Counters {
        type State = [u8; 2];
        type Action = usize;

        fn start(&self) -> [u8; 2] {
            [0, 0]
        }

        fn actions(&self, state: &[u8; 2]) -> Vec<usize> {
            (0..2).filter(|i| state[*i] < self.top).collect()
        }

        fn step(&self, state: &[u8; 2], i: usize, seen: &mut Seen) -> Result<[u8; 2], String> {
            let mut next = *state;
            next[i] += 1;
            *seen.entry("up").or_default() += 1;
            if self.forbidden == Some((next[0], next[1])) {
                return Err(format!("{next:?} is forbidden"));
            }
            Ok(next)
        }

        fn check_end(&self, _: &[u8; 2], _: &mut Seen) -> Result<(), String> {
            Ok(())
        }

        fn describe(&self, _: &[u8; 2], i: usize) -> String {
            format!("counter {i}")
        }
    }

    #[test]
    fn states_transitions_and_schedules_are_counted() {
        let model = Counters {
            top: 3,
            forbidden: None,
        };
        let Ok(explored) = explore(&model) else {
            unreachable!("nothing is forbidden")
        };
        // A grid of 4 x 4, and 6! / (3! 3!) ways through it.
        assert_eq!(
            (
                explored.states,
                explored.transitions,
                explored.interleavings,
                explored.longest
            ),
            (16, 24, 20, 6)
        );
    }

    #[test]
    fn the_shortest_schedule_to_a_broken_property_is_told() {
        let model = Counters {
            top: 3,
            forbidden: Some((2, 0)),
        };
        let Err(found) = explore(&model) else {
            unreachable!("it is reached")
        };
        assert_eq!(found.schedule, ["counter 0", "counter 0"]);
        assert!(wander(&model, 100, 1).is_err());
    }
}
