"""Our training step beside Hugging Face's on the same cores: rounds that alternate, ratios of medians.

    tests/peers/run [PRESET...] [--experts E] [--dtype fp32|bf16] [--rounds N] [--steps N] [--json FILE]

Every round runs each variant of the peer for --steps steps and then sw-bench for as many, so that a
neighbour's noise meets both. Prints a Markdown table; the last column is ours over the best of the peer.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tomllib

import torch
import transformers
from hugging_face import Peer, Shape


def sw_bench(arguments, *more):
    command = [arguments.sw_bench, "--threads", str(arguments.threads), *more]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return result.stdout


def model_options(preset, experts):
    options = ["--preset", preset]
    return options + (["--experts", str(experts)] if experts is not None else [])


def read_shape(arguments, options):
    config = tomllib.loads(sw_bench(arguments, *options, "--print-config=all"))
    figures = json.loads(sw_bench(arguments, *options, "--steps", "1", "--warmup", "0", "--json"))
    return Shape(
        model=config["model"],
        vocab_size=figures["vocab_size"],
        batch=figures["batch"],
        input_length=figures["input_length"],
        target_length=figures["target_length"],
    )


class Comparison:
    """One preset in the given dtypes."""

    def __init__(self, arguments, preset, experts):
        self.arguments = arguments
        self.options = model_options(preset, experts)
        self.name = preset if experts is None else f"{preset} --experts {experts}"
        self.shape = read_shape(arguments, self.options)
        self.peer = Peer(self.shape, arguments.threads)
        self.seconds = {}  # (dtype, variant) -> of each step
        self.shares = {}  # dtype -> share of peak of each round
        self.failures = {}  # (dtype, variant) -> why it cannot run

    def warm_up(self, dtype, compiled):
        key = (dtype, "compiled" if compiled else "eager")
        try:
            for _ in range(3):
                self.peer.step(dtype, compiled)
            self.seconds[key] = []
        except Exception as error:  # whatever the peer throws is its result
            self.failures[key] = str(error).strip().splitlines()[0][:200]
            print(f"{self.name} {dtype} {key[1]}: {self.failures[key]}", file=sys.stderr)

    def run(self):
        dtypes = self.arguments.dtype or ["fp32", "bf16"]
        for dtype in dtypes:
            for compiled in (False,) if self.arguments.eager else (False, True):
                self.warm_up(dtype, compiled)
        for _ in range(self.arguments.rounds):
            for dtype in dtypes:
                for compiled in (False, True):
                    key = (dtype, "compiled" if compiled else "eager")
                    if key in self.seconds:
                        self.seconds[key] += [
                            self.peer.step(dtype, compiled) for _ in range(self.arguments.steps)
                        ]
                self.run_ours(dtype)

    def run_ours(self, dtype):
        figures = json.loads(
            sw_bench(self.arguments, *self.options, "--dtype", dtype, "--steps", str(self.arguments.steps), "--json")
        )
        self.seconds.setdefault((dtype, "ours"), []).append(figures["step_seconds"])
        self.shares.setdefault(dtype, []).append(figures["share_of_peak"])

    def rows(self):
        for dtype, shares in self.shares.items():
            speed = {
                variant: self.shape.tokens / statistics.median(seconds)
                for (its_dtype, variant), seconds in self.seconds.items()
                if its_dtype == dtype
            }
            peers = {variant: value for variant, value in speed.items() if variant != "ours"}
            share = statistics.median(shares)
            yield {
                "model": self.name,
                "dtype": dtype,
                "ours": speed["ours"],
                "share_of_peak": share,
                "eager": peers.get("eager"),
                "compiled": peers.get("compiled"),
                "peer_share_of_peak": share * max(peers.values()) / speed["ours"] if peers else None,
                "ratio": speed["ours"] / max(peers.values()) if peers else None,
                "failures": {v: why for (d, v), why in self.failures.items() if d == dtype},
            }


def table(rows):
    def figure(value, form):
        return "failed" if value is None else format(value, form)

    lines = [
        "| model | dtype | ours, tokens/s | share of peak | peer eager | peer compiled | its best share | ratio |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| `{row['model']}` | {row['dtype']} | {row['ours']:,.0f} | {row['share_of_peak']:.1%} "
            f"| {figure(row['eager'], ',.0f')} | {figure(row['compiled'], ',.0f')} "
            f"| {figure(row['peer_share_of_peak'], '.1%')} | {figure(row['ratio'], '.2f')} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", default=["mini", "switch-base-8-cut"])
    parser.add_argument("--sw-bench", required=True, help="the program to compare")
    parser.add_argument("--experts", type=int, action="append", help="0: the dense twin; default: preset's own and 0")
    parser.add_argument("--dtype", action="append", choices=["fp32", "bf16"], help="default: both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of each variant in a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out, which takes minutes to start")
    parser.add_argument("--json", help="write the rows there, too")
    arguments = parser.parse_args()
    rows = []
    for preset in arguments.presets:
        for experts in arguments.experts or [None, 0]:
            comparison = Comparison(arguments, preset, experts)
            comparison.run()
            latest = list(comparison.rows())
            rows += latest
            print(table(latest), file=sys.stderr)
    print(f"transformers {transformers.__version__}, PyTorch {torch.__version__}, {arguments.threads} threads, "
          f"{platform.machine()}; medians of {arguments.rounds} rounds of {arguments.steps} steps\n")
    print(table(rows))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
