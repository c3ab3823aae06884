"""Parity with the authors' implementation, case by case, for as many cases as the folder holds."""

from __future__ import annotations

import pytest
import torch

from tests.mor.model.golden import CASES, FOLDER, Case, our_name

LOSSES = ("sampling_loss", "balancing_loss", "router_z_loss")


def load(name: str) -> Case:
    case = Case(name)
    if option := case.unsupported():
        pytest.skip(f"{option} is not implemented")
    return case


def targets_of(tokens: torch.Tensor) -> torch.Tensor:
    """Next tokens; the last position has none."""
    return torch.cat((tokens[:, 1:], torch.full_like(tokens[:, :1], -100)), 1)


def test_there_are_cases() -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"no reference cases at MOR_GOLDEN_DIR={FOLDER}")
    assert CASES


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    case = load(name)
    model = case.build()
    tokens = case.arrays["input_ids"].long()
    out = model(tokens, targets_of(tokens))
    assert out.total_loss is not None
    out.total_loss.backward()

    for key in ("logits_train", "logits_eval"):
        torch.testing.assert_close(out.logits, case.arrays[key], atol=1e-4, rtol=0)
    assert out.loss.item() == pytest.approx(case.results["loss"], abs=1e-5)
    assert out.total_loss.item() == pytest.approx(case.results["total_loss"], abs=1e-5)
    expected = {key for key in LOSSES if case.results.get(key) is not None}
    assert set(out.auxiliary) == expected
    for key in expected:
        assert out.auxiliary[key].item() == pytest.approx(case.results[key], abs=1e-5)
    check_routing(case, out.routed)
    check_gradients(case, model)


def check_routing(case: Case, routed) -> None:
    for r, positions in case.group("selected").items():
        assert torch.equal(routed.selected[int(r)], positions.long())
    if "router_logits" in case.arrays:
        torch.testing.assert_close(
            routed.logits[0], case.arrays["router_logits"], atol=1e-4, rtol=0
        )
    if case.results.get("balancing_ratio"):
        share = torch.tensor(routed.load) / routed.tokens[0]
        torch.testing.assert_close(share, torch.tensor(case.results["balancing_ratio"]))


def check_gradients(case: Case, model) -> None:
    parameters = dict(model.named_parameters())
    gradients = {our_name(k, model): g for k, g in case.group("grad").items()}
    assert gradients
    for name, expected in gradients.items():
        grad = parameters[name].grad
        difference = (grad - expected).norm() / expected.norm().clamp_min(1e-12)
        assert difference < 1e-4, name
    assert {k for k, p in parameters.items() if p.grad is not None} == set(gradients)


@pytest.mark.parametrize("name", CASES)
def test_their_tied_names_are_one_parameter_of_ours(name: str) -> None:
    case = load(name)
    model = case.build()
    for alias, original in case.tied.items():
        assert our_name(alias, model) == our_name(original, model)
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for k, p in case.group("param").items() if not k.endswith("router_bias")
    )
