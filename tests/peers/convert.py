"""Whether transformers loads what sw-convert writes: for each case of tests/golden/hugging-face-weights,
folder to checkpoint and back, the folder that comes back must give every tensor and every logit of the
one that went in, and load without a complaint.

    convert.py --sw-convert build/release/bin/sw-convert CASE...
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, logging

logging.set_verbosity_error()


def load(folder, dtype="auto"):
    model, report = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    # An untied Switch model that transformers 4 saved itself lacks what it ties only when it is tied.
    missing = {k for k in report["missing_keys"] if not k.endswith("embed_tokens.weight")}
    complaints = missing | set(report["unexpected_keys"]) | set(report["mismatched_keys"])
    if "encoder.embed_tokens.weight" in report["missing_keys"]:
        for stack in (model.encoder, model.decoder):
            stack.embed_tokens.weight = model.shared.weight
    return model, sorted(complaints), report["missing_keys"]


def logits(folder, inputs):
    model, _, _ = load(folder, torch.float32)
    batch = {k: torch.tensor(v) for k, v in inputs.items()}
    with torch.no_grad():
        return model.eval()(**batch).logits


def check(case, convert):
    inputs = json.loads((case / "inputs.json").read_text())
    with tempfile.TemporaryDirectory() as temporary:
        back = pathlib.Path(temporary) / "back"
        for source, target in ((case, f"{temporary}/m.h5"), (f"{temporary}/m.h5", back)):
            subprocess.run([convert, "-q", "--check", source, target], check=True,
                           stdout=subprocess.DEVNULL)
        faults = []
        before, _, _ = load(case)
        after, complaints, missing = load(back)
        if complaints or missing:
            faults.append(f"complaints: {complaints} {sorted(missing)}")
        before, after = dict(before.state_dict()), dict(after.state_dict())
        if before.keys() != after.keys():
            faults.append(f"other names: {sorted(before.keys() ^ after.keys())}")
        for name in before.keys() & after.keys():
            if not torch.equal(before[name].float(), after[name].float()):
                faults.append(f"other values: {name}")
        expected, got = logits(case, inputs), logits(back, inputs)
        if (expected - got).abs().max() > 1e-6 * expected.abs().max():  # threads sum as they come
            faults.append("other logits")
        old, new = AutoConfig.from_pretrained(case).to_dict(), AutoConfig.from_pretrained(back).to_dict()
        differing = [k for k in old if old[k] != new.get(k) and k not in ("dtype", "_name_or_path")]
        if differing:
            faults.append(f"other configuration: {differing}")
    print(f"{'FAIL' if faults else 'ok  '} {case.name}  {len(before)} tensors", *faults, sep="\n     " if faults else "")
    return not faults


parser = argparse.ArgumentParser()
parser.add_argument("--sw-convert", required=True)
parser.add_argument("cases", nargs="+", type=pathlib.Path)
arguments = parser.parse_args()
results = [check(case, arguments.sw_convert) for case in arguments.cases]
sys.exit(0 if all(results) else 1)
