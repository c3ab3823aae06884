"""The language model: vanilla, recursive or MoR, as configured. Notable about it:

- layers are tied by construction: `layers` holds the unique ones, and `mor.model.sharing.layout`
  says in which order a token meets them; parameters therefore count once;
- one forward for all architectures: embed, prologue, recursions, epilogue, norm, tied head. Only
  the way of travelling differs (`mor.model.recursion`);
- `routing="topk"` is training's (expert choice sees the future there), `routing="causal"` is
  inference's: changing a token changes no logit before it;
- weights come from one generator seeded with `seed`, on CPU: the same on every device;
- under autocast the residual stream, norms, routers and the loss stay in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mor.config import ModelConfig, SizeConfig
from mor.model import routing
from mor.model.kv import RecursionWise, Shared, computing_layers
from mor.model.layers import Layer, RMSNorm, rotary_tables
from mor.model.recursion import (
    Experts,
    Routed,
    travel_by_expert,
    travel_by_token,
    travel_together,
)
from mor.model.sharing import capacities, layout
from mor.model.spans import Rectangle, Span


@dataclass
class Output:
    routed: Routed
    logits: Tensor | None = None  # (B, S, V) float32; None where they were not asked for
    loss: Tensor | None = None  # mean negative log-likelihood over the targets
    total_loss: Tensor | None = None  # loss + the weighted auxiliary losses: what is trained
    auxiliary: dict[str, Tensor] = field(default_factory=dict)  # unweighted, those that exist


class Transformer(nn.Module):
    balance_bias: Tensor | None

    def __init__(self, model: ModelConfig, size: SizeConfig, vocab_size: int, seed: int = 0):
        super().__init__()
        self.model, self.size = model, size
        self.layout = layout(model, size)
        self.capacities = capacities(model)
        self.embed = nn.Embedding.from_pretrained(
            torch.empty(vocab_size, size.d_model), freeze=False
        )
        computing = computing_layers(model.kv, self.layout)
        self.layers = nn.ModuleList(
            Layer(model, size, computes_kv=i in computing) for i in range(self.layout.unique_layers)
        )
        self.norm = RMSNorm(size.d_model, model.norm_eps)
        self._build_routers()
        self._draw_weights(seed)

    def _build_routers(self) -> None:
        """Expert choice: one per recursion (twice with aux_router); token choice: a single one."""
        router, n_recursions, d_model = (
            self.model.router,
            self.model.n_recursions,
            self.size.d_model,
        )
        self.balance_bias = None
        if router.type == "expert":
            groups = ["routers"] + ["aux_routers"] * (router.sampling == "aux_router")
            for group in groups:
                made = [routing.build_router(router, d_model, 1) for _ in range(n_recursions)]
                self.add_module(group, nn.ModuleList(made))
        elif router.type == "token":
            self.routers = nn.ModuleList([routing.build_router(router, d_model, n_recursions)])
            if router.balancing == "loss_free":
                del self.balance_bias
                self.register_buffer("balance_bias", torch.zeros(n_recursions))

    @torch.no_grad()
    def _draw_weights(self, seed: int) -> None:
        """Matrices ~ Normal(0, init_std); norms stay at 1."""
        generator = torch.Generator().manual_seed(seed)
        for weight in self.parameters():
            if weight.ndim > 1:
                drawn = torch.empty(weight.shape, device="cpu")
                weight.copy_(drawn.normal_(0.0, self.model.init_std, generator=generator))

    # -- forward -------------------------------------------------------------------------------

    def forward(
        self,
        tokens: Tensor,  # (B, S) int64
        targets: Tensor | None = None,  # (B, S) int64, already shifted; -100 is ignored
        *,
        routing: str = "topk",  # topk | causal
        load: Tensor | None = None,  # (Nr,) of the whole batch, for the balancing loss
        keep_logits: bool = True,
    ) -> Output:
        if routing not in ("topk", "causal"):
            raise ValueError(f"routing={routing}: choose topk or causal")
        x, everyone = self._enter(tokens)
        routed = Routed(everyone, n_recursions=self.model.n_recursions, kv=self.model.kv)
        output = Output(routed)
        x = self._travel(x, output, routing == "causal", load)
        x = self._pass(self.layout.epilogue, x, everyone)
        x = self.norm(x, everyone.tables.dtype)
        logits = F.linear(x, self.embed.weight).float()  # (T, V)
        if targets is not None:
            output.loss = F.cross_entropy(logits, targets.flatten(), ignore_index=-100)
            output.total_loss = self._total(output.loss, output.auxiliary)
        if keep_logits:
            output.logits = logits.view(*tokens.shape, -1)
        return output

    def _enter(self, tokens: Tensor) -> tuple[Tensor, Span]:
        """Embed all tokens and take them through the prologue."""
        batch, length = tokens.shape
        x = self.embed(tokens.flatten())  # (T, D)
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        tables = rotary_tables(length, self.size.d_head, self.model.rope_theta, x.device, dtype)
        everyone = Rectangle(batch, length, tables)
        return self._pass(self.layout.prologue, x, everyone), everyone

    def _pass(self, depths: tuple[int, ...], x: Tensor, span: Span) -> Tensor:
        return RecursionWise().run((self.layers[i] for i in depths), x, span)  # type: ignore[misc]

    def _travel(self, x: Tensor, output: Output, causal: bool, load: Tensor | None) -> Tensor:
        """Through the recursions, in the architecture's own way."""
        kv = Shared() if self.model.kv == "shared" else RecursionWise()

        def run(r: int, x: Tensor, span: Span) -> Tensor:
            return kv.run((self.layers[i] for i in self.layout.recursions[r]), x, span)  # type: ignore[misc]

        router, routed = self.model.router, output.routed
        if router.type == "expert":
            aux_routers = getattr(self, "aux_routers", None)
            experts = Experts(router, self.capacities, self.routers, aux_routers, causal)
            return travel_by_expert(x, routed, run, experts, output.auxiliary)
        if router.type == "token":
            choice = self._choose_depth(x)
            routed.logits.append(choice.logits.detach().view(*routed.everyone.shape, -1))
            x = travel_by_token(x, routed, run, choice)
            self._note_token(choice, output, load)
            return x
        return travel_together(x, routed, run)

    # -- losses and balance --------------------------------------------------------------------

    def _choose_depth(self, x: Tensor) -> routing.DepthChoice:
        return routing.choose_depth(self.model.router, self.routers[0](x), self.balance_bias)

    def _note_token(self, choice: routing.DepthChoice, output: Output, load: Tensor | None) -> None:
        router = self.model.router
        if router.balancing == "loss":
            own = torch.tensor(output.routed.load) if load is None else load
            output.auxiliary["balancing_loss"] = routing.balancing_loss(choice.scores, own)
        if router.z_coeff:
            output.auxiliary["router_z_loss"] = routing.z_loss(choice.logits)

    def _total(self, loss: Tensor, auxiliary: dict[str, Tensor]) -> Tensor:
        router = self.model.router
        weights = {
            "sampling_loss": router.aux_coeff if router.sampling == "aux_loss" else 1.0,
            "balancing_loss": router.balance_coeff,
            "router_z_loss": router.z_coeff,
        }
        for name, value in auxiliary.items():
            loss = loss + weights[name] * value
        return loss

    @torch.no_grad()
    def router_load(self, tokens: Tensor) -> Tensor:
        """Token choice: how many tokens choose each depth. Embedding, prologue and router only."""
        x, _ = self._enter(tokens)
        return routing.depth_load(self._choose_depth(x).depth, self.model.n_recursions)  # (Nr,)

    @torch.no_grad()
    def update_balance(self, load: Tensor) -> None:
        """Loss-free balancing: shift the bias against the load of a whole step."""
        if self.balance_bias is None:
            raise ValueError("only model.router.balancing=loss_free has a bias to update")
        rate = self.model.router.bias_update_rate
        self.balance_bias.copy_(routing.balance_step(self.balance_bias, load, rate))
