"""Where models are kept and whether there is a token, without the token."""

import json
import os
from pathlib import Path

import pytest

from sweeper.engines.hub import cache_folder, has_token, hub_facts, offline


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "~/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/huggingface/hub"),
        ({"HF_HOME": "/home", "XDG_CACHE_HOME": "/xdg"}, "/home/hub"),
        ({"HF_HOME": "~/models"}, "~/models/hub"),
        ({"HF_HUB_CACHE": "/cache", "HF_HOME": "/home"}, "/cache"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/home"}, "/old"),
    ],
)
def test_the_cache_is_where_the_hubs_library_keeps_it(environment, expected):
    assert cache_folder(environment) == Path(expected).expanduser()


def test_a_token_is_seen_and_not_told(tmp_path):
    home = {"HF_HOME": str(tmp_path)}
    assert not has_token(home)
    assert has_token(home | {"HF_TOKEN": "hf_secret"})
    (tmp_path / "token").write_text("hf_secret")
    assert has_token(home)
    assert not has_token(home | {"HF_TOKEN_PATH": str(tmp_path / "none")})
    told = hub_facts(home | {"HF_TOKEN": "hf_secret"})
    assert told["token"] is True
    assert "hf_secret" not in json.dumps(told)


def test_a_hub_that_may_not_be_asked():
    assert offline({"HF_HUB_OFFLINE": "0"}) == []
    assert offline({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "yes"}) == [
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
    ]


def test_the_disk_of_a_cache_that_is_not_made_yet(tmp_path):
    told = hub_facts({"HF_HOME": str(tmp_path / "not" / "yet")})
    assert (told["cache"], told["writable"]) == (str(tmp_path / "not" / "yet" / "hub"), True)
    assert told["free_bytes"] > 0
    assert not (tmp_path / "not").exists()
    (tmp_path / "file").write_text("")
    assert hub_facts({"HF_HOME": str(tmp_path / "file")})["writable"] is False


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_folder_that_is_closed_to_us(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    told = hub_facts({"HF_HOME": str(tmp_path / "closed" / "in")})
    assert (told["writable"], told["free_bytes"]) == (False, None)
