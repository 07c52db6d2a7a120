#!/usr/bin/env python3
"""Reads the events of a run folder with TensorBoard's own reader and compares them with metrics.jsonl.

    tests/tensorboard/read.py RUN     exit code 77 without the package tensorboard
"""
import json
import math
import sys

try:
    from tensorboard.backend.event_processing import event_accumulator
except ImportError as error:
    print(f"skipped: {error}; pip install tensorboard")
    sys.exit(77)

run = sys.argv[1]
everything = {event_accumulator.SCALARS: 0, event_accumulator.HISTOGRAMS: 0}
events = event_accumulator.EventAccumulator(run + "/tensorboard", size_guidance=everything)
events.Reload()

expected = {}
for line in open(run + "/metrics.jsonl"):
    row = json.loads(line)
    if row["kind"] == "event":
        continue
    prefix = "train" if row["kind"] == "train" else "eval/" + row["data"]
    for key, value in row.items():
        if key not in ("step", "time") and isinstance(value, (int, float)):
            expected.setdefault(f"{prefix}/{key}", []).append((row["step"], value))

read = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
assert read.keys() == expected.keys(), read.keys() ^ expected.keys()
for tag, rows in expected.items():
    assert [step for step, _ in rows] == [step for step, _ in read[tag]], tag
    for (step, value), (_, got) in zip(rows, read[tag]):
        assert math.isclose(value, got, rel_tol=1e-6, abs_tol=1e-12), (tag, step, value, got)

histograms = events.Tags()["histograms"]
assert histograms, "no histograms"
for tag in histograms:
    for event in events.Histograms(tag):
        h = event.histogram_value
        assert math.isclose(sum(h.bucket), h.num), (tag, event.step)
        assert math.isclose(h.sum, h.num, rel_tol=1e-9), (tag, event.step)  # the mean load is 1
print(f"{len(read)} scalars and {len(histograms)} histograms as in metrics.jsonl")
