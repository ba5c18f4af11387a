"""Bad input through the real command line: a message with the place and the way out, status 2."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.__main__ import COMMANDS, main
from sweeper.plan import expand
from sweeper.results.contents import FILE
from sweeper.results.journal import Journal
from sweeper.study import dump, load
from tests.loopback import free_port
from tests.records import make_record, two_objectives
from tests.studies import write

CONF = Path(__file__).parents[1] / "conf"
BASE = "model: {shape: tiny, weights: dummy}\nengine: {kind: simulated}\n"
WIDEST = 100
ADD_A_POOL = "  add a pool for fit, time and energy, such as --dry-run 1x8:H100"


@pytest.fixture
def type_in(tmp_path, monkeypatch, capsys):
    """Types a command in an empty folder that has `base.yaml`; status, output and complaint."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)

    def typed(*words):
        status = main(words)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err

    heard = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield typed
    for number, handler in heard.items():
        signal.signal(number, handler)


@pytest.fixture
def refused(type_in, tmp_path):
    """The complaint of a command that is refused, and that leaves nothing behind."""

    def typed(*words):
        before = sorted(tmp_path.rglob("*"))
        status, out, err = type_in(*words)
        assert status == 2
        assert out == ""
        assert err.startswith("sweeper: ")
        assert sorted(tmp_path.rglob("*")) == before
        return err.removeprefix("sweeper: ").strip()

    return typed


STUDIES = [
    ("modell: {id: x}", r"s\.yaml:2: modell: unknown key; did you mean model\?"),
    ("engine: {tensor_paralel: 2}", r"s\.yaml:2: engine\.tensor_paralel: .*tensor_parallel"),
    ("workload: {batch_size: many}", r's\.yaml:2: workload\.batch_size: "many" given, wanted'),
    ("model: {weights: off}", r"s\.yaml:2: model\.weights: .*off"),
    ("engine: {dtype: 16}", r"s\.yaml:2: engine\.dtype: 16 given, wanted"),
    ("axes: {engine.width: [1, 2]}", r"s\.yaml:2: axes\.engine\.width: .*unknown"),
    ("axes: {workload.input_tokens: [1, 2]}", r"s\.yaml:2: axes\..*conditions"),
    ("axes: {engine.tensor_parallel: 4}", r"s\.yaml:2: axes\.engine\.tensor_parallel: "),
    (
        "axes: {workload.batch_size: [1, 2]}\nexclude: [{workload.batch_size: '>0'}]",
        r"s\.yaml:3: exclude: leaves no combination of the axes: loosen an entry",
    ),
    ("limits: {ttft_p98_s: 1}", r"s\.yaml:2: limits\.ttft_p98_s: unknown metric; did you mean"),
    ("objectives: {joules: min}", r"s\.yaml:2: objectives\.joules: unknown metric"),
    ("name: a/b", r's\.yaml:2: name: "a/b" has \'/\', wanted: letters, digits'),
    ("name: ../up", r"s\.yaml:2: name: .*wanted: letters, digits"),
    ("name: " + "x" * 300, r"s\.yaml:2: name: has 300 characters, at most 100 wanted"),
    ("name: 'smile ☺'", r"s\.yaml:2: name: .*☺.*wanted: letters"),
    ("name: '${oc.env:HOME}'", r"s\.yaml:2: name: \$\{oc\.env:HOME\}: a study file is data"),
    ("engine: {kind: endpoint}", r"engine\.options: wanted: either command"),
    ("tracking: {uri: 'http://u:secret@host'}", r"tracking\.uri: holds a password"),
    ("tracking: {uri: ./runs}", r"tracking\.uri \./runs: MLflow no longer keeps records in plain"),
    ("engine: {options: {gpu: Z9}}", r"engine\.options: GPU type 'Z9': nothing known"),
    ("resources: {max_gpus: 2}\naxes: {engine.tensor_parallel: [4]}", r"resources\.max_gpus: "),
]


@pytest.mark.parametrize(("text", "said"), STUDIES, ids=range(len(STUDIES)))
def test_a_wrong_study_is_refused(refused, tmp_path, text, said):
    (tmp_path / "s.yaml").write_text(f"extends: base.yaml\n{text}\n")
    assert re.search(said, refused("s.yaml"))


def test_all_faults_of_a_study_are_told_at_once(refused, tmp_path):
    (tmp_path / "s.yaml").write_text("extends: base.yaml\nmetre: x\nlimits: {x: 1}\nname: a b\n")
    assert len(refused("s.yaml").splitlines()) == 3


def test_a_name_of_letters_of_any_language_is_a_name(type_in, tmp_path):
    (tmp_path / "s.yaml").write_text("extends: base.yaml\nname: größe_東京\n")
    assert type_in("s.yaml", "--dry-run")[:2] == (
        0,
        f"größe_東京: 1 point in 1 launch\n  trials      1 of 1 GPU\n{ADD_A_POOL}\n",
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [1,", r"s\.yaml:2: not YAML"),
        (b"\x89PNG\r\n\x1a\n", r"s\.yaml: not a text in UTF-8"),
        (b"", r"s\.yaml: empty"),
        (b"[1, 2]", r"s\.yaml: not a mapping of keys"),
    ],
)
def test_a_file_that_is_no_study_is_refused(refused, tmp_path, content, said):
    (tmp_path / "s.yaml").write_bytes(content)
    assert re.search(said, refused("s.yaml"))
    assert re.search(said, refused("front", "s.yaml"))


WORDS = [
    (["nowhere.yaml"], r"nowhere\.yaml: no such study file; there are base\.yaml"),
    (["a/b/c"], r"a/b/c: no such study file"),
    (["frnt", "base.yaml"], r"frnt: neither a study file nor a command; did you mean front\?"),
    (["zzz"], r"zzz: neither a study file nor a command; the commands: front, best, status"),
    (["."], r"\.: a folder without study\.yaml"),
    (["base.yaml", "--nope"], r"unrecognized arguments: --nope\nusage: python -m sweeper STUDY"),
    (["base.yaml", "--dry"], r"unrecognized arguments: --dry"),
    (["base.yaml", "--retry", "ok"], r"--retry: invalid choice: 'ok' .*failed.*energy_invalid"),
    (["base.yaml", "--mix", "--remeasure"], r"--remeasure: not allowed with .*--mix"),
    (["--json"], r"arguments are required: STUDY\.yaml.*\nusage: "),
    (["base.yaml", "batch_size"], r"command line, batch_size: not key=value"),
    (["base.yaml", "workload.batchsize=2"], r"workload\.batchsize.*batch_size"),
    (["base.yaml", "meter=off"], r"command line, meter=off: meter: "),
    (["base.yaml", "name=${oc.env:HOME}"], r"name: \$\{oc\.env:HOME\}: a study file is data"),
    (["base.yaml", "--dry-run", "H100"], r"'H100' is no pool: write NODESxGPUS:TYPE"),
    (["base.yaml", "--dry-run", "1x8:Z9"], r"GPU type 'Z9': nothing known of it; known: "),
    (["base.yaml", "--dry-run", "1x1:H100,1x1:A6000"], r"the pool mixes A6000 and H100"),
    (["front"], r"required: STUDY\nusage: python -m sweeper front STUDY"),
    (["front", "base.yaml"], r"nothing was measured yet, run: python -m sweeper base\.yaml"),
    (
        ["best", "base.yaml", "base.yaml"],
        r"unrecognized arguments: base\.yaml\nusage: .*best STUDY",
    ),
    (["show", "base.yaml"], r"required: ID\nusage: python -m sweeper show STUDY ID"),
    (["front", "base.yaml", "--where"], r"--where: expected one argument\nusage: "),
]


@pytest.mark.parametrize(("words", "said"), WORDS, ids=[" ".join(words) for words, _ in WORDS])
def test_a_wrong_command_line_is_refused(refused, words, said):
    assert re.search(said, refused(*words))


LATER = (("abc1", None), ("abd2", None))
"""Records of points that the study no longer has, better than any of its own."""


@pytest.fixture
def measured(tmp_path, type_in):
    """A study's file and folder, with two points measured."""
    path = write(tmp_path, name="little")
    study = load(path)
    folder = tmp_path / "mlruns" / "studies" / "little"
    with Journal.open(folder, dump(study)) as journal:
        points, _ = expand(study)
        for name, point in (*LATER, *((point.id, point) for point in points)):
            size = point.settings.workload.batch_size if point else 8
            record = make_record(
                name,
                study="little",
                metrics=two_objectives(1 / size, 0.1 * size),
                chosen={"workload.batch_size": size},
                launch_command="python - <<'END'\nimport torch\nEND",
            )
            journal.append("record", record.to_json())
    return folder


ASKED = [
    (
        ["show", "little.yaml", "xyz"],
        r"no record has an id that begins with 'xyz'; there are .*abc1",
    ),
    (["show", "little.yaml", "ab"], r"'ab' is the beginning of abc1, abd2; write more of it"),
    (["show", "little.yaml", ""], r"no record has an id that begins with ''"),
    (["best", "little.yaml", "--where", "energy<<1"], r"--where 'energy<<1': write METRIC<=X"),
    (["front", "little.yaml", "--where", "nonsense<=1"], r"--where .*: no such metric; did you"),
    (["front", "little.yaml", "--where", "energy_j<=nan"], r"with X a number"),
    (["best", "little.yaml", "--minimize", "latency"], r"--minimize latency: no such metric; did"),
    (["front", "little.yaml", "other.yaml"], r"other\.yaml: no such study file; there are "),
]


@pytest.mark.parametrize(("words", "said"), ASKED, ids=[" ".join(words) for words, _ in ASKED])
def test_a_wrong_question_is_refused(measured, refused, words, said):
    assert re.search(said, refused(*words))


@pytest.mark.parametrize(
    "command",
    # doctor reads no journal; to find damage is what verify is for.
    sorted(COMMANDS.keys() - {"doctor", "verify"}),
)
@pytest.mark.parametrize("damage", [b"no json\n", b'{"kind": "record"}\n', b"\xff\xff\n"])
def test_a_damaged_journal_is_named_with_its_line(measured, refused, command, damage):
    journal = measured / FILE
    journal.write_bytes(damage + journal.read_bytes())
    more = {"show": ["abc1"], "export": ["--to", "x.csv"]}
    said = refused(command, "little.yaml", *more.get(command, []))
    assert re.search(r"journal\.jsonl, line 1 is damaged: .*Put back a copy of the file", said)


def test_a_damaged_journal_stops_a_run_before_anything_starts(measured, refused):
    journal = measured / FILE
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"{}\n", *lines[1:]]))
    (measured / "lock").touch()
    assert re.search(r"journal\.jsonl, line 2 is damaged", refused("little.yaml"))


def test_answers_are_read_by_file_and_by_folder(measured, type_in):
    status, text, _ = type_in("front", "little.yaml")
    assert status == 0
    one, four = (point.id for point in expand(load(Path("little.yaml")))[0])
    assert one in text
    assert four in text
    assert not any(name in text for name, _ in LATER)
    assert "import torch" not in text
    assert type_in("front", str(measured)) == (0, text, "")
    [shown] = re.findall(r"python -m sweeper (show .*)", text)
    assert "\npython - <<'END'\nimport torch\nEND\n" in type_in(*shown.split())[1]


def test_answers_as_json_are_one_object(measured, type_in):
    status, text, _ = type_in("best", "little.yaml", "--json")
    found = json.loads(text)
    assert (status, found["study"]) == (0, "little")
    assert found["answers"][0]["best"]["id"] == expand(load(Path("little.yaml")))[0][1].id


def test_a_best_that_nothing_meets_has_a_status_of_its_own(measured, type_in):
    status, text, _ = type_in("best", "little.yaml", "--where", "latency_mean_s<=0.001")
    assert status == 3
    one = expand(load(Path("little.yaml")))[0][0].id
    assert f"nothing meets the limits; nearest is {one}: latency_mean_s" in text


def test_without_words_the_commands_and_the_studies_are_shown(type_in, tmp_path):
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / "odd.yaml").write_bytes(b"\xff")
    (tmp_path / "conf" / "long.yaml").write_text("# " + "word " * 60 + "\nname: long\n")
    status, text, _ = type_in()
    assert status == 0
    assert max(map(len, text.splitlines())) <= WIDEST
    for command in COMMANDS:
        assert f"python -m sweeper {command}" in text
    assert re.search(r"conf/quickstart\.yaml +What does batching save\?", text)
    assert re.search(r"conf/odd\.yaml +\(cannot be read\)", text)
    assert re.search(r"conf/long\.yaml +word .* \.\.\.", text)
    for words in (["--help"], ["-h"], ["help"]):
        assert type_in(*words) == (0, text, "")


@pytest.mark.parametrize("words", [["s.yaml", "--help"], *([name, "-h"] for name in COMMANDS)])
def test_every_command_explains_itself(type_in, capsys, words):
    with pytest.raises(SystemExit) as ended:
        type_in(*words)
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m sweeper ")
    assert max(map(len, text.splitlines())) <= WIDEST


@pytest.mark.parametrize(
    "words",
    [
        ["--dry-run", "base.yaml"],
        ["base.yaml", "--dry-run"],
        ["base.yaml", "--dry-run", "workload.batch_size=2"],
        ["workload.batch_size=2", "base.yaml", "--dry-run", "1x1:H100"],
    ],
)
def test_a_dry_run_takes_its_words_in_any_order(type_in, tmp_path, words):
    if words[0].startswith("workload"):
        words = [words[1], words[0], *words[2:]]
    status, text, err = type_in(*words)
    assert (status, err) == (0, "")
    assert text.startswith("base: 1 point in 1 launch")
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize("name", ["quickstart", "tp_study"])
@pytest.mark.parametrize("pool", [[], ["1x8:H100"], ["2x4:A6000,1x8:A6000"]])
def test_a_dry_run_of_a_study_that_comes_along_fits_the_terminal(type_in, name, pool):
    status, text, _ = type_in(str(CONF / f"{name}.yaml"), "--dry-run", *pool)
    assert status == 0
    assert max(map(len, text.splitlines())) <= WIDEST
    assert ("kWh" in text) == bool(pool)
    found = json.loads(type_in(str(CONF / f"{name}.yaml"), "--json", "--dry-run", *pool)[1])
    assert found["study"] == name
    assert ("expected" in found) == bool(pool)


def child(*words, cwd, **environment):
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(CONF.parent), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_ends_with_its_status_and_without_a_traceback(tmp_path):
    ended = child("-m", "sweeper", "nowhere.yaml", "--json", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "sweeper: nowhere.yaml: no such study file\n"
    ended = child("-m", "sweeper", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_server_that_does_not_answer_stops_a_run_before_anything_starts(refused, tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "s.yaml").write_text(f"extends: base.yaml\ntracking: {{uri: '{address}'}}\n")
    said = refused("s.yaml")
    assert f"no MLflow server answers at {address}" in said
    assert "start it" in said


def test_a_file_in_place_of_mlruns_is_named(refused, tmp_path):
    (tmp_path / "mlruns").write_text("")
    said = refused("base.yaml")
    assert "cannot write mlruns/studies/base: Not a directory: move away what stands at" in said


def test_a_second_driver_is_told_who_has_the_study(measured, refused):
    with Journal.open(measured, dump(load("little.yaml"))):
        said = refused("little.yaml")
    assert str(os.getpid()) in said
