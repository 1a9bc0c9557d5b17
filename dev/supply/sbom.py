"""The bill of materials of one program, as CycloneDX 1.5: pure functions of what cargo says.

Called by dev/sbom. The same commit makes the same bytes: nothing of the machine or of the moment is in it. Crates that are
linked into the program have the scope `required`, those that only ran while it was built (build scripts, macros)
`excluded`. C libraries that a crate brings as source are components, too: advisories know them by their own names.
"""

import json
import uuid

# Crates that compile a C library of their own: its version stands behind the + of the crate's. Its purl.
BUNDLED = {
    "rdkafka-sys": "pkg:github/confluentinc/librdkafka@v{}",
    "zstd-sys": "pkg:github/facebook/zstd@v{}",
}


def purl(key):
    name, version = key
    # A + is part of many versions, and means a space where purls are read as URLs.
    return f"pkg:cargo/{name}@{version.replace('+', '%2B')}"


def edges(metadata):
    """For each crate, by (name, version), the crates that it needs to be built or to run; not those of its tests."""
    keys = {package["id"]: (package["name"], package["version"]) for package in metadata["packages"]}
    needs = {}
    for node in metadata["resolve"]["nodes"]:
        used = [d["pkg"] for d in node["deps"] if any(kind["kind"] != "dev" for kind in d["dep_kinds"])]
        needs[keys[node["id"]]] = {keys[package] for package in used}
    return needs


def reach(start, needs, within):
    """What can be reached from `start`, itself included, without leaving `within`."""
    reached, todo = set(), [start]
    while todo:
        key = todo.pop()
        if key in within and key not in reached:
            reached.add(key)
            todo.extend(needs[key])
    return reached


def document(program, packages, needs, built, linked, checksums, timestamp):
    """`packages` by (name, version); `built` and `linked`: what cargo compiles for all programs, and what of it is linked."""
    parts = reach(program, needs, built)
    required = reach(program, needs, linked)
    crates = sorted(parts - {program})
    bundled = {key: _bundled(key, key in required) for key in crates if key[0] in BUNDLED}
    components = [_crate(packages[key], key in required, checksums.get(key)) for key in crates]
    depends = [
        {
            "ref": purl(key),
            "dependsOn": sorted([purl(needed) for needed in needs[key] & parts] + _refs(bundled.get(key))),
        }
        for key in [program, *crates]
    ]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": timestamp,
            "component": _crate(packages[program], True, None) | {"type": "application"},
        },
        "components": components + list(bundled.values()),
        "dependencies": depends + [{"ref": part["bom-ref"]} for part in bundled.values()],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bill, sort_keys=True))
    return {"$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json", "serialNumber": f"urn:uuid:{serial}"} | bill


def _crate(package, is_linked, checksum):
    key = (package["name"], package["version"])
    component = {
        "type": "library",
        "bom-ref": purl(key),
        "name": package["name"],
        "version": package["version"],
        "scope": "required" if is_linked else "excluded",
        "licenses": [{"expression": " OR ".join(part.strip() for part in package["license"].split("/"))}],
        "purl": purl(key),
    }
    if package["description"]:
        component["description"] = " ".join(package["description"].split())
    if checksum:
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        component["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return component


def _bundled(key, is_linked):
    name, version = key
    own = version.rpartition("+")[2].removeprefix(f"{name.removesuffix('-sys')}.")
    address = BUNDLED[name].format(own)
    return {
        "type": "library",
        "bom-ref": address,
        "name": address.partition("@")[0].rpartition("/")[2],
        "version": own,
        "scope": "required" if is_linked else "excluded",
        "purl": address,
    }


def _refs(component):
    return [component["bom-ref"]] if component else []
