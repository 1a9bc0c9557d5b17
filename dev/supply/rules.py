"""What deny.toml asks of the crates, judged from what cargo says: pure functions, a list of problems each.

Called by dev/check-supply. What cargo-deny knows and this does not, since it needs a network: advisories and yanked
versions. What the other way round: entries of deny.toml without a reason.
"""

import re
from collections import defaultdict

from supply.licence import Malformed, choose


def problems(packages, members, checksums, deny):
    """All of them. `packages`: cargo metadata's, whatever may be compiled; `members`: the ids of the workspace's own;
    `checksums`: by (name, version), of Cargo.lock; `deny`: deny.toml."""
    foreign = [package for package in packages if package["id"] not in members]
    own = [package for package in packages if package["id"] in members]
    return (
        licences(foreign, deny["licenses"]["allow"])
        + sources(foreign, checksums, deny["sources"])
        + duplicates(packages, deny["bans"]["skip"])
        + wildcards(own)
    )


# Those that would write another Cargo.lock, or ignore the one of what they install.
COMMAND = re.compile(r"\bcargo (bench|build|check|clippy|doc|install|run|rustc|test)\b[^&;|]*")


def unlocked(name, text):
    """Commands in a script that would build other versions than those of Cargo.lock."""
    return [
        f"{name}:{number}: {match[0].strip()} is not --locked"
        for number, line in enumerate(text.splitlines(), 1)
        for match in COMMAND.finditer(line.partition("#")[0])
        if "--locked" not in match[0]
    ]


def title(package):
    return f"{package['name']} {package['version']}"


def licences(packages, allowed):
    found, used = [], set()
    for package in packages:
        expression = package["license"]
        if not expression:
            found.append(f"{title(package)} names no licence of SPDX (it may have a file of its own: read it)")
            continue
        try:
            chosen = choose(expression, allowed)
        except Malformed as error:
            found.append(f"{title(package)}: its licence cannot be read: {error}")
            continue
        if chosen is None:
            found.append(f"{title(package)} is under {expression}: licenses.allow in deny.toml does not suffice for it")
        used |= chosen or set()
    return found + [f"deny.toml: no crate needs {name} in licenses.allow" for name in allowed if name not in used]


def sources(packages, checksums, rules):
    found = []
    for package in packages:
        source = package["source"] or "a folder outside of the workspace"
        if source.removeprefix("registry+") not in rules["allow-registry"]:
            found.append(f"{title(package)} comes from {source}, which is not in sources.allow-registry of deny.toml")
        elif not checksums.get((package["name"], package["version"])):
            found.append(f"{title(package)} has no checksum in Cargo.lock")
    return found


def duplicates(packages, skip):
    versions = defaultdict(set)
    for package in packages:
        versions[package["name"]].add(package["version"])
    found, needed = [], set()
    skipped = {entry["crate"] for entry in skip if entry.get("reason")}
    for entry in skip:
        if not entry.get("reason"):
            found.append(f"deny.toml: bans.skip has {entry['crate']} without a reason")
    for name, several in sorted(versions.items()):
        if len(several) == 1:
            continue
        needed |= {f"{name}@{version}" for version in several}
        left = sorted(version for version in several if f"{name}@{version}" not in skipped)
        if len(left) > 1:
            found.append(f"{name} is there as {' and '.join(left)}: take one, or give bans.skip in deny.toml the older one")
    return found + [f"deny.toml: no other version stands beside {crate} of bans.skip" for crate in sorted(skipped - needed)]


def wildcards(own):
    return [
        f"{package['name']} takes any version of {dependency['name']}"
        for package in own
        for dependency in package["dependencies"]
        if dependency["req"] == "*" and not dependency.get("path")
    ]
