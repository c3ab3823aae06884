"""Token choice (paper sec. 2.2.1): a token chooses its depth. Design notes:

- tokens that go on are sorted by depth, deepest first: every later set is a prefix, so nothing is
  gathered twice and the host waits for one small table of counts per forward;
- choices carry no gradient; it flows through the gate and through the balancing loss;
- the loss-free bias shifts the selection only, never the gate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mor.config import RouterConfig
from mor.model.routers.base import Forward, Router, Run, Scored
from mor.model.routers.course import Course, Tokens, within
from mor.model.routers.expert import Placed
from mor.model.routers.networks import build_router, random_scores, z_loss
from mor.model.routers.routes import Routes
from mor.model.routers.spec import is_plain, is_random
from mor.model.routers.token_spec import is_loss_free
from mor.model.spans import Span, ragged


class TokenChoice(Router):
    """`model.router.type=token`: one router in front of the first recursion."""

    @property
    def teaches_all(self) -> bool:  # type: ignore[override]
        return not is_plain(self.model.router)

    @property
    def needs_load(self) -> bool:  # type: ignore[override]
        router = self.model.router
        return not is_loss_free(router) and not is_random(router)

    def modules(self) -> dict[str, nn.Module]:
        router, n = self.model.router, self.model.n_recursions
        if is_random(router):
            return {}
        made = build_router(router, self.size.d_model, n, router.temperature)
        return {"routers": nn.ModuleList([made])}

    def buffers(self) -> dict[str, Tensor]:
        """Loss-free balancing: a bias for each depth."""
        if not is_loss_free(self.model.router):
            return {}
        return {"balance_bias": torch.zeros(self.model.n_recursions)}

    def apply(self, net: nn.Module, x: Tensor, forward: Forward) -> Tensor:
        """H1 + g f(H) at a token's last recursion; inner ones pass f's output on ungated."""
        routes = forward.routes
        choice = self.choose(net, x, routes.everyone, forward.step, forward.limit)
        routes.logits.append(choice.logits.detach().view(*routes.everyone.shape, -1))
        x = through_depths(x, routes, forward.run, choice)
        self.note(choice, forward)
        return x

    def choose(
        self, net: nn.Module, x: Tensor, span: Placed, step: int | None, limit: int | None = None
    ) -> DepthChoice:
        router, n = self.model.router, self.model.n_recursions
        if is_random(router):
            logits = random_scores(span.positions(), self.seed, step or 0, 0, n)
        else:
            logits = cast(nn.ModuleList, net.get_submodule("routers"))[0](x)
        if self.in_warmup(step):
            return full_depth(router, logits)
        bias = net.get_buffer("balance_bias") if is_loss_free(router) else None
        return choose_depth(router, logits, bias, limit)

    def course(self, net: nn.Module, limit: int | None) -> Course:
        return TokenCourse(self, net, within(limit, self.model.n_recursions))

    def in_warmup(self, step: int | None) -> bool:
        return step is not None and step + 1 < self.model.router.balance_warmup_steps

    def note(self, choice: DepthChoice, forward: Forward) -> None:
        """The losses of a choice."""
        router = self.model.router
        if is_random(router):
            return
        if not is_loss_free(router):
            load = forward.load
            if load is None:
                own = torch.tensor(forward.routes.load)
                load = own.to(choice.scores.device, non_blocking=True)
            forward.losses["balancing_loss"] = balancing_loss(choice.scores, load)
        if router.z_coeff:
            forward.losses["router_z_loss"] = z_loss(choice.logits)

    def loss_weights(self) -> dict[str, float]:
        router = self.model.router
        return {"balancing_loss": router.balance_coeff, "router_z_loss": router.z_coeff}

    def depth(self, net: nn.Module, x: Tensor, span: Span, step: int | None) -> Tensor:
        return self.choose(net, x, span, step).depth

    def after_step(self, net: nn.Module, load: Tensor, step: int | None) -> None:
        """Loss-free balancing: shift the bias against the load, after warm-up."""
        if not is_loss_free(self.model.router) or self.in_warmup(step):
            return
        bias, rate = net.get_buffer("balance_bias"), self.model.router.bias_update_rate
        bias.copy_(balance_step(bias, load, rate))

    def sometimes_unused(self, net: nn.Module) -> list[nn.Module]:
        """The layers of deeper recursions."""
        layout = self.layout
        always = {*layout.prologue, *layout.recursions[0], *layout.epilogue}
        deeper = {layer for block in layout.recursions[1:] for layer in block} - always
        layers = cast(nn.ModuleList, net.get_submodule("layers"))
        return [*(layers[i] for i in sorted(deeper)), net.get_submodule("relaxation")]

    def scored(self, routes: Routes) -> Iterator[Scored]:
        scores = token_scores(self.model.router, routes.logits[0].flatten(0, 1))  # (T, Nr)
        depths = routes.depths.flatten()
        for r in range(self.model.n_recursions):
            yield Scored(r, scores[:, r], depths == r + 1)


class TokenCourse(Course):
    """Token choice: the depth is chosen in front of recursion 1."""

    reads_first = True

    def __init__(self, router: TokenChoice, net: nn.Module, n_blocks: int) -> None:
        super().__init__(n_blocks)
        self.router, self.net = router, net

    def decide(self, r: int, tokens: Tokens) -> Tensor | None:
        if r > 0:
            return tokens.notes[:, 1] >= r
        choice = self.router.choose(self.net, tokens.x, tokens, None, self.n_blocks)
        tokens.notes[:] = torch.cat((choice.gate, choice.depth[:, None]), 1)
        return None

    def leave(self, r: int, tokens: Tokens, f: Tensor) -> Tensor:
        last = torch.addcmul(tokens.first, tokens.notes[:, :1], f)
        return torch.where(tokens.notes[:, 1:] == r, last, f)


def through_depths(x: Tensor, routed: Routes, run: Run, choice: DepthChoice) -> Tensor:
    """Each token through the recursions that it chose."""
    span, depth = routed.everyone, choice.depth
    table = depth_table(depth, span.batch, routed.n_blocks)  # the only wait for the device
    y = run(0, x, span)
    routed.spans.append(span)
    deeper = sum(table[1])
    if deeper:
        order = depth.sort(descending=True, stable=True).indices[:deeper]  # deepest first
        inner = through_prefixes(y.index_select(0, order), routed, run, depth, order, table)
        y = y.index_copy_(0, order, inner)
    return torch.addcmul(x, choice.gate.to(y.dtype), y)  # (T, D)


def through_prefixes(
    x: Tensor, routed: Routes, run: Run, depth: Tensor, order: Tensor, table: list[list[int]]
) -> Tensor:
    """Recursions 2 and on: x holds the tokens in `order`, so that a prefix of it goes on."""
    everyone = routed.everyone
    grid = depth.view(everyone.batch, everyone.length)
    leaving: list[Tensor] = []
    for r in range(1, routed.n_blocks):
        span = ragged(grid >= r, order[: len(x)], table[r], everyone.tables)
        routed.spans.append(span)
        x = run(r, x, span)
        onwards = sum(table[r + 1])
        if onwards == 0:
            break
        x, left = x.split([onwards, len(x) - onwards])
        leaving.append(left)
    return torch.cat([x, *reversed(leaving)]) if leaving else x


def depth_table(depth: Tensor, batch: int, n_recursions: int) -> list[list[int]]:
    """table[r][b]: tokens of sequence b that take recursion r; a last row of zeros."""
    recursions = torch.arange(n_recursions, device=depth.device)[:, None, None]
    taken = (depth.view(batch, -1) >= recursions).sum(2).tolist()  # (Nr, B)
    return [*taken, [0] * batch]


class DepthChoice(NamedTuple):
    logits: Tensor  # (T, Nr)
    scores: Tensor  # (T, Nr), alpha G(logits)
    depth: Tensor  # (T,), 0 for one recursion
    gate: Tensor  # (T, 1), the score of the depth taken; 1 under model.router.gating=plain


def choose_depth(
    router: RouterConfig, logits: Tensor, bias: Tensor | None, limit: int | None = None
) -> DepthChoice:
    """The depth of the highest score; at most `limit` recursions."""
    scores = router.alpha * token_scores(router, logits)
    ranked = scores.detach() if bias is None else scores.detach() + bias
    depth = ranked.argmax(-1, keepdim=True)
    return _at_depth(router, logits, scores, depth if limit is None else depth.clamp(max=limit - 1))


def full_depth(router: RouterConfig, logits: Tensor) -> DepthChoice:
    """Balance warm-up: every token takes every recursion."""
    depth = torch.full_like(logits[:, :1], logits.shape[1] - 1, dtype=torch.long)
    return _at_depth(router, logits, router.alpha * token_scores(router, logits), depth)


def token_scores(router: RouterConfig, logits: Tensor) -> Tensor:
    """G(logits): softmax over the depths, sigmoid of each or the logits themselves."""  # (T, Nr)
    if router.activation == "softmax":
        return logits.softmax(-1)
    return logits.sigmoid() if router.activation == "sigmoid" else logits


def _at_depth(router: RouterConfig, logits: Tensor, scores: Tensor, depth: Tensor) -> DepthChoice:
    gate = scores.gather(1, depth)
    if is_plain(router):
        gate = torch.ones_like(gate)
    return DepthChoice(logits, scores, depth.squeeze(1), gate)


def balancing_loss(scores: Tensor, load: Tensor) -> Tensor:
    """Nr sum_i f_i P_i: f the share of tokens that chose depth i, P its mean score."""
    share = load.to(scores) / load.sum()
    return scores.shape[1] * (scores.mean(0) * share).sum()


def balance_step(bias: Tensor, load: Tensor, rate: float) -> Tensor:
    """b_i + u sign(mean load - load_i), in float32."""
    load = load.to(bias)
    return bias + rate * torch.sign(load.mean() - load)
