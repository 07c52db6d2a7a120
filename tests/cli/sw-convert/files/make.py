"""Writes tiny/, a random Switch Transformer as transformers 4.57.6 saves it."""
import torch
from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration

torch.manual_seed(1)
config = SwitchTransformersConfig(
    vocab_size=40, d_model=8, d_kv=4, d_ff=12, num_heads=2, num_layers=2, num_decoder_layers=2,
    num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, num_experts=3,
    relative_attention_num_buckets=8, relative_attention_max_distance=16, decoder_start_token_id=0)
SwitchTransformersForConditionalGeneration(config).to(torch.bfloat16).save_pretrained("tiny")
