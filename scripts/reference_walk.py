"""An independent Wanda and SparseGPT of whole models: one forward pass of the whole model for each decoder block, float64 arithmetic.

Nothing of the package is used but the names of the layers. What an expert reads is computed here, from what its module is called with: the
tokens that are sent to it, and the formula of its FFN.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

Inputs = dict[str, list[torch.Tensor]]
"""What reaches each layer, by its name: [tokens, inputs] each."""
Prune = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""The new weight, [outputs, inputs], from the old one and the inputs, [tokens, inputs]; all float64."""


def weight_of(model: nn.Module, name: str) -> torch.Tensor:
    """A view of the weight of a layer as [outputs, inputs], found by its name."""
    modules = dict(model.named_modules())
    if name in modules:
        weight = modules[name].weight.data
        return weight.T if isinstance(modules[name], Conv1D) else weight
    path, expert, role = split_name(name)
    module = modules[path]
    kind = type(module).__name__
    if isinstance(module, nn.Linear):  # DeepSeek V4's, in groups
        return module.weight.data.chunk(module.n_groups)[expert]
    if kind == "DbrxExpertGLU":
        matrix = getattr(module, role).data.view(module.moe_num_experts, module.ffn_hidden_size, module.hidden_size)[expert]
        return matrix.T if role == "w2" else matrix
    parameters = dict(module.named_parameters(recurse=False))
    fused = role in ("gate_proj", "up_proj") and "gate_up_proj" in parameters
    matrix = parameters["gate_up_proj" if fused else role or "weight"].data[expert]
    if kind == "Llama4TextExperts" or getattr(module, "is_transposed", False):
        matrix = matrix.T
    if not fused:
        return matrix
    if kind == "GptOssExperts":
        return matrix[0::2] if role == "gate_proj" else matrix[1::2]
    half = len(matrix) // 2
    return matrix[:half] if role == "gate_proj" else matrix[half:]


def split_name(name: str) -> tuple[str, int, str]:
    """The module, the number and the role in ``model.layers.0.mlp.experts.5.up_proj``; JetMoE's matrices have no role."""
    found = re.fullmatch(r"(.+)\.(\d+)\.(\w+)", name) or re.fullmatch(r"(.+)\.(\d+)()", name)
    if found is None:
        raise ValueError(f"{name} is no name of a matrix of an expert")
    return found[1], int(found[2]), found[3]


def walk(model: PreTrainedModel, layers: Sequence[str], input_ids: torch.Tensor, prune: Prune) -> dict[str, torch.Tensor]:
    """Prunes a model in place, block by block, each on what reaches it behind the pruned blocks before it.

    Args:
        layers: the names of the layers, in the order of the model.
        prune: gets an empty [0, inputs] for an expert that no token is sent to.

    Returns:
        what reached each layer, [tokens, inputs] float64.
    """
    blocks: dict[int, list[str]] = {}
    for name in layers:
        blocks.setdefault(int(re.findall(r"\.(\d+)\.", name)[0]), []).append(name)
    everything: dict[str, torch.Tensor] = {}
    for number in sorted(blocks):
        read = inputs_of(model, blocks[number], input_ids)
        for name in blocks[number]:
            weight = weight_of(model, name)
            inputs = torch.cat([*read.get(name, []), torch.empty(0, weight.shape[1])]).double()
            everything[name] = inputs
            weight.copy_(prune(weight.double(), inputs))
    return everything


def inputs_of(model: PreTrainedModel, layers: Sequence[str], input_ids: torch.Tensor) -> Inputs:
    """What reaches layers in a forward pass of the model."""
    read: Inputs = {}
    modules = dict(model.named_modules())
    wanted, handles = set(layers), []
    for name in layers:
        if name in modules:
            handles.append(modules[name].register_forward_pre_hook(lambda _, args, name=name: _add(read, wanted, name, args[0])))
    for path in dict.fromkeys(split_name(name)[0] for name in layers if name not in modules):
        handles += [around.register_forward_pre_hook(hook, with_kwargs=True) for around, hook in _expert_hooks(modules, path, read, wanted)]
    for name, module in modules.items():  # Mamba's: its weight is multiplied, and the layer is not called
        if f"{name}.dt_proj" in wanted and hasattr(module, "x_proj") and not hasattr(module, "in_proj_a"):
            handles.append(module.x_proj.register_forward_hook(_time_steps(read, wanted, name, module)))
    with torch.no_grad():
        model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), use_cache=False)
    for handle in handles:
        handle.remove()
    return read


def _add(read: Inputs, wanted: set[str], name: str, inputs: torch.Tensor) -> None:
    if name in wanted:
        read.setdefault(name, []).append(inputs.detach().reshape(-1, inputs.shape[-1]))


def _time_steps(read: Inputs, wanted: set[str], name: str, mixer: Any) -> Callable[..., None]:
    def hook(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        steps = output[..., : mixer.time_step_rank]
        if hasattr(mixer, "dt_layernorm"):
            steps = mixer.dt_layernorm(steps)
        elif type(mixer).__name__ == "FalconMambaMixer":
            variance = steps.float().pow(2).mean(-1, keepdim=True)
            steps = (steps.float() * torch.rsqrt(variance + mixer.rms_eps)).to(steps.dtype)
        _add(read, wanted, f"{name}.dt_proj", steps)

    return hook


def _expert_hooks(
    modules: dict[str, nn.Module], path: str, read: Inputs, wanted: set[str]
) -> Iterator[tuple[nn.Module, Callable[..., None]]]:
    """Modules to listen to, and what to do when they are called, for the experts of a module."""
    module: Any = modules[path]
    kind = type(module).__name__

    def add(expert: int, roles: Sequence[str], inputs: torch.Tensor) -> None:
        for role in roles:
            _add(read, wanted, f"{path}.{expert}.{role}".removesuffix("."), inputs)

    if kind == "DbrxExpertGLU":

        def dbrx(_: nn.Module, args: Any, kwargs: Any) -> None:
            states, chosen, *_rest = [*args, *kwargs.values()]
            states = states.reshape(-1, states.shape[-1])
            for expert in range(module.moe_num_experts):
                own = states[(chosen == expert).any(-1)]
                gate, up = (own @ weight_of_module(module, expert, role).T for role in ("w1", "v1"))
                add(expert, ("w1", "v1"), own)
                add(expert, ("w2",), F.silu(gate) * up)

        yield modules[path.removesuffix(".mlp")], dbrx
    elif kind == "Llama4TextExperts":

        def llama4(_: nn.Module, args: Any, kwargs: Any) -> None:
            moe: Any = modules[path.removesuffix(".experts")]
            states = args[0].reshape(-1, args[0].shape[-1])
            logits = F.linear(states, moe.router.weight)
            top, chosen = logits.topk(moe.top_k, dim=-1)
            for expert in range(module.num_experts):
                token, place = (chosen == expert).nonzero(as_tuple=True)
                own = states[token] * torch.sigmoid(top[token, place].float()).to(states.dtype)[:, None]
                gate, up = (own @ module.gate_up_proj[expert]).chunk(2, -1)
                add(expert, ("gate_proj", "up_proj"), own)
                add(expert, ("down_proj",), up * module.act_fn(gate))

        yield modules[path.removesuffix(".experts")], llama4
    elif kind == "JetMoeParallelExperts":

        def jetmoe(_: nn.Module, args: Any, kwargs: Any) -> None:
            for expert, own in enumerate(args[0].split(args[1])):
                add(expert, ("",), own)

        yield module, jetmoe
    elif kind == "InklingSharedExperts":

        def shared(_: nn.Module, args: Any, kwargs: Any) -> None:
            states, weights = args[0].reshape(-1, args[0].shape[-1]), kwargs["gammas"].reshape(-1, module.n_shared_experts)
            for expert in range(module.n_shared_experts):
                gate, up = F.linear(states, module.gate_proj[expert]), F.linear(states, module.up_proj[expert])
                add(expert, ("gate_proj", "up_proj"), states)
                add(expert, ("down_proj",), module.act_fn(gate) * up * weights[:, expert, None])

        yield module, shared
    elif isinstance(module, nn.Linear):

        def groups(_: nn.Module, args: Any, kwargs: Any) -> None:
            for group in range(module.n_groups):
                add(group, ("",), args[0][..., group, :])

        yield module, groups
    else:

        def stacked(_: nn.Module, args: Any, kwargs: Any) -> None:
            states, chosen, *_rest = [*args, *kwargs.values()]
            for expert in range(len(module.down_proj)):
                own = states[(chosen == expert).any(-1)]
                add(expert, ("gate_proj", "up_proj"), own)
                add(expert, ("down_proj",), _inner(module, expert, own))

        yield module, stacked


def weight_of_module(module: Any, expert: int, role: str) -> torch.Tensor:
    """DBRX's matrix of an expert, [outputs, inputs]."""
    weight: torch.Tensor = getattr(module, role).view(module.moe_num_experts, module.ffn_hidden_size, module.hidden_size)[expert]
    return weight


def _inner(module: Any, expert: int, states: torch.Tensor) -> Any:
    """What an expert's way down reads."""
    bias = getattr(module, "gate_up_proj_bias", None)
    if not hasattr(module, "gate_up_proj"):
        return module.act_fn(F.linear(states, module.up_proj[expert]))
    weight = module.gate_up_proj[expert]
    both = states @ weight if getattr(module, "is_transposed", False) else F.linear(states, weight)
    if bias is not None:
        both = both + bias[expert]
    if type(module).__name__ == "GptOssExperts":  # arXiv 2508.10925: a clamped swish, and one more than the way up
        gate, up = both[..., ::2].clamp(max=module.limit), both[..., 1::2].clamp(-module.limit, module.limit)
        return gate * torch.sigmoid(module.alpha * gate) * (up + 1)
    own = type(module).__dict__.get("_apply_gate")
    if own is not None and own.__name__ == "_apply_gate":  # clamps of its own
        return module._apply_gate(both)
    gate, up = both.chunk(2, -1)
    return module.act_fn(gate) * up


def wanda(ratio: float | None = 0.5, pattern: tuple[int, int] | None = None) -> Prune:
    """Equation 1 of arXiv 2306.11695, in each row or each group of a row. Without inputs, the norms count as one."""

    def prune(weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        norms = inputs.norm(dim=0) if len(inputs) else torch.ones(weight.shape[1], dtype=torch.float64)
        return weight.masked_fill(lowest(weight.abs() * norms, ratio, pattern), 0)

    return prune


def lowest(scores: torch.Tensor, ratio: float | None, pattern: tuple[int, int] | None) -> torch.Tensor:
    """Marks the lowest scores of each row, or of each group in it; of equal ones the first."""
    count, size = pattern or (int(ratio * scores.shape[1]), scores.shape[1])  # type: ignore[operator]
    groups = scores.reshape(-1, size)
    order = groups.sort(dim=1, stable=True).indices[:, :count]
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order, True).view(scores.shape)


def sparsegpt(ratio: float | None = 0.5, pattern: tuple[int, int] | None = None, *, block: int = 128, damping: float = 0.01) -> Prune:
    """Algorithm 1 of arXiv 2301.00774. Without inputs, by magnitude."""

    def prune(weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        rows, columns = weight.shape
        if not len(inputs):
            if pattern:
                return weight.masked_fill(lowest(weight.abs(), None, pattern), 0)
            return weight.masked_fill(lowest(weight.abs().reshape(1, -1), ratio, None).view_as(weight), 0)
        hessian = 2 / len(inputs) * inputs.T @ inputs
        dead = hessian.diagonal() == 0
        hessian.diagonal()[dead] = 1
        hessian += damping * hessian.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
        upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
        new = weight.clone()
        kept, taken = torch.ones_like(weight, dtype=torch.bool), 0
        for start in range(0, columns, block):
            end = min(start + block, columns)
            errors = torch.zeros(rows, end - start, dtype=torch.float64)
            for column in range(start, end):
                if column == start or (pattern and column % pattern[1] == 0):
                    part = slice(column, min(column + pattern[1], end) if pattern else end)
                    saliency = (new[:, part] / upper.diagonal()[part]).square().masked_fill(dead[part], 0)
                    if pattern:
                        kept[:, part] = ~lowest(saliency, None, pattern)
                    else:
                        count = int(ratio * rows * end) - taken  # type: ignore[operator]
                        taken += count
                        order = saliency.flatten().sort(stable=True).indices[:count]
                        kept[:, part] = ~torch.zeros(saliency.numel(), dtype=torch.bool).scatter_(0, order, True).view(saliency.shape)
                error = (new[:, column] / upper[column, column]).masked_fill(kept[:, column], 0)
                new[:, column:end] -= torch.outer(error, upper[column, column:end])
                errors[:, column - start] = error
            new[:, end:] -= errors @ upper[start:end, end:]
        return new.masked_fill(~kept, 0)

    return prune


def output_error(dense: torch.Tensor, pruned: torch.Tensor, inputs: torch.Tensor) -> float:
    """``||X (W - W')^T||^2`` in float64."""
    return float(((dense - pruned).double() @ inputs.double().T).square().sum())
