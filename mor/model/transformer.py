"""The language model. Design notes:

- layers are tied by construction: `layers` holds the unique ones, and `components.layout` says in
  which order a token meets them; parameters therefore count once;
- one forward for all architectures: embed, prologue, blocks, epilogue, norm, tied head. How tokens
  pass the blocks is the router's or the recurrence's (`mor.model.components`);
- `routing="topk"` is training's (expert choice sees the future there), `routing="causal"` is
  inference's: changing a token changes no logit before it;
- weights come from one generator seeded with `seed`, on CPU: the same on every device;
- what depends on the step (warm-up, random routers or depths) depends on the `step` that the
  forward is given; without one, everything is as after warm-up, and training refuses;
- under autocast the residual stream, norms, routers and the loss stay in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mor.config import ModelConfig, RuntimeConfig, SizeConfig
from mor.model.components import depends_on_step, layout, n_blocks, recurrence_of, router_of
from mor.model.kv.spec import computing_layers, mode_of
from mor.model.kv.strategies import (
    Cache,
    RecursionWise,
    Step,
    Strategies,
    Strategy,
    builder,
    run_layers,
)
from mor.model.layers import PLAIN, Adapter, Layer, RMSNorm, rotary_tables
from mor.model.lookup import load_module
from mor.model.losses import chunked_loss, whole_loss
from mor.model.recurrence.fixed import Fixed
from mor.model.relaxation.adapters import Relaxation
from mor.model.routers.base import Forward, Router
from mor.model.routers.routes import Routes
from mor.model.spans import Rectangle, Span, documents_of
from mor.model.speed import Speed, allow_shapes, compiles


@dataclass
class Output:
    routed: Routes
    logits: Tensor | None = None  # (B, S, V) float32; None where they were not asked for
    loss: Tensor | None = None  # mean negative log-likelihood over the targets
    total_loss: Tensor | None = None  # loss + the weighted auxiliary losses: what is trained
    auxiliary: dict[str, Tensor] = field(default_factory=dict)  # unweighted, those that exist


class Transformer(nn.Module):
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
        self.n_blocks = n_blocks(model, size)  # that a token can pass, as they are metered
        self.speed = Speed()
        self.embed = nn.Embedding.from_pretrained(
            torch.empty(vocab_size, size.d_model), freeze=False
        )
        computing = computing_layers(model, self.layout)
        self.layers = nn.ModuleList(
            Layer(model, size, computes_kv=i in computing) for i in range(self.layout.unique_layers)
        )
        self.norm = RMSNorm(size.d_model, model.norm_eps)
        recurrence, router = recurrence_of(model), router_of(model)
        self.router: Router = load_module(router.module)(model, size, self.layout, seed)
        self.recurrence: Fixed = load_module(recurrence.module)(model, size, self.layout, seed)
        self.build_kv = builder(model)
        self._register(self.router.modules())
        for name, state in self.router.buffers().items():
            self.register_buffer(name, state)
        self.relaxation = Relaxation(model, size, self.layout)
        self._register(self.recurrence.modules())
        self._draw_weights(seed)

    def _register(self, modules: dict[str, nn.Module]) -> None:
        for name, module in modules.items():
            self.add_module(name, module)

    @torch.no_grad()
    def _draw_weights(self, seed: int) -> None:
        """Matrices ~ Normal(0, init_std); norms stay at 1, relaxations change nothing."""
        generator = torch.Generator().manual_seed(seed)
        for weight in self.parameters():
            if weight.ndim > 1:
                drawn = torch.empty(weight.shape, device="cpu")
                weight.copy_(drawn.normal_(0.0, self.model.init_std, generator=generator))
        self.relaxation.start(self.layers, self.layout)
        self.recurrence.start(self)

    def set_speed(self, runtime: RuntimeConfig) -> None:
        """Take up the switches that change time and memory and not the loss."""
        stable = router_of(self.model).has_stable_shapes(self.model.router)
        compiled = compiles(runtime.compile, self.embed.weight.device, stable)
        fixed = compiled and stable
        recompute = "none" if runtime.recompute == "auto" else runtime.recompute
        self.speed = Speed(runtime.loss_chunk, recompute, fixed, runtime.masks)
        if compiled:
            allow_shapes()
            for layer in self.layers:
                layer.compile(dynamic=False if fixed else None)

    def recompute_layers(self) -> None:
        """Keep less of each layer for the backward, from now on."""
        self.speed = replace(self.speed, recompute="layer")

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
        kv = self.build_kv(self.model, self.layout) if cache is None else cache.recursions
        routes = Routes(everyone, self.n_blocks, mode_of(self.model).reads_first)
        causal, router = routing == "causal", router_of(self.model)
        forward = Forward(routes, partial(self._block, kv), causal, step, max_recursions, load)
        with self.speed.shapes(ragged=causal and router.chooses_tokens):
            x = (self.router if router.routes else self.recurrence).apply(self, x, forward)
        x = self._pass(self.layout.epilogue, x, everyone, cache.epilogue if cache else None)
        if cache is not None:
            cache.leave()
        x = self.norm(x, everyone.tables.dtype)
        output = Output(routes, auxiliary=forward.losses)
        self._read_out(x, output, targets, keep_logits)
        if output.logits is not None:
            output.logits = output.logits.view(*tokens.shape, -1)
        return output

    @property
    def depends_on_step(self) -> bool:
        return depends_on_step(self.model)

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
        angles = (length, self.size.d_head, self.model.rope_theta, x.device, dtype)
        tables = rotary_tables(*angles, documents, start, self.speed.in_blocks(x.device))
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

    def _block(self, blocks: Strategies, r: int, x: Tensor, span: Span) -> Tensor:
        """Block `r`, with its per-recursion parameters, over a span."""
        depths = self.layout.recursions[min(r, len(self.layout.recursions) - 1)]
        kv = blocks.at(r)
        steps = self._steps(depths, self.relaxation.of_layers(r, len(depths)))
        plan = kv.reads(span, len(depths))
        x = self.relaxation.enter(r, x)
        x, memory = self.speed.whole(run_layers)(steps, x, span, plan, kv.keeps)
        kv.keep(span, memory)
        return self.relaxation.leave(r, x)

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

    def _total(self, loss: Tensor, auxiliary: dict[str, Tensor]) -> Tensor:
        weights = self.router.loss_weights()
        for name, value in auxiliary.items():
            loss = loss + weights[name] * value
        return loss

    # -- around a step -------------------------------------------------------------------------

    @torch.no_grad()
    def router_load(self, tokens: Tensor, step: int | None = None) -> Tensor:
        """How many tokens choose each depth, of a router whose loss reads it. Embedding, prologue
        and router only."""
        depth = self.router.depth(self, *self._enter(tokens), step)
        return (depth == torch.arange(self.model.n_recursions, device=depth.device)[:, None]).sum(1)

    @torch.no_grad()
    def after_step(self, load: Tensor, step: int | None = None) -> None:
        """What the router does after an optimizer step; `load`: (Nr,) of its whole batch."""
        self.router.after_step(self, load, step)
