"""Compares `connito bench engine` with `transformers`, as a table of ratios of medians.

    cargo build --release -p connito-cli
    venv/bin/python tools/compare_engine.py target/release/connito --rounds 5

Every measurement is a process of its own, and the two sides take turns within a round, so that a machine that slows down
slows both. Without `--config` it compares the shapes in `tools/bench`. `--out FILE` keeps every single measurement.

    train, plain   against AdamW on whole expert tensors, as one would write it first
    train, best    against fused AdamW on the trained experts alone
    forward        loss without gradients

Needs Python with torch and transformers for the other side: the running one, or `--python`. The header of the table
names versions, threads and load; exits with 1 when a process fails.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).parent
CONFIGS = [TOOLS / "bench" / "reference-moe.json", TOOLS / "bench" / "v2-lite-2-layers.json"]
OPTIMIZERS = {"train, plain": "adamw", "train, best": "fused"}


@dataclass(frozen=True)
class Shape:
    """What is measured: one model in one element type."""

    config: Path
    dtype: str


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("connito", type=Path, help="the release binary")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch and transformers")
    parser.add_argument("--config", type=Path, action="append", help="may be repeated")
    parser.add_argument("--dtype", choices=("f32", "bf16"), action="append", help="may be repeated; both by default")
    parser.add_argument("--rounds", type=int, default=5, help="processes of every kind")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a process")
    parser.add_argument("--trainable", type=int, default=4, help="experts 0 to N−1 of every MoE layer are trained")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="every measurement, one line of JSON each")
    return parser.parse_args()


def work(options: argparse.Namespace, shape: Shape, mode: str) -> list[str]:
    """The arguments that both sides understand."""
    values = {
        "config": shape.config,
        "dtype": shape.dtype,
        "mode": mode,
        "trainable": options.trainable,
        "batch": options.batch,
        "seq": options.seq,
        "threads": options.threads,
        "steps": options.steps,
    }
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


def commands(options: argparse.Namespace, shape: Shape) -> dict[str, list[str]]:
    ours = [str(options.connito), "bench", "engine", "--json"]
    theirs = [options.python, str(TOOLS / "bench_transformers.py")]
    train, forward = work(options, shape, "train"), work(options, shape, "forward")
    return {
        "connito train": ours + train,
        **{
            f"transformers {name}": [*theirs, *train, "--optimizer", optimizer]
            for name, optimizer in OPTIMIZERS.items()
        },
        "connito forward": ours + forward,
        "transformers forward": theirs + forward,
    }


def measure(command: list[str]) -> dict:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr}")
    # Libraries may have written lines of their own before the result.
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_all(options: argparse.Namespace, shape: Shape) -> dict[str, list[dict]]:
    results: dict[str, list[dict]] = {name: [] for name in commands(options, shape)}
    for round_number in range(1, options.rounds + 1):
        for name, command in commands(options, shape).items():
            result = measure(command)
            results[name].append(result)
            label = f"{shape.config.stem} {shape.dtype} {name}"
            print(f"{label}, round {round_number}: {result['tokens_per_second']:.0f} tok/s", file=sys.stderr)
            if options.out:
                line = {"measured": label, "round": round_number, "command": command, **result}
                with options.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    return results


def row(shape: Shape, name: str, ours: list[dict], theirs: list[dict]) -> str:
    def median(results: list[dict], key: str) -> float:
        return statistics.median(result[key] for result in results)

    speeds = [median(side, "tokens_per_second") for side in (ours, theirs)]
    peaks = [median(side, "peak_rss_bytes") for side in (ours, theirs)]
    cells = [
        shape.config.stem,
        shape.dtype,
        name,
        *(f"{speed:,.0f}" for speed in speeds),
        f"{speeds[0] / speeds[1]:.2f} ×",
        *(f"{peak / 1e9:.2f}" for peak in peaks),
        f"{100 * peaks[0] / peaks[1]:.0f} %",
    ]
    return f"| {' | '.join(cells)} |"


def table(results: dict[Shape, dict[str, list[dict]]]) -> list[str]:
    lines = [
        "| model | weights | work | connito tok/s | transformers tok/s | speed | connito GB | transformers GB | memory |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for shape, measured in results.items():
        for name in (*OPTIMIZERS, "forward"):
            ours = measured["connito forward" if name == "forward" else "connito train"]
            lines.append(row(shape, name, ours, measured[f"transformers {name}"]))
    return lines


def main() -> None:
    options = parse()
    shapes = [
        Shape(config, dtype) for config in options.config or CONFIGS for dtype in options.dtype or ("f32", "bf16")
    ]
    results = {shape: measure_all(options, shape) for shape in shapes}
    versions = results[shapes[0]]["transformers forward"][0]["versions"]
    print(
        f"Medians of {options.rounds} processes a side in turns, {options.steps} timed steps each: "
        f"{options.batch} × {options.seq} tokens, {options.threads} threads of {os.cpu_count()}, "
        f"{options.trainable} trained experts a layer; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f"; load {os.getloadavg()[0]:.1f} at the end. GB are 10⁹ bytes of peak resident memory.\n"
    )
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
