"""Generation beside Hugging Face's generate, and CTranslate2 where it is installed, on the same cores: rounds that
alternate, ratios of medians.

    tests/peers/run_generate [PRESET...] [--batch N] [--beam N] [--dtype fp32|bf16] [--rounds N] [--json FILE]

Models have random weights of the preset's shape, prompts are random, and every answer has --max-length tokens.
tokens/s counts the answers' tokens over the whole call, encoder included. With --cpu-time it is one thread and the
processor's time that counts, which other work on the machine hardly touches. Prints a Markdown table.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib

import torch
import transformers
from hugging_face import Shape, build_model

CLOCK = time.perf_counter
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def read_shape(arguments, options):
    config = tomllib.loads(
        subprocess.run([arguments.bench, *options, "--print-config=all"], stdout=subprocess.PIPE, text=True, check=True).stdout
    )
    model = config["model"]
    # The library's experts drop what is over their capacity; here they shall serve all.
    model["capacity_factor"] = 1e6
    return Shape(model=model, vocab_size=32128, batch=1, input_length=arguments.prompt_length, target_length=1)


class HuggingFace:
    def __init__(self, shape):
        self.model = build_model(shape).eval()
        self.vocab_size = shape.vocab_size

    def run(self, batch, beam, dtype, prompt_length, max_length):
        self.model.to(DTYPES[dtype])
        torch.manual_seed(1)
        ids = torch.randint(2, self.vocab_size, (batch, prompt_length))
        config = transformers.GenerationConfig(
            max_new_tokens=max_length, min_new_tokens=max_length, num_beams=beam, do_sample=False, use_cache=True,
            decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
        )
        begin = CLOCK()
        with torch.inference_mode():
            out = self.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        seconds = CLOCK() - begin
        return batch * (out.shape[1] - 1) / seconds


KINDS = {"fp32": "float32", "bf16": "bfloat16"}


class CTranslate2:
    """Of the T5 that HuggingFace holds."""

    def __init__(self, peer, threads):
        import ctranslate2

        self.threads = threads
        self.ctranslate2 = ctranslate2
        self.vocab_size = peer.vocab_size
        self.folder = tempfile.TemporaryDirectory()
        source = os.path.join(self.folder.name, "hf")
        peer.model.to(torch.float32).save_pretrained(source)
        vocabulary = ["<pad>", "</s>", "<unk>"] + [f"t{i}" for i in range(3, peer.vocab_size)]
        with open(os.path.join(source, "tokens.json"), "w") as file:
            json.dump(vocabulary, file)
        self.source, self.vocabulary = source, vocabulary
        self.translators = {}

    def computes(self, dtype):
        """Not every processor of every release multiplies in bf16."""
        return KINDS[dtype] in self.ctranslate2.get_supported_compute_types("cpu")

    def translator(self, dtype):
        if dtype not in self.translators:
            kind = KINDS[dtype]
            target = os.path.join(self.folder.name, kind)
            converter = self.ctranslate2.converters.TransformersConverter(self.source)
            tokens = self.vocabulary

            class Tokens:
                pass

            # All that the converter asks a tokenizer for.
            tokenizer = Tokens()
            tokenizer.get_vocab = lambda: {token: i for i, token in enumerate(tokens)}
            tokenizer.convert_ids_to_tokens = lambda i: tokens[i]
            tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<unk>", None, "</s>", "<pad>"
            converter.load_tokenizer = lambda *args, **kwargs: tokenizer
            converter.convert(target, quantization=kind, force=True)
            self.translators[dtype] = self.ctranslate2.Translator(
                target, device="cpu", compute_type=kind, inter_threads=1, intra_threads=self.threads
            )
        return self.translators[dtype]

    def run(self, batch, beam, dtype, prompt_length, max_length):
        translator = self.translator(dtype)
        torch.manual_seed(1)
        ids = torch.randint(3, self.vocab_size, (batch, prompt_length)).tolist()
        prompts = [[self.vocabulary[i] for i in row] for row in ids]
        begin = CLOCK()
        out = translator.translate_batch(
            prompts, beam_size=beam, max_decoding_length=max_length, min_decoding_length=max_length
        )
        seconds = CLOCK() - begin
        return sum(len(result.hypotheses[0]) for result in out) / seconds


def ours(arguments, options, batch, beam, dtype):
    command = [
        arguments.bench, "-q", *options, "--threads", str(arguments.threads), "--batch", str(batch), "--beam", str(beam),
        "--dtype", dtype, "--prompt-length", str(arguments.prompt_length), "--max-length", str(arguments.max_length),
        "--rounds", "2",
    ]
    figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return figures["tokens_per_cpu_second" if arguments.cpu_time else "tokens_per_second"]


def compare(arguments, preset):
    name, _, experts = preset.partition(":")
    options = ["--preset", name] + (["--experts", experts] if experts else [])
    shape = read_shape(arguments, options)
    peers = {"Hugging Face": HuggingFace(shape)}
    if shape.model["experts"] == 0 and arguments.ctranslate2:
        peers["CTranslate2"] = CTranslate2(peers["Hugging Face"], arguments.threads)
    for dtype in arguments.dtype or ["fp32", "bf16"]:
        for batch in arguments.batch or [1, 16]:
            for beam in arguments.beam or [1]:
                rates = {}
                for round_number in range(arguments.rounds + 1):
                    for peer, model in peers.items():
                        if peer == "CTranslate2" and not model.computes(dtype):
                            continue
                        rate = model.run(batch, beam, dtype, arguments.prompt_length, arguments.max_length)
                        if round_number > 0:  # the first is to get warm
                            rates.setdefault(peer, []).append(rate)
                    if round_number > 0:
                        rates.setdefault("ours", []).append(ours(arguments, options, batch, beam, dtype))
                yield {"model": preset, "dtype": dtype, "batch": batch, "beam": beam,
                       **{who: statistics.median(values) for who, values in rates.items()}}


def table(rows):
    lines = ["| model | dtype | batch | beam | ours, tokens/s | Hugging Face | ratio | CTranslate2 | ratio |",
             "|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for row in rows:
        cells = []
        for peer in ("Hugging Face", "CTranslate2"):
            cells += [f"{row[peer]:,.1f}", f"{row['ours'] / row[peer]:.2f}"] if peer in row else ["", ""]
        lines.append(f"| `{row['model']}` | {row['dtype']} | {row['batch']} | {row['beam']} | {row['ours']:,.1f} | "
                     + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", default=["mini", "switch-base-8"], help="NAME or NAME:EXPERTS")
    parser.add_argument("--bench", required=True, help="bench_generate, the program to compare")
    parser.add_argument("--batch", type=int, action="append", help="default: 1 and 16")
    parser.add_argument("--beam", type=int, action="append", help="default: 1")
    parser.add_argument("--dtype", action="append", choices=["fp32", "bf16"], help="default: both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt-length", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ctranslate2", action="store_true", help="for dense models, beside CTranslate2 too")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, and tokens per second of its time")
    parser.add_argument("--json", help="write the rows there, too")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        global CLOCK
        CLOCK, arguments.threads = time.process_time, 1
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    rows = []
    for preset in arguments.presets:
        for row in compare(arguments, preset):
            rows.append(row)
            print(table([row]).splitlines()[-1], file=sys.stderr)
    print(f"transformers {transformers.__version__}, PyTorch {torch.__version__}, {arguments.threads} threads, "
          f"{platform.processor() or platform.machine()}; prompts of {arguments.prompt_length} tokens, answers of "
          f"{arguments.max_length}{', per second of processor time' if arguments.cpu_time else ''}\n")
    print(table(rows))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
