#!/usr/bin/env python3
"""Leaves, trees, seals and proofs, written from their description and without Runlog's code.

Prints proof.jsonl, which is kept beside this file and which the tests read:
    python3 crates/run-events/tests/seals/reference.py > crates/run-events/tests/seals/proof.jsonl
"""
import datetime
import hashlib
import json
import struct
import uuid


def sha(data):
    return hashlib.sha256(data).digest()


def tree(leaves):
    """RFC 9162, 2.1.1."""
    if not leaves:
        return sha(b"")
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha(b"\x01" + tree(leaves[:split]) + tree(leaves[split:]))


def path(leaves, index):
    """RFC 9162, 2.1.3.1."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return path(leaves[:split], index) + [tree(leaves[split:])]
    return path(leaves[split:], index - split) + [tree(leaves[:split])]


def leaf(tenant, run, run_seq, events, chain):
    tenant, run = tenant.encode(), run.encode()
    data = b"runlog head v1" + struct.pack(">Q", len(tenant)) + tenant + struct.pack(">Q", len(run)) + run
    return sha(b"\x00" + data + struct.pack(">QQ", run_seq, events) + chain)


def seal(day, runs, events, root, previous):
    digest = sha(b"runlog seal v1" + day.encode() + struct.pack(">QQ", runs, events) + root + previous)
    written = {"format": "runlog seal v1", "day": day, "runs": runs, "events": events, "root": root.hex(),
               "previous": previous.hex(), "digest": digest.hex()}
    return digest, written


def content_digest(content):
    """RFC 8785 for what is used here: no floats, keys in ASCII."""
    names = {"event_type": "eventType", "step_id": "stepId", "logical_attempt_id": "logicalAttemptId",
             "plan_id": "planId", "plan_version": "planVersion", "project_id": "projectId",
             "environment_id": "environmentId", "payload": "payload"}
    renamed = {names[key]: value for key, value in content.items()}
    return sha(json.dumps(renamed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def chain_digest(before, event, micros):
    return sha(before + struct.pack(">Q", event["run_seq"]) + uuid.UUID(event["event_id"]).bytes
               + bytes.fromhex(event["idempotency_key"]) + struct.pack(">q", micros)
               + struct.pack(">i", event["engine_attempt_id"]) + bytes.fromhex(event["content_digest"]))


EPOCH = datetime.datetime(1970, 1, 1)


def events():
    chain = bytes(32)
    for run_seq, (kind, step, payload) in enumerate(
            [("RunStarted", None, None),
             ("StepStarted", "s1", {"rows": 1, "nested": [None, True, "ä\n", {"b": 1, "a": []}]}),
             ("StepCompleted", "s1", {"rows": 2}),
             ("RunCompleted", None, {})], 1):
        micros = 1_767_225_600_000_000 + run_seq
        content = {"event_type": kind, "step_id": step, "logical_attempt_id": 1, "plan_id": "plan",
                   "plan_version": "v1", "project_id": "project", "environment_id": "prod", "payload": payload}
        emitted = (EPOCH + datetime.timedelta(microseconds=micros)).isoformat(timespec="microseconds") + "Z"
        event = {"run_seq": run_seq, "event_id": str(uuid.UUID(int=run_seq)),
                 "idempotency_key": sha(str(run_seq).encode()).hex(), "emitted_at": emitted,
                 "engine_attempt_id": run_seq,
                 # The third one's content is withheld, as after an erasure.
                 "content": None if run_seq == 3 else content,
                 "content_digest": content_digest(content).hex()}
        chain = chain_digest(chain, event, micros)
        event["chain_digest"] = chain.hex()
        yield event, chain


def main():
    run = list(events())
    mine = leaf("acme", "run ü", 4, 2, run[-1][1])
    leaves = sorted([mine] + [leaf("other", f"run {n}", n, 1, sha(bytes([n]))) for n in range(1, 7)])
    index = leaves.index(mine)
    first, _ = seal("2025-12-31", 0, 0, tree([]), bytes(32))
    second, of_day = seal("2026-01-01", len(leaves), 8, tree(leaves), first)
    _, behind = seal("2026-01-02", 1, 3, tree([sha(b"another")]), second)
    head = {"format": "runlog proof v1", "tenant_id": "acme", "run_id": "run ü", "run_seq": 4, "events_of_day": 2,
            "leaf_index": index, "path": [sibling.hex() for sibling in path(leaves, index)],
            "seals": [of_day, behind]}
    for line in [head] + [event for event, _ in run]:
        print(json.dumps(line, separators=(",", ":"), ensure_ascii=False))


main()
