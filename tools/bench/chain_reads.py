"""How long a whole subnet takes to read: this program's adapter and the official Python SDK, on one chain.

    cargo build -p connito-node --example chain_reads
    pip install bittensor==11.3.0
    python tools/bench/chain_reads.py [--binary target/debug/examples/chain_reads] [--neurons 256] [--times 20]

Serves a subnet whose neurons have all published an endpoint and a commitment, and has both read the
metagraph, the hyperparameters and everybody's commitments, at blocks of their own and one after the
other. Times are medians of what a reader sees between its question and its values, over loopback and
after two reads that do not count. Bytes and questions are of one more read each, through a proxy that
counts them; times are taken without it. Prints a table, and the ratios of the SDK to the adapter.
"""

import argparse
import asyncio
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

NETUID = 1
# Reads before those that are counted.
WARM = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--binary", default="target/debug/examples/chain_reads", type=pathlib.Path
    )
    parser.add_argument("--neurons", default=256, type=int)
    parser.add_argument("--times", default=20, type=int)
    options = parser.parse_args()
    if not options.binary.is_file():
        print(f"{options.binary} is no file: build it first, or name it with --binary")
        return 2
    command = [options.binary, "serve", str(options.neurons)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as chain:
        address = chain.stdout.readline().strip()
        if not address:
            return 1
        print(f"{options.neurons} neurons at {address}, {options.times} reads of each, {machine()}")
        asyncio.run(compare(options, address))
        chain.stdin.close()
    return 0


def machine() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line for line in lines if line.startswith("model name")), ": unknown")
    return f"{model.split(':')[1].strip()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


async def compare(options: argparse.Namespace, address: str) -> None:
    ours = await read_by_adapter(options.binary, f"http://{address}", options.times)
    theirs = await read_by_sdk(f"ws://{address}", options.times)
    async with Counter(address) as counter:
        # Twice and thrice: the difference is one read, without what the first connection costs.
        for readings, reader in ((ours, adapter_reader(options.binary)), (theirs, read_by_sdk)):
            scheme = "http" if readings is ours else "ws"
            twice = await counted(counter, reader, f"{scheme}://{counter.address}", 1)
            thrice = await counted(counter, reader, f"{scheme}://{counter.address}", 2)
            readings["traffic"] = [more - less for more, less in zip(thrice, twice)]
    for who, readings in (("adapter", ours), ("SDK", theirs)):
        if (readings["neurons"], readings["records"]) != (options.neurons,) * 2:
            raise SystemExit(f"the {who} has read something else: {readings}")
    table(ours, theirs)


def adapter_reader(binary: pathlib.Path):
    return lambda url, times: read_by_adapter(binary, url, times)


async def read_by_adapter(binary: pathlib.Path, url: str, times: int) -> dict:
    command = [binary, "read", url, str(times)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    told, _ = await process.communicate()
    if process.returncode != 0:
        raise SystemExit("the adapter could not read the chain")
    readings = json.loads(told)
    # One question of the adapter has both.
    readings["hyperparameters"] = [0.0] * times
    return readings


async def read_by_sdk(url: str, times: int) -> dict:
    import bittensor as bt

    readings = {"metagraph": [], "hyperparameters": [], "commitments": []}
    begun = time.perf_counter()
    async with bt.Client(url, fallback_endpoints=[], archive_endpoints=[]) as client:
        newest = await client.block()
        readings["connect"] = time.perf_counter() - begun
        parts = {
            "metagraph": lambda: client.subnets.metagraph(NETUID),
            "hyperparameters": lambda: client.read("subnet_hyperparameters", netuid=NETUID),
            "commitments": lambda: client.read("commitments", netuid=NETUID),
        }
        for _ in range(WARM + times):
            newest = (await client.wait_for_block(newest + 1)).number
            for part, read in parts.items():
                begun = time.perf_counter()
                value = await read()
                readings[part].append(time.perf_counter() - begun)
                if part == "metagraph":
                    readings["neurons"] = len(value.neurons)
                if part == "commitments":
                    readings["records"] = len(value)
    return {part: took[WARM:] if part in parts else took for part, took in readings.items()}


class Counter:
    """Carries connections to an address and counts the bytes of both directions and the questions."""

    def __init__(self, address: str):
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)
        self.sent = self.received = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        self.address = "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def carry(self, reader, writer) -> None:
        inner, outer = await asyncio.open_connection(self.host, self.port)
        await asyncio.gather(self.pump(reader, outer, "sent"), self.pump(inner, writer, "received"))

    async def pump(self, reader, writer, direction: str) -> None:
        try:
            while data := await reader.read(1 << 16):
                setattr(self, direction, getattr(self, direction) + len(data))
                writer.write(data)
                await writer.drain()
            writer.close()
        except ConnectionError:
            writer.close()


async def counted(counter: Counter, read, url: str, times: int) -> list[int]:
    before = counter.sent, counter.received
    await read(url, times)
    return [counter.sent - before[0], counter.received - before[1]]


def table(ours: dict, theirs: dict) -> None:
    parts = ("metagraph", "hyperparameters", "commitments")
    rows = [(part, *(1000 * statistics.median(who[part]) for who in (ours, theirs))) for part in parts]
    whole = [
        1000 * statistics.median(map(sum, zip(*(who[part] for part in parts)))) for who in (ours, theirs)
    ]
    rows.append(("all three", *whole))
    rows.append(("connecting, once", 1000 * ours["connect"], 1000 * theirs["connect"]))
    print("\n| read | adapter, ms | SDK, ms | ratio |\n|---|--:|--:|--:|")
    for part, one, other in rows:
        ratio = f"{other / one:.1f}" if one else "with the metagraph"
        print(f"| {part} | {one:.1f} | {other:.1f} | {ratio} |")
    print("\n| one read of all three | adapter | SDK | ratio |\n|---|--:|--:|--:|")
    for direction, one, other in zip(("bytes sent", "bytes received"), ours["traffic"], theirs["traffic"]):
        print(f"| {direction} | {one:,} | {other:,} | {other / max(one, 1):.2f} |")


if __name__ == "__main__":
    sys.exit(main())
