//! The tree against vectors that every implementation of it is tested with, and its paths against each other.

use run_events::Digest;
use run_events::seal::merkle::{leaf, path, root, root_of_path};

/// The leaves and roots that Certificate Transparency's implementations are tested with; a Python of its
/// own gave the same roots.
const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn leaves(count: u8) -> Vec<Digest> {
    (0..count).map(|n| leaf(&[n])).collect()
}

#[test]
fn the_roots_are_the_published_ones() {
    let leaves: Vec<Digest> = LEAVES.map(|hex| leaf(&hex::decode(hex).unwrap())).into();
    for (size, expected) in ROOTS.iter().enumerate() {
        assert_eq!(root(&leaves[..size]).to_string(), *expected);
    }
}

#[test]
fn a_path_leads_to_the_root_from_its_own_leaf_and_place_and_from_no_other() {
    for size in 1..=20_u8 {
        let leaves = leaves(size);
        let root = root(&leaves);
        for at in 0..size {
            let way = path(&leaves, at.into());
            for (other, leaf) in leaves.iter().enumerate() {
                for index in 0..=u64::from(size) {
                    let leads = root_of_path(*leaf, index, size.into(), &way) == Some(root);
                    let is_own = other == usize::from(at) && index == u64::from(at);
                    assert_eq!(leads, is_own, "{size} leaves: {at}, {other}, {index}");
                }
            }
        }
    }
}

#[test]
fn a_path_that_was_changed_leads_nowhere() {
    for size in 1..=20_u8 {
        let leaves = leaves(size);
        let root = root(&leaves);
        for at in 0..size {
            let way = path(&leaves, at.into());
            let leads = |way: &[Digest]| {
                root_of_path(leaves[usize::from(at)], at.into(), size.into(), way) == Some(root)
            };
            assert!(leads(&way));
            for place in 0..way.len() {
                let mut other = way.clone();
                other[place].0[31] ^= 1;
                assert!(!leads(&other));
                other.remove(place);
                assert!(!leads(&other));
            }
            for more in [leaves[0], root, Digest([0; 32])] {
                let longer = [way.as_slice(), &[more]].concat();
                assert!(!leads(&longer));
                let longer = [&[more], way.as_slice()].concat();
                assert!(!leads(&longer));
            }
        }
    }
}

#[test]
fn numbers_without_a_tree_have_no_root() {
    let leaf = leaf(b"x");
    assert_eq!(root_of_path(leaf, 0, 0, &[]), None);
    assert_eq!(root_of_path(leaf, u64::MAX, u64::MAX, &[leaf; 64]), None);
    assert_eq!(root_of_path(leaf, 0, u64::MAX, &[leaf; 65]), None);
    assert_eq!(path(&leaves(3), 3), []);
    assert_eq!(path(&[], 0), []);
}
