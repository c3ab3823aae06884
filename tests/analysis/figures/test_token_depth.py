from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from analysis.figures import token_depth


@given(st.lists(st.text(min_size=0, max_size=70), min_size=1, max_size=60))
def test_tokens_keep_their_order_and_stay_inside_the_block(text):
    data = token_depth.lay_out(text, [1] * len(text))
    assert data["token"].tolist() == text
    assert (data["column"] + data["shown"].str.len() <= token_depth.COLUMNS).all()
    places = list(zip(data["line"], data["column"], strict=True))
    assert all(left < right for left, right in pairwise(places))
    assert all(shown.isprintable() for shown in data["shown"])


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6])
def test_depths_differ_in_lightness_and_letters_can_be_read(number):
    grounds = token_depth._grounds(number)
    light = [token_depth._luminance(ground) for ground in grounds]
    assert all(paler > 1.3 * darker for paler, darker in pairwise(light))
    for ground, bright in zip(grounds, light, strict=True):
        ink = token_depth._luminance(to_rgb(token_depth.ink_on(ground)))
        dark, pale = sorted((ink, bright))
        assert (pale + 0.05) / (dark + 0.05) >= 4.5
