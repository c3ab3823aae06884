import pytest
from matplotlib.colors import rgb_to_hsv

from analysis.figures import style


def test_an_architecture_keeps_its_colour_in_any_company():
    alone = style.colours_of(["mor"])["mor"]
    assert style.colours_of(["a", "b", "mor", "vanilla"])["mor"] == alone
    many = style.colours_of(["vanilla", "recursive", "mor", "mor_token", "x", "y"])
    assert len(set(many.values())) == 6


def test_models_stand_in_their_usual_order():
    assert style.ordered(["zeta", "mor", "vanilla", "alpha"]) == ["vanilla", "mor", "alpha", "zeta"]


def test_shades_grow_darker():
    brightness = [sum(shade) for shade in style.shades("#009E73", 5)]
    assert brightness == sorted(brightness, reverse=True)
    assert len(set(brightness)) == 5
    assert rgb_to_hsv(style.shades("#009E73", 1)[0])[0] == pytest.approx(0.455, abs=0.01)


@pytest.mark.parametrize(("low", "high"), [(1e4, 1e6), (4e7, 1.6e9), (9e5, 1.1e6), (1e10, 1e24)])
def test_ticks_are_few_and_inside(low, high):
    ticks = style.round_ticks(low, high, most=5)
    assert 1 <= len(ticks) <= 5
    assert all(low <= tick <= high for tick in ticks)


def test_crowded_values_give_way_in_the_middle():
    assert style.thinned([1, 1.1, 10, 90, 100], closest=0.3) == [1, 10, 100]
    assert style.thinned([5.0], closest=0.3) == [5.0]
