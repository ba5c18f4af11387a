"""What `mlflow ui` shows of a study, in a real browser."""

import json
import os
import shutil
import signal
import subprocess
import sys
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect, sync_playwright

from sweeper.answers.best import answers
from sweeper.answers.figure import figure
from sweeper.answers.table import table
from sweeper.results.attachments import pack_log
from sweeper.results.journal import Journal
from sweeper.results.power import pack_trace
from sweeper.results.tracking import Tracking
from sweeper.spec import EngineSpec, MeasureSpec, ModelSpec, Settings, Study, WorkloadSpec
from tests.loopback import free_port
from tests.records import ESTIMATED, make_record, make_window
from tests.tracked import PATIENCE_S, until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "batching"
SIZE = "workload.batch_size"
STUDY = Study(
    name=NAME,
    settings=Settings(
        model=ModelSpec(shape="tiny", weights="dummy"),
        engine=EngineSpec(kind="transformers"),
        workload=WorkloadSpec(input_tokens=100, output_tokens=50),
        measure=MeasureSpec(),
        meter="codecarbon",
    ),
    objectives={"energy_per_output_token_j": "min", "latency_mean_s": "min"},
)
ENERGY_J = {1: 7070.0, 4: 8080.0, 16: 1010.0}
LATENCY_S = {1: 0.515, 4: 2.525, 16: 1.535}
PER_TOKEN_J = {size: energy / 500 for size, energy in ENERGY_J.items()}
FRONT = (16, 1)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Its assistant opens by itself over a quarter of the page, and its first tour over all of it.
QUIET = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"


def record(size):
    return make_record(
        f"point-{size}",
        config={"engine.kind": "transformers", "workload.kind": "fixed"},
        chosen={SIZE: size},
        windows=[make_window(energy_j=ENERGY_J[size], latency_s=[LATENCY_S[size]] * 10)],
        energy=ESTIMATED,
        study=NAME,
        launch_command=f"python -m engine --batch-size {size}",
    )


def fill(root):
    """The road of a study's end: journal, answers, MLflow."""
    records = [record(size) for size in ENERGY_J]
    found = answers(records, STUDY)
    assert tuple(result.chosen[SIZE] for result in found[0].front) == FRONT
    with Journal.open(root / "studies" / NAME, f"name: {NAME}\n") as journal:
        for each in records:
            journal.append("record", each.to_json())
            of = {"trial_id": each.trial_id, "attempt": each.attempt}
            trace = pack_trace([(101.0 + tick, "GPU-0", 99.0) for tick in range(9)])
            journal.attach(f"{each.id}.power", trace, role="power_trace", of=of)
            journal.attach(f"{each.id}.log.gz", pack_log(b"hello\n"), role="engine_log", of=of)
        with Tracking(None, NAME, journal.folder, root, poll_s=0.05) as tracking:
            tracking.figures({"front.png": figure(found, STUDY)})
            tracking.note("best: batch_size=16", table(STUDY, records, found))
            tracking.front([each.key for each in records if each.chosen[SIZE] in FRONT])
            assert tracking.finish(PATIENCE_S) == 0, tracking.trouble
    return tracking.public_uri


class Shown:
    """The pages of one store, by what they are about."""

    def __init__(self, uri, address, page):
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        self.experiment = client.get_experiment_by_name(NAME).experiment_id
        runs = client.search_runs([self.experiment])
        self.ids = {run.info.run_name: run.info.run_id for run in runs}
        self.address = address
        self.page = page

    def open(self, path):
        self.page.goto("about:blank")  # from one fragment to another, nothing would be loaded
        self.page.goto(f"{self.address}/#/{path}")
        return self.page

    def runs(self, **query):
        query = {"workflowType": "machine_learning", **query}
        words = "&".join(f"{key}={quote(value)}" for key, value in query.items())
        return self.open(f"experiments/{self.experiment}/runs?{words}")

    def run(self, name, tab=""):
        return self.open(f"experiments/{self.experiment}/runs/{self.ids[name]}{tab}")

    def sees(self, *texts):
        for text in texts:
            expect(self.page.locator("body")).to_contain_text(text)

    def names(self, count):
        """The runs listed, from top to bottom."""
        links = self.page.locator("[role=gridcell] a[href*='/runs/']")
        expect(links).to_have_count(count)
        return links.all_inner_texts()


@pytest.fixture(scope="module")
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail("no Chromium: CI must look at MLflow's pages")
        pytest.skip("no Chromium to open MLflow's pages in")
    return found


@pytest.fixture(scope="module")
def uri(browser, tmp_path_factory):
    return fill(tmp_path_factory.mktemp("ui") / "mlruns")


@pytest.fixture(scope="module")
def address(uri, tmp_path_factory):
    """`mlflow ui` as the terminal says to start it, on a port of its own."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    arguments = ["ui", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *arguments],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, **settings},
            start_new_session=True,
        )

    def answering():
        assert server.poll() is None, (folder / "log").read_text()
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    try:
        until(answering)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="module")
def shown(browser, uri, address, tmp_path_factory):
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=browser,
            args=FLAGS,
            viewport={"width": 1400, "height": 900},
        )
        context.set_default_timeout(1000 * PATIENCE_S)
        expect.set_options(timeout=1000 * PATIENCE_S)
        context.add_init_script(QUIET)
        yield Shown(uri, address, context.new_page())
        context.close()


def test_the_study_is_listed_and_unfolds_into_its_records(shown):
    page = shown.open("experiments")
    page.get_by_text("Model training").click()  # else it shows the traces of agents: none
    page.get_by_role("link", name=NAME, exact=True).click()
    assert shown.names(1) == [NAME]
    page.locator("[role=gridcell] button").first.click()
    assert sorted(shown.names(4)) == sorted([NAME, *(f"batch_size={size}" for size in ENERGY_J)])


def test_sorted_by_a_metric_the_records_stand_in_a_row(shown):
    shown.runs(orderByKey="metrics.`energy_per_output_token_j`", orderByAsc="true")
    assert shown.names(4) == ["batch_size=16", "batch_size=1", "batch_size=4", NAME]


def test_one_filter_shows_the_front(shown):
    order = {"orderByKey": "metrics.`energy_per_output_token_j`", "orderByAsc": "true"}
    shown.runs(searchFilter="tags.front = 'true'", **order)
    assert shown.names(2) == [f"batch_size={size}" for size in FRONT]


def test_a_record_shows_its_numbers_its_settings_and_that_they_are_an_estimate(shown):
    shown.run("batch_size=4")
    shown.sees("Parent run", NAME, "energy_per_output_token_j", str(PER_TOKEN_J[4]))
    shown.sees(SIZE, "estimate, not measured", "Too few samples for latency_p90_s, latency_p99_s")
    shown.sees("python -m engine --batch-size 4", "measured: false", "energy_source: codecarbon")


def test_a_record_has_its_files(shown):
    shown.run("batch_size=16", "/artifacts/record.json")
    shown.sees("engine.log.gz", "power.parquet", '"trial_id"', '"trial-point-16-0-full"')


def test_the_study_shows_its_answer_and_its_figure(shown):
    shown.run(NAME)
    shown.sees("Child runs", *(f"batch_size={size}" for size in ENERGY_J))
    shown.sees("best: batch_size=16", "ESTIMATE, NOT MEASURED", "best: point-16")
    page = shown.run(NAME, "/artifacts/figures/front.png")
    image = page.locator("img[src^='blob:']").first
    image.wait_for()
    page.wait_for_function("image => image.naturalWidth > 300", arg=image.element_handle())


def test_records_are_compared_side_by_side(shown):
    ids = [shown.ids[f"batch_size={size}"] for size in ENERGY_J]
    runs, experiments = quote(json.dumps(ids)), quote(json.dumps([shown.experiment]))
    shown.open(f"compare-runs?runs={runs}&experiments={experiments}")
    shown.sees("Comparing 3 Runs", *(f"batch_size={size}" for size in ENERGY_J))
    shown.sees(*(str(latency) for latency in LATENCY_S.values()))
