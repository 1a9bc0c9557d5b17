"""What cargo knows of the crates: its metadata, its lock file and its trees, and the rules in deny.toml.

Called by dev/check-supply and dev/sbom. Nothing here changes Cargo.lock, and nothing but `fetch` uses a network.
"""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CARGO = os.environ.get("CARGO", "cargo")


def run(*arguments):
    """The standard output of a cargo command; ends the program with cargo's own words where it fails."""
    done = subprocess.run([CARGO, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{done.stderr}cargo {' '.join(arguments)} failed, so nothing was checked")
    return done.stdout


def toml(name):
    with open(ROOT / name, "rb") as file:
        return tomllib.load(file)


def fetch(targets):
    """Gets crates that are not on this machine yet; without a network where none is missing."""
    run("fetch", "--locked", *_each("--target", targets))


def metadata(targets):
    """cargo metadata of all that may be compiled for the targets, tests and build scripts included."""
    filters = _each("--filter-platform", targets)
    return json.loads(run("metadata", "--format-version", "1", "--locked", "--offline", *filters))


def tree(programs, edges, targets):
    """(name, version) of the crates that the programs are built from, by the features that are really on."""
    lines = run(
        "tree", "--locked", "--offline", "--prefix", "none", "--format", "{p}", "--edges", edges,
        *_each("--package", programs), *_each("--target", targets),
    ).splitlines()  # fmt: skip
    return {(name, version.removeprefix("v")) for name, version, *_ in (line.split() for line in lines if line)}


def scripts():
    """The files that build: the scripts of dev/ and .ci/, the Makefile, the Dockerfile."""
    folders = [file for folder in ("dev", ".ci") for file in sorted((ROOT / folder).iterdir()) if file.is_file()]
    return [*folders, ROOT / "Makefile", ROOT / "Dockerfile"]


def checksums():
    """SHA-256 by (name, version), of the crates that have one in Cargo.lock."""
    return {
        (package["name"], package["version"]): package["checksum"]
        for package in toml("Cargo.lock")["package"]
        if "checksum" in package
    }


def _each(option, values):
    return [word for value in values for word in (option, value)]
