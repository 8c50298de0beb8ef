"""Tiny GGUF files of random models."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import torch

WIDTH, INNER, LAYERS = 64, 96, 2
WORDS = ["<end>", *"0123456789", *"abcdefghijklmnopqrstuvwxyz", ":", ",", "ab"]
FFN = {"ffn_norm": (WIDTH,), "ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
ATTENTION = {"attn_norm": (WIDTH,)} | dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (WIDTH, WIDTH))
CONVOLUTION = {
    "attn_norm": (WIDTH,), "shortconv.conv": (WIDTH, 3), "shortconv.in_proj": (3 * WIDTH, WIDTH), "shortconv.out_proj": (WIDTH, WIDTH),
}  # fmt: skip
OUTSIDE = {"token_embd": (len(WORDS), WIDTH), "output": (len(WORDS), WIDTH)}
SHAPES = {
    "llama": OUTSIDE | {"output_norm": (WIDTH,)} | {f"blk.{i}.{n}": shape for i in range(2) for n, shape in (ATTENTION | FFN).items()},
    "lfm2": OUTSIDE
    | {"token_embd_norm": (WIDTH,), "blk.1.attn_q_norm": (16,), "blk.1.attn_k_norm": (16,)}
    | {f"blk.0.{name}": shape for name, shape in (CONVOLUTION | FFN).items()}
    | {f"blk.1.{name}": shape for name, shape in (ATTENTION | FFN).items()},
}
"""What llama.cpp calls the tensors. transformers reads a Llama by its older way, which always unpacks, and an LFM2 by its newer one."""
NAMES = {
    "llama": {"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj"}
    | {f"ffn_{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
    "lfm2": {f"attn_{name}": f"self_attn.{name}_proj" for name in "qkv"}
    | {"attn_output": "self_attn.out_proj", "shortconv.in_proj": "conv.in_proj", "shortconv.out_proj": "conv.out_proj"}
    | {"ffn_gate": "feed_forward.w1", "ffn_up": "feed_forward.w3", "ffn_down": "feed_forward.w2"},
}
"""What transformers calls their modules, without the queries and keys of a Llama, whose rows llama.cpp orders in another way."""


def write(file: Path, kind: str = "Q4_0", architecture: str = "llama", *, without: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """Writes a model whose matrices are quantised to ``kind``, and returns what they are once they are unpacked, by their names there.

    Args:
        without: names of tensors to leave out.
    """
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_file_type(getattr(gguf.LlamaFileType, f"MOSTLY_{kind}", gguf.LlamaFileType.ALL_F32))
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(4)
    writer.add_head_count_kv(4 if architecture == "llama" else [0, 4])
    writer.add_vocab_size(len(WORDS))
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    if architecture == "lfm2":
        writer.add_shortconv_l_cache(3)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("lfm2")
    writer.add_token_list(WORDS)
    writer.add_token_types([1] * len(WORDS))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    random, packing, unpacked = np.random.default_rng(0), gguf.GGMLQuantizationType[kind], {}
    for name, shape in SHAPES[architecture].items():
        values = (random.standard_normal(shape) * 0.1 + (len(shape) == 1)).astype(np.float32)
        if name in without:
            continue
        if len(shape) == 1 or kind == "F32" or name.endswith("conv.conv"):
            writer.add_tensor(f"{name}.weight", values)
        else:
            packed = gguf.quantize(values, packing)
            writer.add_tensor(f"{name}.weight", packed, raw_dtype=packing)
            values = gguf.dequantize(packed, packing)
        unpacked[name] = torch.from_numpy(values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return unpacked
