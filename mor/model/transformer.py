"""The language model: vanilla, recursive or MoR, as configured. Notable about it:

- layers are tied by construction: `layers` holds the unique ones, and `mor.model.sharing.layout`
  says in which order a token meets them; parameters therefore count once;
- one forward for all architectures: embed, prologue, recursions, epilogue, norm, tied head. Only
  the way of travelling differs (`mor.model.recursion`);
- `routing="topk"` is training's (expert choice sees the future there), `routing="causal"` is
  inference's: changing a token changes no logit before it;
- weights come from one generator seeded with `seed`, on CPU: the same on every device;
- what depends on the step (capacity and balance warm-up, a random router) depends on the `step`
  that the forward is given; without one, everything is as after warm-up, and training refuses;
- under autocast the residual stream, norms, routers and the loss stay in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mor.config import ModelConfig, RuntimeConfig, SizeConfig
from mor.model import routing
from mor.model.kv import Cache, RecursionWise, Step, Strategy, run_layers, strategy
from mor.model.layers import PLAIN, Adapter, Layer, RMSNorm, rotary_tables
from mor.model.losses import chunked_loss, whole_loss
from mor.model.recursion import (
    Experts,
    LearnedScores,
    RandomScores,
    Routed,
    Run,
    travel_by_expert,
    travel_by_token,
    travel_together,
)
from mor.model.relaxation import Relaxation
from mor.model.sharing import capacities, computing_layers, layout
from mor.model.spans import Rectangle, Span, documents_of
from mor.model.speed import Speed


@dataclass
class Output:
    routed: Routed
    logits: Tensor | None = None  # (B, S, V) float32; None where they were not asked for
    loss: Tensor | None = None  # mean negative log-likelihood over the targets
    total_loss: Tensor | None = None  # loss + the weighted auxiliary losses: what is trained
    auxiliary: dict[str, Tensor] = field(default_factory=dict)  # unweighted, those that exist


class Transformer(nn.Module):
    balance_bias: Tensor | None
    routers: nn.ModuleList

    def __init__(
        self,
        model: ModelConfig,
        size: SizeConfig,
        vocab_size: int,
        seed: int = 0,
        separator: int | None = None,  # token that closes a document: for model.document_mask
    ):
        super().__init__()
        if model.document_mask and separator is None:
            raise ValueError("model.document_mask=true needs the separator of the tokenizer")
        self.model, self.size, self.seed = model, size, seed
        self.separator = separator if model.document_mask else None
        self.layout = layout(model, size)
        self.speed = Speed()
        self.embed = nn.Embedding.from_pretrained(
            torch.empty(vocab_size, size.d_model), freeze=False
        )
        computing = computing_layers(model, self.layout)
        self.layers = nn.ModuleList(
            Layer(model, size, computes_kv=i in computing) for i in range(self.layout.unique_layers)
        )
        self.norm = RMSNorm(size.d_model, model.norm_eps)
        self._build_routers()
        self.relaxation = Relaxation(model, size, self.layout)
        self._draw_weights(seed)

    def _build_routers(self) -> None:
        """Expert choice: one per recursion (twice with aux_router); token choice: a single one."""
        router, n_recursions = self.model.router, self.model.n_recursions
        self.balance_bias = None
        if router.type == "none" or router.network == "random":
            return
        count, out = (n_recursions, 1) if router.type == "expert" else (1, n_recursions)
        groups = {"routers": router.temperature}
        if router.type == "expert" and router.sampling == "aux_router":
            groups["aux_routers"] = 1.0
        for group, temperature in groups.items():
            made = [
                routing.build_router(router, self.size.d_model, out, temperature)
                for _ in range(count)
            ]
            self.add_module(group, nn.ModuleList(made))
        if router.type == "token" and router.balancing == "loss_free":
            del self.balance_bias
            self.register_buffer("balance_bias", torch.zeros(n_recursions))

    @torch.no_grad()
    def _draw_weights(self, seed: int) -> None:
        """Matrices ~ Normal(0, init_std); norms stay at 1, relaxations change nothing."""
        generator = torch.Generator().manual_seed(seed)
        for weight in self.parameters():
            if weight.ndim > 1:
                drawn = torch.empty(weight.shape, device="cpu")
                weight.copy_(drawn.normal_(0.0, self.model.init_std, generator=generator))
        self.relaxation.start(self.layers, self.layout)

    def set_speed(self, runtime: RuntimeConfig) -> None:
        """Take up the switches that change time and memory and not the loss."""
        router = self.model.router
        fixed = runtime.compile and router.type != "token" and not router.capacity_warmup_steps
        self.speed = Speed(runtime.loss_chunk, runtime.recompute, fixed)
        if runtime.compile:
            for layer in self.layers:
                layer.compile(dynamic=False if fixed else None)

    # -- forward -------------------------------------------------------------------------------

    def forward(
        self,
        tokens: Tensor,  # (B, S) int64
        targets: Tensor | None = None,  # (B, S) int64, already shifted; -100 is ignored
        *,
        routing: str = "topk",  # topk | causal
        load: Tensor | None = None,  # (Nr,) of the whole batch, for the balancing loss
        step: int | None = None,  # of training, from 0; None: after all warm-up
        max_recursions: int | None = None,  # routed models: a token takes no more; None: all
        keep_logits: bool = True,
        cache: Cache | None = None,  # decoding: of the tokens before; S is 1
    ) -> Output:
        if routing not in ("topk", "causal"):
            raise ValueError(f"routing={routing}: choose topk or causal")
        if step is None and self.training and torch.is_grad_enabled() and self.depends_on_step:
            raise ValueError("warm-up and random routers need to know the training step: give step")
        x, everyone = self._enter(tokens, cache)
        routed = Routed(everyone, n_recursions=self.model.n_recursions, kv=self.model.kv)
        output = Output(routed)
        kv = strategy(self.model, self.layout) if cache is None else cache.recursions
        run, causal = partial(self._block, kv), routing == "causal"
        with self.speed.shapes(ragged=causal and self.model.router.type == "expert"):
            x = self._travel(x, output, run, causal, load, step, max_recursions)
        x = self._pass(self.layout.epilogue, x, everyone, cache.epilogue if cache else None)
        if cache is not None:
            cache.leave()
        x = self.norm(x, everyone.tables.dtype)
        self._read_out(x, output, targets, keep_logits)
        if output.logits is not None:
            output.logits = output.logits.view(*tokens.shape, -1)
        return output

    @property
    def depends_on_step(self) -> bool:
        router = self.model.router
        warm_up = router.capacity_warmup_steps or router.balance_warmup_steps
        return bool(warm_up) or (router.type != "none" and router.network == "random")

    def _enter(self, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Span]:
        """Embed all tokens and take them through the prologue."""
        if cache is not None:
            cache.enter(tokens[:, 0], self.separator)
        batch, length = tokens.shape
        x = self.embed(tokens.flatten())  # (T, D)
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        documents = None
        if self.separator is not None and cache is None:
            documents = documents_of(tokens, self.separator)
        start = 0 if cache is None else cache.start
        tables = rotary_tables(
            length, self.size.d_head, self.model.rope_theta, x.device, dtype, documents, start
        )
        everyone = Rectangle(batch, length, tables)
        return self._pass(
            self.layout.prologue, x, everyone, cache.prologue if cache else None
        ), everyone

    def _pass(
        self, depths: tuple[int, ...], x: Tensor, span: Span, kv: Strategy | None = None
    ) -> Tensor:
        """Through unshared layers."""
        if not depths:
            return x
        kv = kv or RecursionWise()
        plan = kv.reads(span, len(depths))
        steps = self._steps(depths, [PLAIN] * len(depths))
        x, memory = run_layers(steps, x, span, plan, kv.keeps)
        kv.keep(span, memory)
        return x

    def _steps(self, depths: tuple[int, ...], adapters: Sequence[Adapter]) -> list[Step]:
        return [
            self.speed.each(partial(self.layers[i], adapter=adapter))
            for i, adapter in zip(depths, adapters, strict=True)
        ]

    def _block(self, kv: Strategy, r: int, x: Tensor, span: Span) -> Tensor:
        """One recursion, with what it has of its own, over a span."""
        depths = self.layout.recursions[r]
        steps = self._steps(depths, self.relaxation.of_layers(r, len(depths)))
        plan = kv.reads(span, len(depths))
        x = self.relaxation.enter(r, x)
        x, memory = self.speed.whole(run_layers)(steps, x, span, plan, kv.keeps)
        kv.keep(span, memory)
        return self.relaxation.leave(r, x)

    def _travel(
        self,
        x: Tensor,
        output: Output,
        run: Run,
        causal: bool,
        load: Tensor | None,
        step: int | None,
        limit: int | None,
    ) -> Tensor:
        """Through the recursions, in the architecture's own way."""
        router, routed = self.model.router, output.routed
        if router.type == "expert":
            experts = self._experts(causal, step, limit)
            return travel_by_expert(x, routed, run, experts, output.auxiliary)
        if router.type == "token":
            choice = self._choose_depth(x, routed.everyone, step, limit)
            routed.logits.append(choice.logits.detach().view(*routed.everyone.shape, -1))
            x = travel_by_token(x, routed, run, choice)
            self._note_token(choice, output, load)
            return x
        return travel_together(x, routed, run)

    def _experts(self, causal: bool, step: int | None, limit: int | None) -> Experts:
        shares = capacities(self.model, step)
        router = self.model.router
        if router.network == "random":
            drawn = RandomScores(self.seed, step or 0, shares)
            return Experts(router, shares, drawn, causal, limit)
        scores = LearnedScores(self.routers, getattr(self, "aux_routers", None))
        return Experts(router, shares, scores, causal, limit)

    def _read_out(
        self, x: Tensor, output: Output, targets: Tensor | None, keep_logits: bool
    ) -> None:
        """Logits and losses from the final states; whole logits only where they are needed."""
        chunk = self.speed.loss_chunk
        chunked = chunk is not None and targets is not None and not keep_logits
        if chunked:
            assert chunk is not None
            assert targets is not None
            output.loss = chunked_loss(x, self.embed.weight, targets.flatten(), chunk)
        else:
            logits = F.linear(x, self.embed.weight).float()  # (T, V)
            output.logits = logits if keep_logits else None
            if targets is not None:
                output.loss = whole_loss(logits, targets.flatten())
        if output.loss is not None:
            output.total_loss = self._total(output.loss, output.auxiliary)

    # -- losses and balance --------------------------------------------------------------------

    def _choose_depth(
        self, x: Tensor, span: Span, step: int | None, limit: int | None = None
    ) -> routing.DepthChoice:
        router, n_recursions = self.model.router, self.model.n_recursions
        if router.network == "random":
            at = span.positions()
            logits = routing.random_scores(at, self.seed, step or 0, 0, n_recursions)
        else:
            logits = self.routers[0](x)
        if self._in_balance_warmup(step):
            return routing.full_depth(router, logits)
        return routing.choose_depth(router, logits, self.balance_bias, limit)

    def _in_balance_warmup(self, step: int | None) -> bool:
        return step is not None and step + 1 < self.model.router.balance_warmup_steps

    def _note_token(self, choice: routing.DepthChoice, output: Output, load: Tensor | None) -> None:
        router = self.model.router
        if router.network == "random":
            return
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
    def router_load(self, tokens: Tensor, step: int | None = None) -> Tensor:
        """Token choice: how many tokens choose each depth. Embedding, prologue and router only."""
        depth = self._choose_depth(*self._enter(tokens), step).depth
        return routing.depth_load(depth, self.model.n_recursions)  # (Nr,)

    @torch.no_grad()
    def update_balance(self, load: Tensor, step: int | None = None) -> None:
        """Loss-free balancing: shift the bias against the load of a whole step, after warm-up."""
        if self.balance_bias is None:
            raise ValueError("only model.router.balancing=loss_free has a bias to update")
        if self._in_balance_warmup(step):
            return
        rate = self.model.router.bias_update_rate
        self.balance_bias.copy_(routing.balance_step(self.balance_bias, load, rate))
