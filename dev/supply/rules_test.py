"""dev/check-supply on crates that are made up: it finds each kind of problem, and nothing where there is none."""

import unittest

from supply.licence import Malformed, choose
from supply.rules import problems, unlocked

CRATES_IO = "https://github.com/rust-lang/crates.io-index"
ALLOWED = ["MIT", "Apache-2.0", "ISC", "Unicode-3.0"]

# expression, and what must be chosen of ALLOWED
EXPRESSIONS = [
    ("MIT", {"MIT"}),
    ("GPL-3.0-only", None),
    ("mit", None),
    ("MIT OR GPL-3.0-only", {"MIT"}),
    ("GPL-3.0-only OR MIT", {"MIT"}),
    ("MIT AND GPL-3.0-only", None),
    ("MIT AND ISC", {"MIT", "ISC"}),
    ("MIT/Apache-2.0", {"MIT", "Apache-2.0"}),
    ("Apache-2.0 / GPL-3.0-only", {"Apache-2.0"}),
    # AND binds closer than OR, on either side of it.
    ("MIT OR ISC AND GPL-3.0-only", {"MIT"}),
    ("GPL-3.0-only AND MIT OR ISC", {"ISC"}),
    ("GPL-3.0-only OR MIT AND GPL-2.0-only", None),
    ("(MIT OR ISC) AND GPL-3.0-only", None),
    ("(GPL-3.0-only OR MIT) AND Unicode-3.0", {"MIT", "Unicode-3.0"}),
    ("((MIT))", {"MIT"}),
    # An exception makes another licence of it.
    ("Apache-2.0 WITH LLVM-exception", None),
    ("Apache-2.0 WITH LLVM-exception OR MIT", {"MIT"}),
    ("MIT AND Apache-2.0 WITH LLVM-exception", None),
    ("Apache-2.0+", {"Apache-2.0"}),
    ("LicenseRef-mine OR MIT", {"MIT"}),
]
MALFORMED = ["", "MIT OR", "OR MIT", "MIT ISC", "(MIT", "MIT)", "MIT AND OR ISC", "MIT WITH", "MIT, ISC", "()"]


def package(name, version="1.0.0", **more):
    package = {"id": f"{name} {version}", "name": name, "version": version, "license": "MIT OR Apache-2.0"}
    return package | {"source": f"registry+{CRATES_IO}", "dependencies": []} | more


def judge(*packages, skip=(), allow=("MIT", "Apache-2.0"), checksums=None, members=()):
    everything = [package("left"), package("right"), *packages]
    known = {(p["name"], p["version"]): "00" for p in everything} if checksums is None else checksums
    deny = {"licenses": {"allow": list(allow)}, "bans": {"skip": list(skip)}, "sources": {"allow-registry": [CRATES_IO]}}
    return problems(everything, set(members), known, deny)


class Rules(unittest.TestCase):
    def test_expressions(self):
        for expression, chosen in EXPRESSIONS:
            self.assertEqual(choose(expression, ALLOWED), chosen, expression)
        for expression in MALFORMED:
            self.assertRaises(Malformed, choose, expression, ALLOWED)

    def assert_found(self, found, *parts):
        self.assertEqual(len(found), len(parts), found)
        for problem, part in zip(found, parts):
            self.assertIn(part, problem)

    def test_nothing_is_found_where_all_is_well(self):
        self.assert_found(judge())

    def test_licences(self):
        self.assert_found(judge(package("copyleft", license="GPL-3.0-only")), "copyleft 1.0.0 is under GPL-3.0-only")
        self.assert_found(judge(package("silent", license=None)), "silent 1.0.0 names no licence")
        self.assert_found(judge(package("odd", license="MIT OR")), "odd 1.0.0: its licence cannot be read")
        self.assert_found(judge(allow=["MIT", "Apache-2.0", "ISC"]), "no crate needs ISC")

    def test_sources(self):
        for source in ("git+https://github.com/a/b#c", "registry+https://elsewhere.example/index", None):
            self.assert_found(judge(package("stray", source=source)), "stray 1.0.0 comes from ")
        self.assert_found(judge(package("mine", source=None), members=["mine 1.0.0"]))
        self.assert_found(judge(checksums={("left", "1.0.0"): "00"}), "right 1.0.0 has no checksum")

    def test_duplicates(self):
        older, newer = package("twice"), package("twice", "2.0.0")
        self.assert_found(judge(older, newer), "twice is there as 1.0.0 and 2.0.0")
        skip = {"crate": "twice@1.0.0", "reason": "left needs it"}
        self.assert_found(judge(older, newer, skip=[skip]))
        self.assert_found(judge(older, newer, package("twice", "3.0.0"), skip=[skip]), "twice is there as 2.0.0 and 3.0.0")
        self.assert_found(judge(newer, skip=[skip]), "no other version stands beside twice@1.0.0")
        self.assert_found(judge(older, newer, skip=[{"crate": "twice@1.0.0"}]), "without a reason", "twice is there as")

    def test_wildcards(self):
        any_version = [{"name": "left", "req": "*"}, {"name": "right", "req": "*", "path": "/right"}]
        mine = package("mine", source=None, dependencies=any_version)
        self.assert_found(judge(mine, members=["mine 1.0.0"]), "mine takes any version of left")

    def test_builds(self):
        for line in ("cargo test --locked", "cargo build --bins --locked -p x && cargo test --locked", "# cargo build", "cargo fmt"):
            self.assert_found(unlocked("script", line))
        self.assert_found(unlocked("script", "true\ncargo build -p x"), "script:2: cargo build -p x is not --locked")
        self.assert_found(unlocked("script", "cargo build --locked && cargo test -p x"), "cargo test -p x is not")
