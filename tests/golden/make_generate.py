#!/usr/bin/env python3
"""Answers of Hugging Face's generate, for tests/generate/hugging_face_test.cpp.

    make_generate.py FOLDER        writes FOLDER/<case>.json; needs transformers 4.57.6, torch, numpy

Weights follow from the tensors' names (tests/oracle/oracle.h), so none are stored. A case holds the model's
configuration and, for greedy search and a beam of 4 with several length penalties, the answers to 20 prompts.
Prompts are kept only where the answer is well-conditioned: the same in float64, and with every weight changed by
up to 2e-5 of itself.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import (GenerationConfig, SwitchTransformersConfig, SwitchTransformersForConditionalGeneration,
                          T5Config, T5ForConditionalGeneration, __version__)

PROMPTS, LONGEST, NEW_TOKENS = 20, 14, 20
PERTURBATION = 2e-5


def lcg(name, count):
    """The numbers of a tensor: x = 1664525 x + 1013904223 from FNV-1a of its name, as t in [-1, 1)."""
    x = 2166136261
    for byte in name.encode():
        x = ((x ^ byte) * 16777619) & 0xFFFFFFFF
    out = np.empty(count)
    for i in range(count):
        x = (1664525 * x + 1013904223) & 0xFFFFFFFF
        out[i] = ((x >> 8) - 2**23) / 2**23
    return out


def value(name, t, scale):
    if "norm" in name:
        return 1 + np.floor(256 * t) / 2048
    if name in ("shared.weight", "lm_head.weight") or "relative_attention_bias" in name:
        return t
    if "classifier" in name:
        return t * scale
    return (t / 4 if ".q." in name else t / 2) * scale


def build(case, dtype, noise=None):
    config = dict(case["config"])
    switch = config.pop("model_type") == "switch_transformers"
    config["use_cache"] = True
    if switch:
        model = SwitchTransformersForConditionalGeneration(SwitchTransformersConfig(**config))
    else:
        model = T5ForConditionalGeneration(T5Config(**config))
    model = model.to(dtype).eval()
    tied = config.get("tie_word_embeddings", True)
    aliases = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"} | ({"lm_head.weight"} if tied else set())
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in aliases:
                continue
            x = value(name, lcg(case["prefix"] + name, tensor.numel()), case["scale"]).astype(np.float32)
            x = x.astype(np.float64)
            if noise is not None:
                x *= 1 + PERTURBATION * noise.uniform(-1, 1, x.shape)
            tensor.copy_(torch.from_numpy(x).reshape(tensor.shape).to(dtype))
    return model


def answers(model, prompts, search):
    longest = max(map(len, prompts))
    ids = torch.tensor([p + [0] * (longest - len(p)) for p in prompts])
    mask = torch.tensor([[1] * len(p) + [0] * (longest - len(p)) for p in prompts])
    config = GenerationConfig(max_new_tokens=NEW_TOKENS, num_beams=search["beam"], do_sample=False, early_stopping=False,
                              length_penalty=search["length_penalty"], decoder_start_token_id=0, eos_token_id=1,
                              pad_token_id=0, output_scores=True, return_dict_in_generate=True)
    with torch.no_grad():
        out = model.generate(ids, attention_mask=mask, generation_config=config)
    tokens = []
    for row in out.sequences.tolist():
        row = row[1:]
        # Padding after the end, or after the longest of a beam's unfinished ones.
        tokens.append(row[: row.index(1) + 1] if 1 in row else row)
    scores = out.sequences_scores.tolist() if search["beam"] > 1 else None
    return tokens, scores


def candidates(vocabulary, seed):
    random = np.random.default_rng(seed)
    while True:
        length = int(random.integers(0, LONGEST))
        yield random.integers(2, vocabulary, length).tolist() + [1]


def choose_prefix(case):
    """Random models tend to repeat themselves. Of some sets of weights, the one with the most varied answers."""
    best = None
    for prefix in "abcdefghijklmnopqrstuvwxyz":
        model = build({**case, "prefix": prefix}, torch.float32)
        source = candidates(case["config"]["vocab_size"], 1)
        prompts = [next(source) for _ in range(40)]
        merit = 0
        for search in case["searches"][:2]:
            tokens, _ = answers(model, prompts, search)
            ended = np.mean([t[-1] == 1 for t in tokens])
            merit += np.mean([len(set(t)) / len(t) for t in tokens]) + 3 * min(ended, 0.5)
            merit += len({tuple(t) for t in tokens}) / len(tokens)
        if best is None or merit > best[0]:
            best = (merit, prefix)
    return best[1]


def make(case):
    models = {"f32": build(case, torch.float32), "f64": build(case, torch.float64)}
    for i in range(2):
        models[f"near{i}"] = build(case, torch.float64, np.random.default_rng(i))
    out = {"origin": f"transformers {__version__}, torch {torch.__version__.split('+')[0]}, float32",
           **case, "max_length": NEW_TOKENS, "searches": []}
    for search in case["searches"]:
        kept, tried = [], 0
        source = candidates(case["config"]["vocab_size"], 1)
        while len(kept) < PROMPTS:
            batch = [next(source) for _ in range(PROMPTS)]
            tried += len(batch)
            got = {name: answers(model, batch, search) for name, model in models.items()}
            for i, prompt in enumerate(batch):
                answer = got["f32"][0][i]
                varied = len(set(answer)) >= 4 or answer[-1] == 1 or tried > 10 * PROMPTS
                same = all(got[name][0][i] == answer for name in got)
                if same and varied and len(kept) < PROMPTS:
                    kept.append((prompt, got["f32"][0][i], got["f32"][1][i] if got["f32"][1] else None))
        # As one padded batch, which must not matter.
        again = answers(models["f32"], [k[0] for k in kept], search)[0]
        if again != [k[1] for k in kept]:
            raise SystemExit(f"{case['name']}: answers depend on the batch")
        ended = sum(k[1][-1] == 1 for k in kept)
        distinct = len({tuple(k[1]) for k in kept})
        different = np.mean([len(set(k[1])) / len(k[1]) for k in kept])
        print(f"{case['name']} {search}: {tried} tried, {distinct} distinct answers, {ended} ended, "
              f"{different:.2f} of an answer's tokens distinct", file=sys.stderr)
        entry = {**search, "prompts": [k[0] for k in kept], "answers": [k[1] for k in kept]}
        if search["beam"] > 1:
            entry["scores"] = [round(k[2], 7) for k in kept]
        out["searches"].append(entry)
    return out


SEARCHES = [{"beam": 1, "length_penalty": 1.0}, {"beam": 4, "length_penalty": 1.0}, {"beam": 4, "length_penalty": 0.0},
            {"beam": 4, "length_penalty": 2.0}]
SIZES = {"vocab_size": 48, "d_model": 24, "d_kv": 6, "d_ff": 36, "num_heads": 3, "num_layers": 3, "num_decoder_layers": 3,
         "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16, "dropout_rate": 0.0,
         "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
SWITCH = {**SIZES, "model_type": "switch_transformers", "num_experts": 4, "router_jitter_noise": 0.0,
          "encoder_sparse_step": 2, "decoder_sparse_step": 2}
CASES = [
    {"name": "switch", "config": {**SWITCH, "expert_capacity": 1000}},
    {"name": "switch-every-layer", "config": {**SWITCH, "encoder_sparse_step": 1, "decoder_sparse_step": 1, "d_kv": 10,
                                              "expert_capacity": 1000, "tie_word_embeddings": False}},
    {"name": "switch-capacity-binds", "config": {**SWITCH, "expert_capacity": 2}},
    {"name": "t5-v1.0", "config": {**SIZES, "model_type": "t5", "feed_forward_proj": "relu"}},
    {"name": "t5-v1.1", "config": {**SIZES, "model_type": "t5", "feed_forward_proj": "gated-gelu",
                                   "tie_word_embeddings": False}},
    {"name": "t5-gated-silu", "config": {**SIZES, "model_type": "t5", "feed_forward_proj": "gated-silu"}},
    {"name": "switch-gelu", "config": {**SWITCH, "dense_act_fn": "gelu", "expert_capacity": 1000}},
]


def main():
    folder = Path(sys.argv[1])
    scale = 2.0
    folder.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        case = {**case, "scale": scale, "searches": SEARCHES}
        made = make({**case, "prefix": choose_prefix(case)})
        (folder / f"{case['name']}.json").write_text(json.dumps(made, separators=(",", ":")) + "\n")


main()
