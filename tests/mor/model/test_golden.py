"""Parity with the authors' implementation, case by case, for as many cases as the folder holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.mor.model.golden import CASES, FOLDERS, Case, our_name

LOSSES = ("sampling_loss", "balancing_loss", "router_z_loss")


def load(name: str) -> Case:
    case = Case(name)
    if option := case.unsupported():
        pytest.skip(f"{option} is not implemented")
    return case


def targets_of(tokens: torch.Tensor) -> torch.Tensor:
    """Next tokens; the last position has none."""
    return torch.cat((tokens[:, 1:], torch.full_like(tokens[:, :1], -100)), 1)


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_every_case_is_complete(folder: Path) -> None:
    """A missing case is a failure, also of a folder that MOR_GOLDEN_DIR names."""
    results = {path.stem for path in folder.glob("*.json")}
    assert results
    assert results == {path.stem for path in folder.glob("*.npz")}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    case = load(name)
    model = case.build()
    tokens = case.arrays["input_ids"].long()
    out = model(tokens, targets_of(tokens), step=0)  # what warms up is in its first step
    assert out.total_loss is not None
    out.total_loss.backward()

    evaluated = model.eval()(tokens)
    for key, ours in (("logits_train", out.logits), ("logits_eval", evaluated.logits)):
        torch.testing.assert_close(ours, case.arrays[key], atol=1e-4, rtol=0)
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
    gradients = case.ours("grad", model)
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
    theirs = [p for k, p in case.ours("param", model).items() if k != "balance_bias"]
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in theirs)


def mapped(name: str, changes: dict[str, object]):
    """The model configuration of a case with some of its options changed."""
    if name not in CASES:
        pytest.skip(f"no case {name}")
    case = Case(name)
    for path, value in changes.items():
        node = case.spec
        *keys, last = path.split(".")
        for key in keys:
            node = node[key]
        node[last] = value
    return case.unsupported(), case.model_config()


SHARING = {"kv_sharing.enable": True, "kv_sharing.num_recursion": 2}


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("mor_expert_3_kvshare", {"kv_sharing.update_cache": True}, {"kv": "hybrid"}),
        ("vanilla", SHARING | {"kv_sharing.sharing": "cycle"}, {"kv": "cycle", "kv_share": 2}),
        ("vanilla", SHARING | {"kv_sharing.sharing": "sequence"}, {"kv": "sequence"}),
        (
            "recursive_sequence_2",
            SHARING | {"kv_sharing.sharing": "sequence"},
            {"kv": "sequence", "kv_share": 2, "sharing": "sequence"},
        ),
    ],
)
def test_options_of_their_keys_and_values_are_ours(name, changes, expected) -> None:
    unsupported, model = mapped(name, changes)
    assert unsupported is None
    assert {key: getattr(model, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("mor_expert_3", {"mor.temp": 2.0}, {"temperature": 2.0}),
        ("mor_expert_3", {"mor.expert.gating": "plain"}, {"gating": "plain"}),
        ("mor_expert_3", {"mor.expert.router_func": None}, {"activation": "none", "alpha": 1.0}),
        ("mor_expert_3", {"mor.expert.cap_warmup_step": 9}, {"capacity_warmup_steps": 9}),
        ("mor_token_3", {"mor.token.bal_warmup_step": 9}, {"balance_warmup_steps": 9}),
        ("mor_token_3", {"mor.token.gating": "plain"}, {"gating": "plain"}),
        ("mor_expert_2_cycle_mlp", {"mor.router_type": "wide_mlp"}, {"network": "mlp"}),
    ],
)
def test_options_of_their_routers_are_ours(name, changes, expected) -> None:
    unsupported, model = mapped(name, changes)
    assert unsupported is None
    assert {key: getattr(model.router, key) for key in expected} == expected
