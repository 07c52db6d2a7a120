"""Writes the cases of this folder: random models as transformers saves them, with their weights,
inputs, and what they give: losses, logits, routing, and of every gradient its norm, first element
and product with fixed numbers. Float32 arithmetic, evaluation mode, on a CPU.

    python make.py FOLDER     with transformers 4.57.6 (4.52 to 4.57 are the releases to be equal to)
"""
import json
import math
import pathlib
import random
import sys

import torch
import transformers
from transformers import (
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.switch_transformers.modeling_switch_transformers import (
    SwitchTransformersTop1Router,
)

GRADIENT_TOLERANCE = 2e-5  # relative, in float32

COMMON = dict(
    vocab_size=26, d_model=8, d_kv=3, d_ff=10, num_heads=2, num_layers=4, num_decoder_layers=4,
    relative_attention_num_buckets=8, relative_attention_max_distance=16,
    decoder_start_token_id=0, dropout_rate=0.0)
SWITCH = dict(
    COMMON, num_experts=3, expert_capacity=64, router_jitter_noise=0.0,
    num_sparse_encoder_layers=2, num_sparse_decoder_layers=2)

# name: (family, configuration, rows, input length, target length, how it is saved)
CASES = {
    "switch-binds": ("switch", dict(SWITCH, expert_capacity=2), 3, 9, 7, dict(dtype=torch.bfloat16)),
    "switch-every-layer": (
        "switch",
        dict(SWITCH, num_layers=2, num_decoder_layers=3, num_sparse_encoder_layers=2,
             num_sparse_decoder_layers=3),
        2, 9, 6, dict(dtype=torch.bfloat16)),
    "switch-every-third": (
        "switch",
        dict(SWITCH, num_layers=6, num_decoder_layers=3, vocab_size=23, d_model=10, d_kv=5, d_ff=7,
             num_heads=3, num_experts=2, num_sparse_decoder_layers=1, expert_capacity=3),
        2, 11, 5, dict(dtype=torch.bfloat16, max_shard_size="7KB")),
    "switch-untied": (
        "switch",
        dict(SWITCH, num_layers=2, num_decoder_layers=2, num_sparse_encoder_layers=1,
             num_sparse_decoder_layers=1, tie_word_embeddings=False, router_bias=True),
        2, 8, 8, {}),
    "switch-sparse-encoder": (
        "switch",
        dict(SWITCH, num_layers=3, num_decoder_layers=2, num_sparse_encoder_layers=1,
             decoder_sparse_step=0, num_experts=2, router_aux_loss_coef=0.1),
        2, 12, 4, dict(safe_serialization=False, dtype=torch.bfloat16)),
    "switch-roomy": (
        "switch", dict(SWITCH, num_layers=2, num_decoder_layers=2, num_sparse_encoder_layers=1,
                       num_sparse_decoder_layers=1, num_experts=5),
        2, 9, 9, dict(dtype=torch.float16)),
    "t5-v1.0": (
        "t5", dict(COMMON, num_layers=2, num_decoder_layers=2), 2, 10, 6,
        dict(safe_serialization=False, max_shard_size="6KB")),
    "t5-v1.1": (
        "t5", dict(COMMON, num_layers=3, num_decoder_layers=2, d_kv=5, num_heads=3,
                   feed_forward_proj="gated-gelu", tie_word_embeddings=False),
        2, 11, 8, dict(dtype=torch.bfloat16)),
}


def rows_of(rng, rows, length, vocabulary, filler):
    """Random rows that end with token 1; all but the first may be shorter."""
    tokens, mask = [], []
    for row in range(rows):
        used = length if row == 0 else rng.randint(length // 2, length)
        tokens.append([rng.randint(2, vocabulary - 1) for _ in range(used - 1)] + [1])
        tokens[-1] += [filler] * (length - used)
        mask.append([1] * used + [0] * (length - used))
    return tokens, mask


def probe(name, count):
    """Numbers in [-1, 1) from a tensor's name (tests/oracle/weights.cpp has the rule)."""
    x = 2166136261
    for c in name.encode():
        x = ((x ^ c) * 16777619) & 0xFFFFFFFF
    out = []
    for _ in range(count):
        x = (1664525 * x + 1013904223) & 0xFFFFFFFF
        out.append(((x >> 8) - 2**23) / 2**23)
    return torch.tensor(out, dtype=torch.float64)


def short(x):
    return float("%.7g" % x)


def describe(name, gradient):
    flat = gradient.flatten().double()
    return {"l2": short(flat.norm().item()), "first": short(flat[0].item()),
            "product": short((flat * probe(name, flat.numel())).sum().item())}


def make(name, family, keys, rows, inputs, targets, saving, folder, seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    switch = family == "switch"
    config = SwitchTransformersConfig(**keys) if switch else T5Config(**keys)
    kind = SwitchTransformersForConditionalGeneration if switch else T5ForConditionalGeneration
    model = kind(config)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "norm" in key:
                weight.mul_(1 + 0.3 * torch.rand_like(weight))
            if key.endswith("classifier.bias"):
                weight.normal_(std=0.3)
    saving = dict(saving)
    dtype = saving.pop("dtype", torch.float32)
    model.to(dtype).save_pretrained(folder, **saving)
    (folder / "generation_config.json").unlink()
    model = model.float().eval()  # the values that were saved

    margins, routing = [], {}

    def watch(router_name):
        def hook(module, arguments, output):
            chosen, _, logits = output
            best = torch.sort(logits, dim=-1, descending=True).values
            margins.append((best[..., 0] - best[..., 1]).min().item())
            kept = chosen.sum(-1)
            routing[router_name] = [
                [int(e) if k else -1 - int(e) for e, k in zip(*row)]
                for row in zip(logits.argmax(-1).tolist(), kept.tolist())]
        return hook

    for key, module in model.named_modules():
        if isinstance(module, SwitchTransformersTop1Router):
            module.register_forward_hook(watch(key))
    ids, mask = rows_of(rng, rows, inputs, config.vocab_size, 0)
    labels, _ = rows_of(rng, rows, targets, config.vocab_size, -100)
    batch = dict(input_ids=ids, attention_mask=mask, labels=labels)
    extra = dict(output_router_logits=True) if switch else {}
    out = model(**{k: torch.tensor(v) for k, v in batch.items()}, **extra)
    if margins and min(margins) < 2e-3:
        return False  # rounding could choose another expert
    out.loss.backward()
    expected = dict(
        reference=f"transformers {transformers.__version__}, torch {torch.__version__}, float32",
        gradient_tolerance=GRADIENT_TOLERANCE,
        loss=out.loss.item(),
        cross_entropy=torch.nn.functional.cross_entropy(
            out.logits.flatten(0, 1), torch.tensor(labels).flatten(), ignore_index=-100).item())
    if switch:
        for key in ("encoder_z_loss", "decoder_z_loss", "encoder_aux_loss", "decoder_aux_loss"):
            value = getattr(out, key)
            expected[key] = value.item() if hasattr(value, "item") else None
    expected["logits"] = [[[short(x) for x in r] for r in b] for b in out.logits.tolist()]
    expected["routing"] = routing
    gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    expected["gradients"] = {k: describe(k, g) for k, g in gradients.items()}
    expected["gradient_l2"] = math.sqrt(sum(g.double().pow(2).sum().item() for g in gradients.values()))
    expected["parameters"] = sum(p.numel() for p in model.parameters())
    (folder / "inputs.json").write_text(json.dumps(batch, separators=(",", ":")))
    (folder / "expected.json").write_text(json.dumps(expected, separators=(",", ":")))
    dropped = sum(e < 0 for plan in routing.values() for row in plan for e in row)
    print(f"{name}: seed {seed}, loss {expected['loss']:.5f}, {expected['parameters']} parameters, "
          f"{dropped} dropped, margin {min(margins) if margins else math.inf:.4f}")
    return True


for index, (name, case) in enumerate(CASES.items()):
    folder = pathlib.Path(sys.argv[1]) / name
    for attempt in range(200):
        for old in folder.glob("*"):
            old.unlink()
        if make(name, *case, folder, 100 * index + attempt):
            break
