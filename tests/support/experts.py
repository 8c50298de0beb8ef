"""Small modules with experts, and models made of them, for tests of what experts read."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, PreTrainedModel

WIDTH, INNER, EXPERTS = 8, 12, 3


class StackedExperts(nn.Module):
    """Experts in two parameters, as transformers has them; ``form`` says how they are stored and multiplied."""

    def __init__(self, form: str = "plain") -> None:
        super().__init__()
        self.form, self.num_experts = form, EXPERTS
        if form == "alternating":
            self.is_concatenated = False
        if form == "flat":  # DBRX
            self.w1, self.v1, self.w2 = (nn.Parameter(torch.randn(EXPERTS * INNER, WIDTH)) for _ in range(3))
        elif form in ("transposed", "at once"):  # Llama 4
            self.gate_up_proj = nn.Parameter(torch.randn(EXPERTS, WIDTH, 2 * INNER))
            self.down_proj = nn.Parameter(torch.randn(EXPERTS, INNER, WIDTH))
        else:
            self.gate_up_proj = nn.Parameter(torch.randn(EXPERTS, 2 * INNER, WIDTH))
            self.down_proj = nn.Parameter(torch.randn(EXPERTS, WIDTH, INNER))

    def forward(self, states: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        if self.form == "at once":
            return self._at_once(states, chosen, shares)
        output = torch.zeros_like(states)
        for expert in chosen.unique().tolist():
            token, place = (chosen == expert).nonzero(as_tuple=True)
            output.index_add_(0, token, self._expert(expert, states[token]) * shares[token, place, None])
        return output

    def _expert(self, expert: int, states: torch.Tensor) -> torch.Tensor:
        if self.form == "flat":
            w1, v1, w2 = (weight.view(EXPERTS, INNER, WIDTH)[expert] for weight in (self.w1, self.v1, self.w2))
            return (F.silu(states @ w1.T) * (states @ v1.T)) @ w2
        if self.form == "transposed":
            gate, up = (states @ self.gate_up_proj[expert]).chunk(2, -1)
            return (F.silu(gate) * up) @ self.down_proj[expert]
        if self.form == "einsum":
            gate, up = torch.einsum("th,oh->to", states, self.gate_up_proj[expert]).chunk(2, -1)
            return torch.einsum("ti,hi->th", F.silu(gate) * up, self.down_proj[expert])
        if self.form == "halves":
            gate, up = (F.linear(states, half) for half in self.gate_up_proj[expert].chunk(2))
        elif self.form == "alternating":  # GPT-OSS
            both = F.linear(states, self.gate_up_proj[expert])
            gate, up = both[:, ::2], both[:, 1::2]
        else:
            gate, up = F.linear(states, self.gate_up_proj[expert]).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.down_proj[expert])

    def _at_once(self, states: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """All experts on all tokens, of which those that were not sent to an expert are zero."""
        weights = torch.zeros(len(states), EXPERTS).scatter(1, chosen, shares)
        own = states[None] * (weights.T[:, :, None] != 0)
        gate, up = torch.bmm(own, self.gate_up_proj).chunk(2, -1)
        return (torch.bmm(F.silu(gate) * up, self.down_proj) * weights.T[:, :, None]).sum(0)


class ListedExpert(nn.Module):
    """One expert of a list, as code for older versions of transformers has them."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(WIDTH, INNER, bias=False), nn.Linear(WIDTH, INNER, bias=False)
        self.w2 = nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.w2(F.silu(self.w1(states)) * self.w3(states))
        return output


class Mixture(nn.Module):
    """A router and its experts. No token is sent to the experts in ``idle``."""

    def __init__(self, form: str, idle: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.shared_expert_gate = nn.Linear(WIDTH, 1, bias=False)
        self.listed, self.idle = form == "listed", idle
        self.experts: Any = nn.ModuleList(ListedExpert() for _ in range(EXPERTS)) if self.listed else StackedExperts(form)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        states = hidden_states.reshape(-1, WIDTH)
        logits = self.gate(states)
        logits[:, list(self.idle)] = -torch.inf
        shares, chosen = logits.softmax(-1).topk(2 if len(self.idle) < EXPERTS - 1 else 1)
        if self.listed:
            output = torch.zeros_like(states)
            for expert, module in enumerate(self.experts):
                token, place = (chosen == expert).nonzero(as_tuple=True)
                if len(token):
                    output.index_add_(0, token, module(states[token]) * shares[token, place, None])
        else:
            output = self.experts(states, chosen, shares)
        return (output * torch.sigmoid(self.shared_expert_gate(states))).view_as(hidden_states)


class MixtureBlock(nn.Module):
    """A decoder block without attention."""

    def __init__(self, form: str, idle: tuple[int, ...]) -> None:
        super().__init__()
        self.mixer = nn.Linear(WIDTH, WIDTH)
        self.mlp = Mixture(form, idle)

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
        states = hidden_states + torch.tanh(self.mixer(hidden_states))
        output: torch.Tensor = states + 0.1 * self.mlp(states)
        return output


class MixtureModel(PreTrainedModel):
    """A decoder whose blocks have experts."""

    config_class = LlamaConfig

    def __init__(self, config: LlamaConfig, form: str = "plain", idle: tuple[int, ...] = ()) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, WIDTH)
        self.blocks = nn.ModuleList(MixtureBlock(form, idle) for _ in range(config.num_hidden_layers))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, use_cache: Any = None) -> torch.Tensor:
        states: torch.Tensor = self.embed(input_ids)
        for block in self.blocks:
            states = block(states)
        return states


FORMS = ("plain", "transposed", "flat", "at once", "einsum", "halves", "alternating", "listed")


def mixture(form: str = "plain", *, idle: tuple[int, ...] = (), blocks: int = 2, seed: int = 0) -> MixtureModel:
    """A model of two blocks, with weights that differ from expert to expert."""
    torch.manual_seed(seed)
    config = LlamaConfig(hidden_size=WIDTH, num_attention_heads=2, num_hidden_layers=blocks, vocab_size=40, max_position_embeddings=64)
    model = MixtureModel(config, form, idle)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5)
    return model.eval()


def routed(model: MixtureModel, block: int, input_ids: torch.Tensor) -> dict[tuple[int, str], torch.Tensor]:
    """What the experts of a block read, computed here: by expert, and ``hidden`` or ``inner``; [tokens, inputs] float64."""
    mlp = model.blocks[block].mlp
    captured: list[torch.Tensor] = []
    handle = mlp.register_forward_pre_hook(lambda _, args: captured.append(args[0]))
    with torch.no_grad():
        model(input_ids)
        handle.remove()
        states = captured[0].reshape(-1, WIDTH)
        logits = F.linear(states, mlp.gate.weight)
        logits[:, list(mlp.idle)] = -torch.inf
        chosen = logits.topk(2 if len(mlp.idle) < EXPERTS - 1 else 1).indices
        found = {}
        for expert in range(EXPERTS):
            own = states[(chosen == expert).any(-1)]
            gate, up, _ = matrices(mlp, expert)
            found[expert, "hidden"], found[expert, "inner"] = own.double(), (F.silu(own @ gate.T) * (own @ up.T)).double()
    return found


def matrices(mlp: Any, expert: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gate, up and down projection of an expert as [outputs, inputs], as the forward pass above reads them."""
    experts = mlp.experts
    if mlp.listed:
        return experts[expert].w1.weight.data, experts[expert].w3.weight.data, experts[expert].w2.weight.data
    if experts.form == "flat":
        w1, v1, w2 = (weight.data.view(EXPERTS, INNER, WIDTH)[expert] for weight in (experts.w1, experts.v1, experts.w2))
        return w1, v1, w2.T
    gate_up, down = experts.gate_up_proj.data[expert], experts.down_proj.data[expert]
    if experts.form in ("transposed", "at once"):
        gate_up, down = gate_up.T, down.T
    if experts.form == "alternating":
        return gate_up[::2], gate_up[1::2], down
    return gate_up[:INNER], gate_up[INNER:], down
