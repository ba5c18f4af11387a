"""The page of a study as text: what it holds, how it says it, and that nothing escapes it."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.__main__ import main
from sweeper.answers.best import answers
from sweeper.answers.markup import Html, element, join
from sweeper.answers.page import FILE, page, save
from sweeper.answers.page_cost import wall_s
from sweeper.answers.page_scale import scale
from sweeper.answers.page_words import TIMES
from sweeper.answers.results import canonical
from sweeper.errors import PlaceError
from sweeper.plan import expand
from sweeper.results.contents import Contents
from sweeper.results.journal import Journal
from sweeper.study import dump
from tests import pages
from tests.records import make_record, make_window, two_objectives

VOID = {"meta", "link", "br", "hr", "img", "wbr"}
MADE = {"measured": pages.measured, "estimate": pages.estimated, "simulation": pages.simulated}
JOULES = re.compile(r"\d (?:[nµmkM]?J(?:/token)?|kWh)\b")


class Tree(HTMLParser):
    """Checks that elements nest, and collects ids, links and tables."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.links, self.names = [], [], [], set()
        self.words = []
        self.rows, self.tables = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.names.add(tag)
        self.ids += [found["id"]] if "id" in found else []
        for key in ("href", "aria-labelledby"):
            if key in found and not found[key].startswith("data:"):
                self.links.append(found[key].removeprefix("#"))
        if tag == "table":
            self.tables.append({"heads": [], "rows": []})
        if tag == "tr":
            self.rows.append([])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open or "script" in self.open:
            return
        self.words.append(data)
        for part, cells in (("thead", "heads"), ("tbody", "rows")):
            if part in self.open and {"th", "td"} & set(self.open):
                self.tables[-1][cells].append(data)


def made(study, contents):
    return page(study, contents, answers(contents.standing(), study))


@pytest.fixture(scope="module", params=MADE)
def kind_and_text(request):
    return request.param, made(*MADE[request.param]())


@pytest.fixture(scope="module")
def measured():
    return made(*pages.measured())


def words(text):
    return " ".join(" ".join(Tree(text).words).split())


def test_a_page_is_whole_and_every_link_in_it_leads_somewhere(kind_and_text):
    tree = Tree(kind_and_text[1])
    assert len(tree.ids) == len(set(tree.ids))
    assert set(tree.links) <= set(tree.ids)
    assert {"h1", "h2", "h3", "main", "header", "footer", "caption", "figcaption"} <= tree.names


def test_nothing_in_a_page_names_anything_outside_it(kind_and_text):
    _, text = kind_and_text
    assert re.findall(r"""(?:src|href|action|data)=["'](?!#|data:,")[^"']*""", text) == []
    assert re.findall(r"@import|url\(|https?://", text) == []
    assert "default-src 'none'" in text


def test_the_same_journal_gives_the_same_page(kind_and_text):
    kind, text = kind_and_text
    assert made(*MADE[kind]()) == text


def test_a_page_says_at_its_top_what_was_not_measured(kind_and_text):
    kind, text = kind_and_text
    banner = f"{kind.upper()}, NOT MEASURED"
    assert (banner in text) is (kind != "measured")
    if kind == "measured":
        assert 'class="badge"' not in text
        assert 'class="watermark"' not in text
    else:
        assert banner in text[text.index("<title>") : text.index("</title>")]
        assert text.index(f"<strong>{banner}") < text.index("<h1>")


@pytest.mark.parametrize("kind", ["estimate", "simulation"])
def test_every_joule_that_was_not_measured_says_so(kind):
    tree = Tree(made(*MADE[kind]()))
    said = [each for each in tree.words if JOULES.search(each)]
    assert said
    for each in said:
        assert kind in each or "gain error" in each, each


@pytest.mark.parametrize("kind", ["estimate", "simulation"])
def test_headings_of_tables_and_plots_say_what_was_not_measured(kind):
    text = made(*MADE[kind]())
    of_energy = [t for t in Tree(text).tables if any("energy" in head for head in t["heads"])]
    assert len(of_energy) >= 3
    for table in of_energy:
        energies = sum("energy per" in head for head in table["heads"])
        assert table["heads"].count(kind) >= energies
    plots = re.findall(r'<svg viewBox="0 0 (?:800|350).*?</svg>', text, re.DOTALL)
    assert len(plots) == 2 * (2 if kind == "simulation" else 1)
    for plot in plots:
        assert f">{kind.upper()}<" in plot
        assert f"energy per output token [mJ/token] ({kind})" in plot
        for label in re.findall(r'aria-label="([^"]*)"', plot):
            assert f"({kind})" in label
    for heading in re.findall(r"<h[23][^>]*>(.*?)</h[23]>", text):
        if "gainst" in heading or "results" in heading:
            assert kind in heading


def test_a_measured_page_has_the_whole_story(measured):
    said = words(measured)
    for each in (
        "Recommended: tensor_parallel 4, batch_size 64",
        "vllm serve meta-llama/Llama-3.1-8B-Instruct --dtype bfloat16 --tensor-parallel-size 4",
        "latency mean ≤ 2.00 s and TPOT p99 ≤ 30.0 ms",
        "Against the baseline, tensor_parallel 1",
        "unpaired, 3 launches",
        "Best as the limit on latency mean moves",
        "out of memory: 81.2 GiB wanted, 79.6 GiB there",
        "the engine was silent for 300 s",
        "15.0 GPU-hours",
        f"4 {TIMES} NVIDIA H100 80GB HBM3",
        "changed: GPU driver 580.65 -> 590.12",
        "gain error ±5 %",
        "p99 of time per output token after the first",
        "joules per generated token",
        "name: tp_study",
        "2026-01-02 03:04 to 2026-01-04 05:16 UTC",
    ):
        assert each in said


def test_each_result_has_a_mark_in_both_drawings_and_a_row(measured):
    marks = re.findall(r'<a href="#(c1-tp[^"]*)" class="mark s\d', measured)
    rows = re.findall(r'<tr id="(c1-tp[^"]*)"', measured)
    assert len(rows) == 14
    assert sorted(marks) == sorted(2 * rows)


def test_what_misses_a_limit_is_hollow_and_said_to_miss(measured):
    hollow = re.findall(r'class="mark s\d hollow"[^>]*aria-label="([^"]*)"', measured)
    assert len(hollow) == 6
    assert all("does not meet" in each for each in hollow)
    assert 'class="beyond"' in measured
    assert len(re.findall("misses (?:latency mean|TPOT p99)[,<]", measured)) == 3
    assert "limit 2.00 s" in measured


@pytest.mark.long
def test_five_hundred_points_are_a_small_page_that_leads_with_the_fronts():
    study, contents = pages.many()
    found = answers(contents.standing(), study)
    text = page(study, contents, found)
    assert len(text) < 2_000_000
    assert len(re.findall(r'<a href="#c\d-tp[^"]*" class="mark s', text)) == 2 * 500
    folded = re.compile(r"<details>.*?</details>", re.DOTALL)
    sections = re.findall(r'<section id="(c\d)".*?</section>', text, re.DOTALL)
    assert len(sections) == len(found) == 4
    row = re.compile(r'<tr id="c\d-(tp[^"]*)"')
    hidden = row.findall("".join(folded.findall(text)))
    seen = row.findall(folded.sub("", text))
    fronts = [{result.id for result in (*each.front, each.best)} for each in found]
    assert set(seen) == set.union(*fronts)
    assert sorted(seen + hidden) == sorted(record.id for record in contents.records)
    assert len(seen) < 150
    Tree(text)


def test_with_one_launch_no_interval_is_claimed():
    said = words(made(*pages.estimated()))
    assert "One launch each: there are no intervals." in said
    assert "no interval" in said
    assert "±" not in said


def test_nothing_that_meets_the_limits_shows_the_nearest_miss_and_its_price():
    study, contents = pages.measured()
    said = words(made(replace(study, limits={"latency_mean_s": 0.1}), contents))
    assert "Nothing is recommended" in said
    assert "Nearest miss" in said
    assert "nothing meets it together with the others; at" in said


def test_a_result_that_was_measured_in_the_same_lease_is_paired():
    chosen = [{pages.WIDTH: width, pages.SIZE: 1} for width in (1, 2)]
    records = [
        make_record(
            f"tp{each[pages.WIDTH]}",
            launch=launch,
            chosen=each,
            metrics=two_objectives(each[pages.WIDTH] + launch / 9, 1.0),
            trial_id=f"block-{launch}",
        )
        for each in chosen
        for launch in range(2)
    ]
    assert "paired, 2 blocks" in words(made(pages.study(), pages.contents(records)))


def test_comparisons_of_different_kinds_each_say_how():
    chosen = [{pages.WIDTH: width, pages.SIZE: size} for size in (1, 4) for width in (1, 2)]
    records = [
        make_record(
            f"tp{each[pages.WIDTH]}-{each[pages.SIZE]}",
            launch=launch,
            chosen=each,
            metrics=two_objectives(each[pages.WIDTH] + launch / 9, 1.0),
            trial_id=f"block-{launch}" if each[pages.SIZE] == 1 else f"{launch}-{each}",
        )
        for each in chosen
        for launch in range(2)
    ]
    tables = Tree(made(pages.study(), pages.contents(records))).tables
    [savings] = [each for each in tables if "how" in each["heads"]]
    hows = [each for each in savings["rows"] if re.match("(un)?paired", each)]
    assert hows == ["paired, 2 blocks", "unpaired, 2 launches"]


def test_conditions_without_any_result_stand_in_order():
    lost = [
        make_record(
            str(n), status="failed", reason="died", condition={pages.LENGTH: n}, energy=None
        )
        for n in (2048, 128, 512)
    ]
    said = words(made(pages.study(conditions=(128, 512, 2048)), pages.contents(lost)))
    heads = [f"input_tokens={n} Nothing was measured" for n in (128, 512, 2048)]
    assert [said.index(each) for each in heads] == sorted(said.index(each) for each in heads)


HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(1)>'


def test_hostile_names_stay_text():
    text = made(*pages.hostile(HOSTILE))
    tree = Tree(text)
    assert "img" not in tree.names
    assert text.count("<script>") == 1
    assert text.count(html.escape(HOSTILE)) > 10


def test_credentials_in_the_study_are_not_shown():
    study, contents = pages.estimated()
    secret = {"kind": "study", "text": "tracking: {uri: 'https://me:secret@host/x'}"}
    text = made(study, replace(contents, studies=(secret,)))
    assert "secret" not in text
    assert "host/x" in text


def test_a_study_without_any_record_has_a_page():
    text = made(pages.study(), Contents(journal="ab"))
    assert "Nothing was measured" in words(text)


def test_points_without_energy_are_counted_with_the_reasons_of_their_windows():
    window = make_window(energy_j=None, reasons=["thermal_slowdown: 90 C"])
    records = [make_record("a", status="energy_invalid", reason="no window", windows=[window])]
    said = words(made(pages.study(), pages.contents(records)))
    assert "thermal_slowdown 1 a GPU was slowed down because it was too hot better cooling" in said
    assert "without energy 1 no window" in said
    assert "No plot: no result has" in said


def test_joules_of_different_origins_are_never_added():
    measured, estimated = pages.measured()[1], pages.estimated()[1]
    renamed = tuple(replace(each, id=f"e-{each.id}") for each in estimated.records)
    mixed = replace(measured, records=measured.records + renamed)
    said = words(made(pages.study(), mixed))
    assert "energy of the windows, by nvml (gpu)" in said
    assert "energy of the windows, by codecarbon (node) estimate" in said
    assert "It concerns the parts of the page that carry the same word." in said


def test_joules_of_whole_leases_are_summed_by_origin_and_unknown_ones_counted():
    def lease(joules, **of):
        energy = {"source": "nvml", "measured": True, "scope": "gpu"} | of
        return {"kind": "ended", "trial_id": "t", "energy_j": joules, "energy": energy}

    leases = (
        lease(3.6e6),
        lease(1.8e6),
        lease(7.2e6, source="codecarbon", measured=False, scope="node"),
        {"kind": "ended", "trial_id": "t", "energy_j": None, "energy": None},
        {"kind": "ended", "trial_id": "t"},
    )
    study, contents = pages.measured()
    said = words(made(study, replace(contents, ended=leases)))
    assert "energy of whole leases, by nvml (gpu) 5.40 MJ (1.50 kWh) in 2 leases" in said
    assert "7.20 MJ (2.00 kWh) in 1 lease (estimate, not measured)" in said
    assert "leases whose energy is not known 2" in said


def test_wall_time_leaves_out_the_time_between_sittings():
    hours = {"2026-01-02T03:00:00+00:00": 2, "2026-01-05T03:00:00+00:00": 1}
    contents = Contents(
        sittings=tuple({"kind": "sitting", "started_at": each} for each in hours),
        records=tuple(
            make_record(str(number), ended_at=f"{start[:11]}0{3 + number}:00:00+00:00")
            for start, number in hours.items()
        ),
    )
    assert wall_s(contents) == 3 * 3600


def test_a_page_is_saved_whole_or_not(tmp_path):
    assert save("<p>ä</p>", {}, tmp_path).read_text(encoding="utf-8") == "<p>ä</p>"
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    with pytest.raises(PlaceError):
        save("", {}, tmp_path / FILE)


def test_markup_escapes_everything_but_markup():
    made = element("p", "<b>", Html("<i>"), ["&", None, 3], title='"<', hidden=True, lang=None)
    assert made == '<p title="&quot;&lt;" hidden>&lt;b&gt;<i>&amp;3</p>'
    assert join("a<", element("br")) == "a&lt;<br>"


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8),
    st.lists(st.floats(-1e6, 1e6), max_size=3),
    st.integers(5, 9),
)
def test_an_axis_shows_all_values_in_order_with_ticks_inside(values, marks, most):
    axis = scale(values, marks, 10.0, 300.0)
    assert all(axis.shows(value) for value in values)
    pixels = [axis.pixel(value) for value in sorted(values)]
    assert pixels == sorted(pixels)
    ticks = axis.ticks(most)
    assert 2 <= len(ticks) <= most
    assert all(axis.shows(tick) for tick in ticks)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
def test_values_without_logarithms_have_an_even_axis(values):
    axis = scale([*values, 0.0], [], 10.0, 300.0)
    assert not axis.logarithmic
    assert len(axis.ticks(9)) >= 2


def test_the_command_writes_the_page_into_the_studys_folder(tmp_path, monkeypatch, capsys):
    study, contents = pages.measured()
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mlruns" / "studies" / study.name
    ids = {canonical(point.chosen): point.id for point in expand(study)[0]}
    with Journal.open(folder, dump(study)) as journal:
        for each in contents.records:
            known = ids.get(canonical(each.chosen), each.id)
            journal.append("record", replace(each, id=known).to_json())
    (tmp_path / "tp.yaml").write_text(dump(study))
    for name in ("tp.yaml", str(folder)):
        assert main(["report", name]) == 0
        printed = Path(capsys.readouterr().out.strip())
        assert printed.samefile(folder / FILE)
        assert "Recommended: tensor_parallel 4, batch_size 64" in words(printed.read_text())
        printed.unlink()
    assert main(["report", "nowhere.yaml"]) == 2
