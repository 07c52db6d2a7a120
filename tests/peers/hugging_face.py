"""Training steps of Hugging Face's SwitchTransformers and T5 at the shapes of a preset of ours.

One model is shared by all variants (fp32 and bf16 autocast, eager and compiled), so that they see the
same weights and take the memory of one.
"""

import contextlib
import time
from dataclasses import dataclass

import torch
import transformers

TOKENS_BELOW_SENTINELS = 100


@dataclass
class Shape:
    """What `sw-bench --print-config=all` and `sw-bench --json` say of a run."""

    model: dict  # the [model] table
    vocab_size: int
    batch: int
    input_length: int
    target_length: int

    @property
    def tokens(self):
        return self.batch * (self.input_length + self.target_length)


def build_model(shape):
    """A Switch model, or T5 where the preset has no experts; dropout as the preset says."""
    m = shape.model
    common = dict(
        vocab_size=shape.vocab_size,
        d_model=m["d_model"],
        d_kv=m["d_kv"],
        d_ff=m["d_ff"],
        num_layers=m["encoder_layers"],
        num_decoder_layers=m["decoder_layers"],
        num_heads=m["heads"],
        relative_attention_num_buckets=m["relative_buckets"],
        relative_attention_max_distance=m["relative_max_distance"],
        dropout_rate=m["dropout"],
        layer_norm_epsilon=m["norm_epsilon"],
        tie_word_embeddings=m["tied_embeddings"],
        decoder_start_token_id=0,
        pad_token_id=0,
        use_cache=False,
    )
    torch.manual_seed(0)
    if m["experts"] == 0:
        kind = "relu" if m["activation"] == "relu" else "gated-gelu"
        return transformers.T5ForConditionalGeneration(transformers.T5Config(feed_forward_proj=kind, **common))
    every = m["expert_every"]
    # One capacity serves encoder and decoder there; it is that of the encoder's rows.
    capacity = round(m["capacity_factor"] * shape.input_length / m["experts"])
    config = transformers.SwitchTransformersConfig(
        num_experts=m["experts"],
        num_sparse_encoder_layers=m["encoder_layers"] // every,
        num_sparse_decoder_layers=m["decoder_layers"] // every,
        expert_capacity=max(capacity, m["min_capacity"]),
        router_jitter_noise=m["jitter"],
        router_aux_loss_coef=m["aux_loss"],
        router_z_loss_coef=m["z_loss"],
        **common,
    )
    return transformers.SwitchTransformersForConditionalGeneration(config)


def fastest_optimizer(model):
    """Adafactor of transformers or of PyTorch, whichever steps faster here. Needs gradients."""
    candidates = [
        lambda p: transformers.optimization.Adafactor(
            p, lr=0.01, scale_parameter=True, relative_step=False, warmup_init=False
        ),
        lambda p: torch.optim.Adafactor(p, lr=0.01),
    ]
    best = None
    for make in candidates:
        optimizer = make(model.parameters())
        optimizer.step()  # allocates its state
        seconds = min(timed(optimizer.step) for _ in range(3))
        if best is None or seconds < best[0]:
            best = (seconds, optimizer)
    return best[1]


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class Peer:
    """Training steps on random text. `step(dtype, compiled)` returns the seconds of one step."""

    def __init__(self, shape, threads):
        torch.set_num_threads(threads)
        self.shape = shape
        self.model = build_model(shape).train()
        self.compiled_model = torch.compile(self.model)
        self.generator = torch.Generator().manual_seed(0)
        self.loss("fp32", False).backward()
        self.optimizer = fastest_optimizer(self.model)
        self.optimizer.zero_grad(set_to_none=True)

    def random_tokens(self, length):
        top = self.shape.vocab_size - TOKENS_BELOW_SENTINELS
        return torch.randint(3, top, (self.shape.batch, length), generator=self.generator)

    def loss(self, dtype, compiled):
        precision = torch.autocast("cpu", torch.bfloat16) if dtype == "bf16" else contextlib.nullcontext()
        model = self.compiled_model if compiled else self.model
        options = {"output_router_logits": True} if self.shape.model["experts"] else {}
        with precision:
            return model(
                input_ids=self.random_tokens(self.shape.input_length),
                labels=self.random_tokens(self.shape.target_length),
                **options,
            ).loss

    def step(self, dtype, compiled):
        def whole_step():
            loss = self.loss(dtype, compiled)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            value = loss.item()
            if value != value:
                raise FloatingPointError(f"the peer's loss is {value}")

        return timed(whole_step)
