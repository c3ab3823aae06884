"""A core block looped with input injection (Huginn, Parcae). Design notes:

- the first loop reads the prelude's output e itself; later ones read the state with e injected;
- loops without gradient run under no_grad and the state is detached after them: e is injected into
  the later ones, so the prelude is trained, too;
- `max_recursions` sets the number of loops at inference, also above that of training.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from mor.config import ConfigError
from mor.model.layers import Linear
from mor.model.recurrence.fixed import Fixed
from mor.model.recurrence.looped_spec import LOOPED, of
from mor.model.routers.base import Forward
from mor.model.routers.course import Course, Tokens


class Add(nn.Module):
    """s + e."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def start(self) -> None: ...

    def forward(self, s: Tensor, e: Tensor) -> Tensor:
        return s + e  # (T, D)


class Concat(Add):
    """W [s; e], which starts as s + e."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.projection = Linear(2 * width, width)

    @torch.no_grad()
    def start(self) -> None:
        one = torch.eye(self.projection.weight.shape[0])
        self.projection.weight.copy_(torch.cat((one, one), 1))

    def forward(self, s: Tensor, e: Tensor) -> Tensor:
        return self.projection(torch.cat((s, e), 1)).to(s.dtype)


class Gate(Add):
    """a s + (1 - a) e with one a in (0, 1) per channel, which starts at 1/2."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.logit = nn.Parameter(torch.zeros(width))

    def forward(self, s: Tensor, e: Tensor) -> Tensor:
        return torch.lerp(e, s, self.logit.sigmoid().to(s.dtype))


INJECTIONS = {"add": Add, "concat": Concat, "gate": Gate}


class Looped(Fixed):
    """`model.architecture=looped`."""

    def modules(self) -> dict[str, nn.Module]:
        return {"injection": INJECTIONS[of(self.model).injection](self.size.d_model)}

    def start(self, net: nn.Module) -> None:
        injection = net.get_submodule("injection")
        assert isinstance(injection, Add)
        injection.start()

    def sometimes_unused(self, net: nn.Module) -> list[nn.Module]:
        """A step of one loop injects nothing."""
        return [net.get_submodule("injection")] if LOOPED.depends_on_step(self.model) else []

    def course(self, net: nn.Module, limit: int | None) -> Course:
        """Loops over single tokens. Raises ConfigError for fewer than one."""
        if limit is not None and limit < 1:
            raise ConfigError("max_recursions", limit, "no loop", "type 1 or more")
        loops = limit or LOOPED.loops_at(self.model, self.seed, None)
        return Loops(loops, net.get_submodule("injection"))

    def apply(self, net: nn.Module, x: Tensor, forward: Forward) -> Tensor:
        routes, injection = forward.routes, net.get_submodule("injection")
        n = forward.limit or LOOPED.loops_at(self.model, self.seed, forward.step)
        kept = of(self.model).backprop_recursions
        if kept is not None and torch.is_grad_enabled():
            routes.without_gradient = max(0, n - kept)
        e = x
        for r in range(n):
            no_backward = r < routes.without_gradient
            with torch.no_grad() if no_backward else contextlib.nullcontext():
                x = forward.run(r, injection(x, e) if r else x, routes.everyone)
            routes.spans.append(routes.everyone)
        return x


class Loops(Course):
    """Loops over single tokens."""

    reads_first = True

    def __init__(self, n_blocks: int, injection: nn.Module) -> None:
        super().__init__(n_blocks)
        self.injection = injection

    def enter(self, r: int, tokens: Tokens) -> Tensor:
        return self.injection(tokens.x, tokens.first) if r else tokens.x
