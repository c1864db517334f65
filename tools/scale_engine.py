"""How `connito bench engine` scales: with threads, and with the experts that are held.

    cargo build --release -p connito-cli
    python tools/scale_engine.py target/release/connito --rounds 3

Prints two tables of medians. The second grows the experts of `tools/bench/reference-moe.json` from 8 to 64 while each
token still visits two: the arithmetic per token stays the same, so the speed should nearly do. Needs nothing but Python.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

CONFIG = Path(__file__).parent / "bench" / "reference-moe.json"
MODES = ("train", "forward")


def measure(connito: str, config: Path, mode: str, threads: int, steps: int) -> dict:
    command = [connito, "bench", "engine", "--config", str(config), "--mode", mode]
    command += ["--threads", str(threads), "--steps", str(steps), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def medians(rounds: list[dict]) -> tuple[float, float]:
    speed = statistics.median(result["tokens_per_second"] for result in rounds)
    return speed, statistics.median(result["peak_rss_bytes"] for result in rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("connito")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 16, 32, 64])
    options = parser.parse_args()

    def table(title: str, rows: dict, config_of, threads_of) -> None:
        print(f"\n| {title} | mode | tokens/s | peak MB |\n|--:|---|--:|--:|")
        results = {(row, mode): [] for row in rows for mode in MODES}
        for _ in range(options.rounds):  # taking turns, so that a slow moment slows all
            for row, mode in results:
                results[row, mode].append(
                    measure(options.connito, config_of(row), mode, threads_of(row), options.steps)
                )
        for (row, mode), rounds in results.items():
            speed, peak = medians(rounds)
            print(f"| {row} | {mode} | {speed:.0f} | {peak / 1e6:.0f} |")

    table("threads", options.threads, lambda _: CONFIG, lambda threads: threads)
    with tempfile.TemporaryDirectory() as folder:
        configs = {}
        for experts in options.experts:
            config = json.loads(CONFIG.read_text()) | {"n_routed_experts": experts}
            configs[experts] = Path(folder) / f"{experts}.json"
            configs[experts].write_text(json.dumps(config))
        table("experts", options.experts, configs.get, lambda _: max(options.threads))


if __name__ == "__main__":
    main()
