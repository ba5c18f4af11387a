"""The change that a claim states, from its text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.published import Published, parse_change


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("+29.3%", Published("about", 29.3, 29.3)),
        ("-40.16%", Published("about", -40.16, -40.16)),
        ("\N{MINUS SIGN}40.16 %", Published("about", -40.16, -40.16)),
        ("5%", Published("about", 5.0, 5.0)),
        ("up to -29.14%", Published("up_to", -29.14, -29.14)),
        ("up to +54.24%", Published("up_to", 54.24, 54.24)),
        ("<0", Published("within", None, 0.0, strict=True)),
        ("< -5%", Published("within", None, -5.0, strict=True)),
        (">10%", Published("within", 10.0, None, strict=True)),
        ("-5%..+5%", Published("within", -5.0, 5.0)),
        ("-5..5%", Published("within", -5.0, 5.0)),
    ],
)
def test_a_change_is_read(text, means):
    assert parse_change(text) == means


@pytest.mark.parametrize(
    "text",
    ["", "29", "more", "-100%", "up to 0%", "5..-5%", "-150..0%", "<", "<-100%", "+-3%", "..5%"],
)
def test_what_is_no_change_is_refused(text):
    assert parse_change(text) is None


@given(st.floats(-99, 1000).map(lambda value: round(value, 2)))
def test_a_value_is_read_as_written(value):
    found = parse_change(f"{value:+.2f}%")
    assert found is not None
    assert found.value == value
