"""Small random models of all causal language models of transformers, and of variants of some, made from one set of sizes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

LAYERS, VOCABULARY, LONGEST = 4, 128, 128
PARAMETERS = 3e7  # a model with more is not built: its configuration has sizes of its own that these do not reach

SIZES: dict[str, Any] = (
    dict.fromkeys(("hidden_size", "d_model", "n_embd", "n_embed", "dim", "word_embed_proj_dim", "embedding_size", "emb_dim"), 64)
    | dict.fromkeys(("attention_hidden_size", "v_hidden_size"), 64)
    | dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_inner", "dff", "d_ff", "dim_ff", "inner_dim"), 128)
    | dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim"), 128)
    | dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "decoder_layers", "encoder_layers"), LAYERS)
    | dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "encoder_attention_heads"), 4)
    | dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), LONGEST)
    | dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4)
    | dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_k"), 2)
    | dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 32)
    | dict.fromkeys(("attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout", "dropout"), 0.0)
    | {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    | {"num_key_value_heads": 2, "head_dim": 16, "rotary_dim": 8, "sliding_window": 16, "n_shared_experts": 1}
    | {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "qk_head_dim": 32}
    | {"swa_head_dim": 16, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "linear_head_dim": 16, "linear_num_heads": 4}
    | {"rel_extent": 32, "sliding_window_size": 16}
    | {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
)

LATENT = {"num_key_value_heads": 4}
GROUPS = LATENT | {"n_group": 1, "topk_group": 1}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"] * 2}
PER_LAYER = {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_chunk_size": 16, "mamba_expand": 2}
HYBRID = {"layer_types": ["linear_attention", "hybrid"] * 2, "layers_block_type": ["linear_attention", "hybrid"] * 2}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
TEXT: dict[str, Any] = {
    name: SIZES[name]
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
} | {
    name: SIZES[name] for name in ("head_dim", "max_position_embeddings", "sliding_window", "pad_token_id", "bos_token_id", "eos_token_id")
}

OWN: dict[str, dict[str, Any]] = {
    "axk1": GROUPS,
    "axk2": LATENT,
    "bailing_hybrid": {"n_group": 1, "topk_group": 1, "num_local_experts": 8, "first_k_dense_replace": 1},
    "bamba": MAMBA,
    "beam": {"n_group": 1, "topk_group": 1},
    "cohere_compass_text": {
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")}
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 128, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": LATENT,
    "deepseek_v3": GROUPS | {"first_k_dense_replace": 1},
    "deepseek_v32": GROUPS | {"first_k_dense_replace": 1},
    "deepseek_v4": {"o_lora_rank": 256},
    "falcon": {"ffn_hidden_size": 128},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 128},
    "gemma3": {"text_config": TEXT, "vision_config": VISION, "mm_tokens_per_image": 4},
    "gemma3n_text": PER_LAYER
    | ALTERNATING
    | {
        "intermediate_size": [128] * LAYERS,
        "num_kv_shared_layers": 2,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
    },
    "gemma4": {"text_config": TEXT | PER_LAYER | ALTERNATING},
    "gemma4_text": PER_LAYER | ALTERNATING | {"num_kv_shared_layers": 0},
    "glm4_moe_lite": LATENT,
    "glm_moe_dsa": LATENT | {"first_k_dense_replace": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": MAMBA,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "llama4": {
        "text_config": TEXT | {"num_local_experts": 4, "intermediate_size_mlp": 128},
        "vision_config": VISION | {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32},
    },
    "longcat_flash": LATENT
    | {"zero_expert_num": 2, "n_routed_experts": 4, "moe_topk": 2, "expert_ffn_hidden_size": 32, "ffn_hidden_size": 128, "num_layers": 2},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 2, "state_size": 16},
    "minicpm3": LATENT,
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 2, "chunk_size": 16}
    | {"layers_block_type": ["mamba", "attention", "moe", "mlp"], "moe_shared_expert_intermediate_size": 32},
    "qwen3_5": {
        "text_config": TEXT | LINEAR,
        "vision_config": {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64},
    },
    "recurrent_gemma": {"lru_width": 64, "num_hidden_layers": 3},
    "reformer": {"is_decoder": True, "axial_pos_shape": [8, 16], "axial_pos_embds_dim": [32, 32], "attention_head_size": 16}
    | {"feed_forward_size": 128},
    "youtu": LATENT,
    "zamba": HYBRID | {"attention_hidden_size": 128, "attention_head_dim": 32, "num_key_value_heads": 4},
    "zamba2": HYBRID
    | {"attention_hidden_size": 128, "attention_head_dim": 32, "num_key_value_heads": 4, "n_mamba_heads": 8, "mamba_headdim": 16}
    | {"mamba_d_state": 16, "hybrid_layer_ids": [1, 3], "kv_channels": 16, "num_query_groups": 4},
    "zaya": {"num_experts_per_tok": 1, "moe_intermediate_size": 64, "router_hidden_size": 16},
}

YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}

VARIANTS: dict[str, dict[str, Any]] = {
    "cohere/qknorm": {"use_qk_norm": True},
    "deepseek_v3/dense": {"first_k_dense_replace": LAYERS},
    "deepseek_v3/noq": {"first_k_dense_replace": LAYERS, "q_lora_rank": None},
    "doge/moe": {"is_moe": True, "num_experts": 16, "num_experts_per_tok": 4},
    "exaone4/mixed": ALTERNATING,
    "falcon/40b": {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2, "parallel_attn": True, "bias": False},
    "falcon/7b": {"alibi": False, "multi_query": True, "parallel_attn": True, "bias": False, "new_decoder_architecture": False},
    "falcon/rw": {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True, "new_decoder_architecture": False},
    "gemma3_text/mixed": ALTERNATING,
    "gemma3n_text/three": {"num_hidden_layers": 3, "intermediate_size": [128] * 3, "num_kv_shared_layers": 0}
    | {"layer_types": ["sliding_attention", "sliding_attention", "full_attention"], "activation_sparsity_pattern": [0.5, 0.0, 0.0]},
    "gemma4_text/31b": {"hidden_size_per_layer_input": 0, "attention_k_eq_v": True},
    "gemma4_text/e4b": PER_LAYER | ALTERNATING | {"num_kv_shared_layers": 2, "use_double_wide_mlp": True},
    "gemma4_text/moe": {"hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2}
    | {"moe_intermediate_size": 32},
    "gpt_bigcode/mqa": {"multi_query": True},
    "gpt_neox/seq": {"use_parallel_residual": False},
    "granitemoehybrid/dense": {"num_local_experts": 0, "layer_types": ["full_attention"] * LAYERS, "shared_intermediate_size": 128}
    | {"position_embedding_type": "rope"},
    "granitemoehybrid/h-dense": {"num_local_experts": 0, "shared_intermediate_size": 128},
    "jamba/attn": {"attn_layer_period": 1, "attn_layer_offset": 0, "expert_layer_period": 100, "expert_layer_offset": 99},
    "lfm2/conv": {"layer_types": ["conv", "full_attention"] * 2},
    "llama/1layer": {"num_hidden_layers": 1},
    "llama/bias": {"attention_bias": True, "mlp_bias": True},
    "llama/llama3": {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 64}},
    "llama/tied": {"tie_word_embeddings": True},
    "llama/yarn": {"rope_parameters": YARN},
    "llama4_text/dense": {"moe_layers": [], "interleave_moe_layer_step": 0, "intermediate_size_mlp": 128},
    "mpt/7b": {"no_bias": True},
    "nemotron_h/attn": {"layers_block_type": ["attention", "mlp"] * 2},
    "olmo3/mixed": ALTERNATING,
    "opt/350m": {"word_embed_proj_dim": 32, "do_layer_norm_before": False},
    "persimmon/qk": {"qk_layernorm": True},
    "phi/qk": {"qk_layernorm": True},
    "phi3/longrope": {"original_max_position_embeddings": 32, "rope_parameters": LONGROPE | {"original_max_position_embeddings": 32}},
    "qwen2/sliding": {"use_sliding_window": True, "max_window_layers": 2},
    "qwen3_moe/dense": {"mlp_only_layers": list(range(LAYERS))},
    "stablelm/2-12b": {"use_parallel_residual": True, "qk_layernorm": True, "use_qkv_bias": True},
    "stablelm/bias": {"use_qkv_bias": True},
}
"""More settings of some model types, as checkpoints have them."""

ARCHITECTURES = [*sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), *VARIANTS]
"""The model types of transformers that have a causal language model, and the variants."""


def config(name: str, **changes: Any) -> Any:
    """The configuration of an architecture.

    Args:
        name: one of ``ARCHITECTURES``.
        changes: other values.
    """
    model_type, _, variant = name.partition("/")
    kind = CONFIG_MAPPING[model_type]
    default = kind()
    known = (set(default.to_dict()) | set(vars(default))) - set(getattr(kind, "attribute_map", {}))
    settings = {key: value for key, value in SIZES.items() if key in known}
    return kind(**(settings | OWN.get(model_type, {}) | (VARIANTS[name] if variant else {}) | changes))


def build(name: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """A random model in evaluation mode. Weights that start equal, or very small, are drawn anew, so that no two channels are alike.

    Raises:
        MemoryError: it would have more than 30 million parameters.
    """
    settings = config(name, **changes)
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(copy.deepcopy(settings), dtype=torch.float32).parameters())
    if size > PARAMETERS:
        raise MemoryError(f"{size / 1e6:.0f} million parameters")
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim >= 2 and (float(parameter.std()) < 1e-6 or float(parameter.abs().max()) < 0.1):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.5 / parameter.shape[-1]) ** 0.5)
            elif parameter.ndim == 1 and key.endswith("bias") and float(parameter.abs().max()) == 0:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model.to(dtype).eval()


def token_ids(samples: int = 36, length: int = 64, seed: int = 7) -> torch.Tensor:
    """int64 [samples, length]."""
    return torch.randint(3, VOCABULARY - 8, (samples, length), generator=torch.Generator().manual_seed(seed))
