"""Specs from plain data and back."""

import types
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.errors import StudyError
from sweeper.schema import (
    INVALID,
    Faults,
    flat,
    leaf_of,
    leaves,
    lookup,
    overlap,
    read,
    tree,
    value,
    with_values,
)
from sweeper.spec import Settings, Study

WORDS = st.text(st.characters(codec="ascii", min_codepoint=32), min_size=1).filter(str.strip)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


def drawn(hint: Any, bounds: Any) -> st.SearchStrategy[Any]:
    """Values that a leaf takes, made from its type alone."""
    if get_origin(hint) in (types.UnionType, Union):
        return st.one_of(*(drawn(member, bounds) for member in get_args(hint)))
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if hint is int:
        return st.integers(bounds.get("min", -9), bounds.get("max", 10**6))
    if hint is float:
        return st.floats(0.001, 1e9)
    if get_origin(hint) is not None:
        inner = get_args(hint)[1]
        return st.dictionaries(WORDS, PLAIN if inner is Any else drawn(inner, {}), max_size=3)
    return {str: WORDS, bool: st.booleans(), types.NoneType: st.none()}[hint]


VALUES = st.fixed_dictionaries(
    {}, optional={key: drawn(leaf.hint, leaf.bounds) for key, leaf in leaves(Settings).items()}
)


@given(VALUES)
@settings(max_examples=30)
def test_settings_hold_what_they_were_given_and_nothing_else(values):
    found = with_values(Settings(), values)
    expected = {**flat(Settings()), **values}
    assert flat(found) == expected
    assert all(lookup(found, key) == expected[key] for key in expected)


@given(VALUES)
@settings(max_examples=30)
def test_a_tree_reads_back(values):
    found = with_values(Settings(), values)
    faults = Faults()
    assert read(Settings, tree(found), "", faults) == found
    assert faults.found == []


@given(VALUES)
@settings(max_examples=30)
def test_flat_is_the_way_back(values):
    found = with_values(Settings(), values)
    assert with_values(Settings(), flat(found)) == found


def test_flat_keeps_mappings_whole():
    found = with_values(Settings(), {"engine.options": {"a": {"b": 1}}})
    assert flat(found)["engine.options"] == {"a": {"b": 1}}
    assert flat(found)["meter"] == "auto"
    assert not any(key.startswith("engine.options.") for key in flat(found))


def test_a_key_below_a_mapping_is_set_beside_the_others():
    base = with_values(Settings(), {"workload.arrival": {"kind": "poisson", "rate_rps": 1}})
    changed = with_values(base, {"workload.arrival.rate_rps": 4, "engine.options.a.b": 2})
    assert changed.workload.arrival == {"kind": "poisson", "rate_rps": 4}
    assert changed.engine.options == {"a": {"b": 2}}
    assert lookup(changed, "engine.options.a.b") == 2
    assert lookup(changed, "engine.options.c") is None
    assert base.workload.arrival["rate_rps"] == 1


def test_a_whole_mapping_is_set_before_what_is_below_it():
    values = {"engine.options.b": 2, "engine.options": {"a": 1}}
    assert with_values(Settings(), values).engine.options == {"a": 1, "b": 2}


def test_a_mapping_that_was_null_is_begun():
    found = with_values(Settings(), {"engine.speculative.kind": "ngram"})
    assert found.engine.speculative == {"kind": "ngram"}


def test_whole_numbers_become_floats_where_a_float_is_meant():
    found = with_values(Settings(), {"measure.min_window_s": 5}).measure.min_window_s
    assert type(found) is float
    assert found == 5.0


def test_with_values_names_every_fault():
    values = {"engine.dtype": "int3", "engine.tensor_paralel": 2, "workload.batch_size": 0}
    with pytest.raises(StudyError) as caught:
        with_values(Settings(), values)
    assert len(caught.value.faults) == 3
    said = str(caught.value)
    assert 'engine.dtype: "int3" given, wanted: bfloat16, float16, float32' in said
    assert "engine.tensor_paralel: unknown key; did you mean engine.tensor_parallel?" in said
    assert "workload.batch_size: 0 given, wanted: a whole number at least 1" in said


@pytest.mark.parametrize(
    ("key", "given_value", "said"),
    [
        ("engine.tensor_parallel", True, "true given, wanted: a whole number"),
        ("engine.tensor_parallel", 2.0, "write 2"),
        ("engine.tensor_parallel", 2.5, "2.5 given"),
        ("engine.tensor_parallel", "2", "without the quotes: 2"),
        ("engine.tensor_parallel", None, "null given"),
        ("engine.tensor_parallel", [1, 2], "a list given"),
        ("engine.tensor_parallel", {}, "a mapping given"),
        ("engine.tensor_parallel", -(10**400), "wanted: a whole number at least 1"),
        ("workload.seed", 2**32, "at least 0 and at most 4294967295"),
        ("workload.requests", "many", "a whole number at least 1 or auto"),
        ("workload.requests", 0, "a whole number at least 1 or auto"),
        ("measure.min_window_s", 0, "a number above 0"),
        ("measure.min_window_s", float("nan"), "nan given"),
        ("measure.min_window_s", float("inf"), "inf given"),
        ("measure.min_window_s", False, "false given"),
        ("engine.graphs", "true", "true or false"),
        ("engine.graphs", 1, "true or false"),
        ("engine.kind", 3, 'if the word is meant, quote it: "3"'),
        ("engine.quantization", False, 'if the word is meant, quote it: "false"'),
        ("engine.quantization", " ", "a word or null"),
        ("model.revision", 1234567, 'quote it: "1234567"'),
        ("engine.options", [1], "wanted: a mapping"),
        (
            "engine.env",
            {"A": 1},
            "engine.env.A: 1 given, wanted: a word; if the word is meant, quote",
        ),
        (
            "engine.options",
            {"a": {1: 2}},
            'engine.options.a: the key 1 is not a word, quote it: "1"',
        ),
        ("engine.options", {"a": [{"b": float("inf")}]}, "engine.options.a[0].b: inf given"),
        ("engine.options.a", object(), "wanted: a word, a number, true, false or null"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(key, given_value, said):
    with pytest.raises(StudyError) as caught:
        with_values(Settings(), {key: given_value})
    assert len(caught.value.faults) == 1
    assert said in str(caught.value)
    assert str(caught.value).startswith(key)


def test_the_text_as_written_is_what_is_shown():
    faults = Faults(written={"engine.quantization": "off"}.get)
    value(str | None, False, "engine.quantization", faults)
    [(where, said)] = faults.found
    assert where == "engine.quantization"
    assert said.endswith('YAML reads off as false; if the word is meant, quote it: "off"')


def test_a_fault_noted_before_is_not_noted_again():
    faults = Faults()
    assert value(int, INVALID, "a", faults) is INVALID
    assert read(Settings, INVALID, "a", faults) is None
    assert faults.found == []
    faults.add("a", "b")
    faults.add("a", "b")
    assert faults.found == [("a", "b")]


@dataclass(frozen=True, kw_only=True)
class Inner:
    count: int = field(metadata={"min": 2})


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    maybe: Inner | Literal["none_ok"] | None = None


def test_a_missing_key_without_default_is_named():
    faults = Faults()
    assert read(Outer, {}, "outer", faults) is None
    assert faults.found == [("outer.inner", "missing: {count}")]


def test_an_empty_section_takes_its_defaults():
    faults = Faults()
    assert read(Settings, {"measure": {"warmup": None}}, "", faults) == Settings()
    assert faults.found == []


def test_a_union_reads_whichever_fits():
    for given_value, expected in (
        (None, None),
        ("none_ok", "none_ok"),
        ({"count": 2}, Inner(count=2)),
    ):
        found = read(Outer, {"inner": {"count": 3}, "maybe": given_value}, "", Faults())
        assert found is not None
        assert found.maybe == expected
    faults = Faults()
    read(Outer, {"inner": {"count": 3}, "maybe": 3}, "", faults)
    assert faults.found == [
        (
            "maybe",
            '3 given, wanted: {count} or none_ok or null; if the word is meant, quote it: "3"',
        )
    ]


def test_what_is_no_mapping_is_no_section():
    faults = Faults()
    assert read(Inner, 3, "x", faults) is None
    assert faults.found == [("x", "3 given, wanted: {count}")]


def test_leaves_go_through_optional_sections():
    assert "demand.gpus" in leaves(Study)
    assert "quality.min" in leaves(Study)
    assert "settings.measure.finalists.blocks" in leaves(Study)
    assert "exclude" in leaves(Study)


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("meter", True),
        ("engine", False),
        ("engine.options", True),
        ("engine.options.a", True),
        ("engine.options.a.b", True),
        ("engine.options.", False),
        ("engine.dtype.a", False),
        ("measure.warmup", False),
        ("measure.warmup.min_batches", True),
        ("", False),
    ],
)
def test_a_key_is_known_where_it_can_be_set(key, known):
    assert (leaf_of(key) is not None) is known


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a", "a", True),
        ("a", "a.b", True),
        ("a[0]", "a", True),
        ("a.b", "a.c", False),
        ("a.bc", "a.b", False),
    ],
)
def test_keys_overlap_where_one_is_part_of_the_other(one, other, same):
    assert overlap(one, other) is same
    assert overlap(other, one) is same
