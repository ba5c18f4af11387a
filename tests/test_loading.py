"""Libraries are imported in processes of their own: whatever they do there becomes a sentence."""

import os
import sys

import pytest

from sweeper.engines import loading
from sweeper.engines.loading import Attempt

pytestmark = pytest.mark.process

LIBRARIES = {
    "breaks": "raise ImportError('libcudart.so.13: cannot open shared object file')",
    "dies": "import os; os.abort()",
    "hangs": "import time; time.sleep(600)",
    "talks": "print('a banner')",
}


class Traits:
    needs_gpu = False

    def __init__(self, *libraries):
        self.libraries = libraries


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """Tries engines that are named like the one library that they import."""
    for name, code in LIBRARIES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    monkeypatch.setattr(loading, "engine_traits", Traits)

    def results(*kinds, limit_s=60.0):
        tried = Attempt(kinds)
        tried.start(limit_s)
        return tried.results()

    return results


def test_a_library_loads_breaks_dies_or_is_not_there(attempt):
    found = attempt("talks", "breaks", "dies", "absent")
    assert found["talks"] == {"needs_gpu": False, "missing": [], "loads": True}
    assert found["breaks"]["loads"] is False
    assert found["breaks"]["said"].startswith("ImportError: libcudart.so.13: cannot open")
    assert found["dies"] == {
        "needs_gpu": False,
        "missing": [],
        "loads": False,
        "said": "its process ended with status -6",
    }
    assert found["absent"] == {"needs_gpu": False, "missing": ["absent"], "loads": False}


def test_a_library_that_takes_too_long_is_not_known_to_load(attempt):
    found = attempt("hangs", limit_s=0.5)
    assert found == {"hangs": {"needs_gpu": False, "missing": [], "loads": None}}


@pytest.mark.engine
def test_torch_says_on_how_many_gpus_it_computes():
    tried = Attempt(["transformers"])
    tried.start(120.0)
    assert tried.results()["transformers"] == {
        "needs_gpu": False,
        "missing": [],
        "loads": True,
        "gpus": 0,
    }
