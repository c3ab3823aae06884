"""The whole model: who sees whom, precision, initial weights."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tests.mor.model.variants import ALL, EXPERT, SIZE, TOKEN, UNROUTED, VOCAB, build, draw

LENGTH = 16
RANDOM_EXPERT = [name for name in EXPERT if name.startswith("expert-random")]
CAUSAL = [(name, "causal") for name in ALL] + [
    (name, "topk") for name in [*UNROUTED, *TOKEN, *RANDOM_EXPERT]
]


def change_after(model, t: int, routing: str) -> tuple[float, float]:
    """Largest change of the logits up to t, and after it, when all tokens after t change."""
    tokens, _ = draw(2, LENGTH, seed=t)
    other = tokens.clone()
    other[:, t + 1 :] = (other[:, t + 1 :] + 7) % VOCAB
    with torch.no_grad():
        change = (
            model(tokens, routing=routing).logits - model(other, routing=routing).logits
        ).abs()
    return float(change[:, : t + 1].max()), float(change[:, t + 1 :].max())


@pytest.mark.parametrize(("name", "routing"), CAUSAL)
def test_the_future_changes_no_logit(name: str, routing: str) -> None:
    model = build(ALL[name], seed=1)
    for t in (0, 4, 9, LENGTH - 2):
        before, after = change_after(model, t, routing)
        assert before < 1e-4
        assert after > 1e-2


@pytest.mark.parametrize("name", sorted(set(EXPERT) - set(RANDOM_EXPERT)))
def test_top_k_of_expert_choice_sees_the_future(name: str) -> None:
    model = build(EXPERT[name], seed=1)
    assert max(change_after(model, t, "topk")[0] for t in range(LENGTH - 1)) > 1e-2


@pytest.mark.parametrize("name", ["vanilla", "recursive-cycle-shared", *EXPERT, *TOKEN])
def test_bfloat16_is_close_and_keeps_routers_and_losses_in_float32(name: str) -> None:
    model = build(ALL[name], seed=2)
    tokens, targets = draw(2, LENGTH)
    full = model(tokens, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(tokens, targets)
    half.total_loss.backward()
    assert half.logits.dtype == half.total_loss.dtype == torch.float32
    assert all(logits.dtype == torch.float32 for logits in half.routed.logits)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert half.total_loss.item() != full.total_loss.item()
    assert half.total_loss.item() == pytest.approx(full.total_loss.item(), rel=0.03)


def test_targets_and_logits_are_optional() -> None:
    model = build(EXPERT["expert"])
    tokens, targets = draw(2, LENGTH)
    out = model(tokens)
    assert out.loss is None
    assert out.logits.shape == (2, LENGTH, VOCAB)
    assert model(tokens, targets, keep_logits=False).logits is None
    with pytest.raises(ValueError, match="choose topk or causal"):
        model(tokens, routing="top-k")


def test_ignored_targets_do_not_count() -> None:
    model = build(UNROUTED["vanilla"])
    tokens, targets = draw(2, LENGTH)
    targets[0] = -100
    alone = model(tokens[1:], targets[1:])
    assert model(tokens, targets).loss.item() == pytest.approx(alone.loss.item(), abs=1e-5)


def test_weights_come_from_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (build(ALL["token-loss-free"], seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    for (name, a), b, c in zip(
        first.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b)
        if a.ndim == 1:
            assert (a == 1).all(), name
        else:
            assert not torch.equal(a, c), name
            assert a.std().item() == pytest.approx(0.2, rel=0.25), name
            assert abs(a.mean().item()) < 0.05, name


def test_names() -> None:
    names = dict(build(EXPERT["expert-aux-router"]).named_parameters())
    layer = [f"attention.{x}" for x in "qkvo"] + [f"mlp.{x}" for x in ("gate", "up", "down")]
    layer += ["attention_norm", "mlp_norm"]
    expected = {f"layers.{i}.{piece}.weight" for i in range(4) for piece in layer}
    expected |= {f"{group}.{r}.weight" for group in ("routers", "aux_routers") for r in range(3)}
    assert names.keys() == expected | {"embed.weight", "norm.weight"}
    assert names["embed.weight"].shape == (VOCAB, SIZE.d_model)


@pytest.mark.parametrize("name", ["vanilla", "recursive-cycle-shared", "expert", "expert-shared"])
def test_static_shapes_compile_to_one_graph(name: str) -> None:
    model = build(ALL[name])
    tokens, targets = draw(2, LENGTH)
    compiled = torch.compile(model, backend="eager", fullgraph=True)(tokens, targets)
    expected = model(tokens, targets)
    torch.testing.assert_close(compiled.logits, expected.logits, atol=1e-4, rtol=1e-4)
    assert compiled.routed.pairs == expected.routed.pairs


def test_planning_needs_no_torch() -> None:
    code = "import sys, mor.model.components; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
