"""sbom_check.py FOLDER: the bills of materials in it are valid, and tell what `cargo tree` tells of each program.

Called by dev/check-sbom, by a Python that has cyclonedx-python-lib.
"""

import json
import re
import sys
from datetime import datetime
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from supply import cargo  # noqa: E402

# What only tests and benches need.
TEST_ONLY = {"criterion", "proptest", "runlog-tests"}


def check(program, file):
    text = file.read_text()
    invalid = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
    assert invalid is None, f"not CycloneDX 1.5: {invalid}"
    bill = json.loads(text)
    assert bill["specVersion"] == "1.5", bill["specVersion"]
    components = [bill["metadata"]["component"], *bill["components"]]

    refs = [component["bom-ref"] for component in components]
    assert len(set(refs)) == len(refs), "a component is there twice"
    nodes = {node["ref"]: node.get("dependsOn", []) for node in bill["dependencies"]}
    assert set(nodes) == set(refs), "the components and the graph are not the same"
    reached, todo = set(), [components[0]["bom-ref"]]
    while todo:
        ref = todo.pop()
        assert ref in nodes, f"{ref} is needed, and no component"
        if ref not in reached:
            reached.add(ref)
            todo += nodes[ref]
    assert reached == set(refs), f"nothing needs {set(refs) - reached}"

    crates = {(c["name"], c["version"]): c for c in components if PackageURL.from_string(c["purl"]).type == "cargo"}
    for (name, version), component in crates.items():
        purl = PackageURL.from_string(component["purl"])
        assert (purl.name, purl.version) == (name, version), f"{component['purl']} is not {name} {version}"
    targets = cargo.toml("deny.toml")["graph"]["targets"]
    tree = cargo.tree([program], "normal,build", targets)
    assert tree <= set(crates), f"missing: {tree - set(crates)}"
    extra = {name for name, _ in set(crates) - tree} & TEST_ONLY
    assert not extra, f"only tests need {extra}"
    linked = cargo.tree([program], "normal,no-proc-macro", targets)
    hidden = {key for key in linked if crates[key]["scope"] != "required"}
    assert not hidden, f"linked, but not required: {hidden}"

    for reference in (reference for c in components for reference in c.get("externalReferences", [])):
        assert re.fullmatch(r"https://[\w.-]+/[\w./~#-]*", reference["url"]), f"{reference['url']} is no address"
    moment = bill["metadata"]["timestamp"]
    assert datetime.fromisoformat(moment).tzinfo, f"{moment} has no zone"

    own = {package["name"] for package in cargo.toml("Cargo.lock")["package"] if "source" not in package}
    for (name, _), component in crates.items():
        assert name in own or component.get("hashes"), f"{name} has no checksum"
    assert str(cargo.ROOT) not in text, "it names a folder of this machine"
    return f"{program}: {len(components) - 1} components"


for program in ("runlog", "runlog-ingest", "runlog-projectors"):
    file = Path(sys.argv[1]) / f"{program}.cdx.json"
    try:
        print(check(program, file))
    except AssertionError as error:
        sys.exit(f"{file.name}: {error}")
