#!/usr/bin/env python3
"""Random calls, keys, values and payloads, composed by the official codec and by ours: equal bytes.

    python3 -m pip install bittensor_core==0.1.5
    tools/metadata/compare_codec.py METADATA SPEC [ROUNDS]

METADATA is a file of version 14 or 15, SPEC the runtime's spec_version. For every call and storage item
that the adapter uses, ROUNDS random values are made along the item's layout. The other codec reads the
pallets from the same file, so only its encoding is compared, not its idea of the chain.
"""

import json
import random
import re
import subprocess
import sys

import bittensor_core

TOKEN = re.compile(r"\w+|->|[^\s\w]")


class Layout:
    """A layout as the shape table writes it, as a generator of random values."""

    def __init__(self, text):
        self.tokens = TOKEN.findall(text)
        self.place = 0

    def next(self, expected=None):
        token = self.tokens[self.place]
        assert expected in (None, token), (expected, token, self.tokens)
        self.place += 1
        return token

    def peek(self):
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def separated(self, end, read):
        parts = []
        while self.peek() != end:
            parts.append(read())
            if self.peek() == ",":
                self.next()
        self.next(end)
        return parts

    def named(self):
        name = self.next()
        self.next(":")
        return name, self.type()

    def variant(self):
        name = self.next()
        if self.peek() in ("(", "{"):
            return name, self.type()
        return name, ("tuple", [])

    def type(self):
        token = self.next()
        if token == "{":
            return "record", self.separated("}", self.named)
        if token == "(":
            return "tuple", self.separated(")", self.type)
        if token == "<":
            return "enum", self.separated(">", self.variant)
        if token == "[":
            of = self.type()
            if self.next() == "]":
                return "list", of
            count = int(self.next())
            self.next("]")
            return "array", of, count
        if token == "compact":
            return self.type()
        if token == "bool":
            return ("bool",)
        return ("signed" if token[0] == "i" else "unsigned"), int(token[1:])


def number(bits, chance):
    """Small, middling and full-width integers alike."""
    return chance.getrandbits(chance.randint(0, bits))


def pick(layout, chance):
    """A random value twice: as our JSON, and as the official codec takes it."""
    kind = layout[0]
    if kind == "bool":
        value = chance.random() < 0.5
        return value, value
    if kind == "unsigned":
        value = number(layout[1], chance)
        return str(value), value
    if kind == "signed":
        value = number(layout[1] - 1, chance) * chance.choice([-1, 1])
        return str(value), value
    if kind in ("list", "array"):
        count = layout[2] if kind == "array" else chance.choice([0, 1, 3, 70])
        if layout[1] == ("unsigned", 8):
            text = "0x" + chance.randbytes(count).hex()
            return text, text
        return both([pick(layout[1], chance) for _ in range(count)])
    if kind == "tuple":
        return both([pick(part, chance) for part in layout[1]])
    if kind == "record":
        ours, theirs = both([pick(part, chance) for _, part in layout[1]])
        names = [name for name, _ in layout[1]]
        return dict(zip(names, ours)), dict(zip(names, theirs))
    name, fields = chance.choice(layout[1])
    ours, theirs = pick(fields, chance)
    if theirs == []:
        return {"=" + name: ours}, name
    if isinstance(theirs, list) and len(theirs) == 1:
        theirs = theirs[0]
    return {"=" + name: ours}, {name: theirs}


def both(pairs):
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]


class Ours:
    """The example `codec` as a process that answers line by line."""

    def __init__(self, metadata, spec):
        command = ["cargo", "run", "--quiet", "--package", "connito-chain", "--example", "codec"]
        self.process = subprocess.Popen(
            command + ["--", metadata, str(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


def compare_call(ours, theirs, item, chance):
    mine, official = pick(Layout(item["layout"]).type(), chance)
    names = {"pallet": item["pallet"], "name": item["name"]}
    answer = ours.ask(ask="call", arguments=mine, **names)
    return mine, answer, bytes(theirs.compose_call(item["pallet"], item["name"], official)).hex()


def compare_storage(ours, theirs, item, chance):
    keys, _, value = item["layout"].partition("->")
    reader = Layout(keys + " ;")
    mine, official = both([pick(key, chance) for key in reader.separated(";", reader.type)])
    names = {"pallet": item["pallet"], "name": item["name"]}
    answer = ours.ask(ask="key", keys=mine, **names)
    key = bytes(theirs.storage_key(item["pallet"], item["name"], official)).hex()
    if answer != key or item["name"] == "Events":
        return mine, answer, key
    mine, official = pick(Layout(value).type(), chance)
    if item["name"] == "TimelockedIndex":
        # A set, which the official codec takes as a struct with one field.
        official = [official]
    entry = theirs.storage_entry(item["pallet"], item["name"])
    raw = bytes(theirs.encode(entry.value_type, official)).hex()
    read = ours.ask(ask="value", bytes=raw, **names)
    return mine, read if read.startswith("!") else json.loads(read), mine


def compare_payload(ours, theirs, chance):
    call = chance.randbytes(chance.randint(2, 120)).hex()
    nonce, tip = number(32, chance), number(64, chance)
    terms = {}
    era = "00"
    if chance.random() < 0.8:
        terms = {"period": 2 ** chance.randint(2, 16), "current": number(32, chance)}
        era = dict(terms)
    answer = ours.ask(ask="payload", call=call, nonce=nonce, tip=tip, **terms)
    payload = theirs.signature_payload(
        bytes.fromhex(call),
        era=era,
        nonce=nonce,
        tip=tip,
        tip_asset_id=None,
        genesis_hash=bytes([1] * 32),
        era_block_hash=bytes([1 if era == "00" else 2] * 32),
    )
    return terms, answer, bytes(payload).hex()


def main():
    metadata, spec = sys.argv[1], int(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 50
    chance = random.Random(spec)
    with open(metadata, "rb") as file:
        raw = file.read()
    theirs = bittensor_core.Runtime(raw[raw.index(b"meta"):], spec, 1, 42)
    ours = Ours(metadata, spec)
    items = json.loads(ours.ask(ask="items"))
    compared = 0
    for item in items:
        compare = compare_call if item["call"] else compare_storage
        for _ in range(rounds):
            given, answer, expected = compare(ours, theirs, item, chance)
            if answer != expected:
                sys.exit(f"{item['pallet']}.{item['name']} of {given}: {answer}, not {expected}")
            compared += 1
    for _ in range(10 * rounds):
        given, answer, expected = compare_payload(ours, theirs, chance)
        if answer != expected:
            sys.exit(f"payload with {given}: {answer}, not {expected}")
        compared += 1
    print(f"{compared} compositions of {len(items)} items are equal at spec {spec}")


if __name__ == "__main__":
    main()
