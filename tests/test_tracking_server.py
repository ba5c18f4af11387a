import base64
import http.client
import os
import signal
import subprocess
import sys

import pytest

from sweeper.errors import PlaceError
from sweeper.results.journal import Journal
from sweeper.results.tracking import check
from tests.loopback import Quiet, free_port, web
from tests.tracked import (
    PATIENCE_S,
    Store,
    is_whole,
    journal_record,
    record,
    track,
    until,
)

pytestmark = pytest.mark.mlflow

SERVER_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven more processes, which nothing here needs
}


class Server:
    """A real one, which can be killed and started again on the same port and database."""

    def __init__(self, root):
        self.root = root
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        arguments = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        arguments += ["--backend-store-uri", f"sqlite:///{self.root / 'server.db'}"]
        arguments += ["--artifacts-destination", str(self.root / "artifacts")]
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *arguments],
                stdout=log,
                stderr=log,
                cwd=self.root,
                env={**os.environ, **SERVER_SETTINGS},
                start_new_session=True,
            )
        until(self.answers)

    def answers(self):
        assert self.process.poll() is None, (self.root / "server.log").read_text()
        try:
            check(self.uri, self.root)
        except PlaceError:
            return False
        return True

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "mlruns" / "studies" / "x", "name: a study\n") as journal:
        yield journal


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_a_tracking_server_gets_everything_also_when_it_dies_in_the_middle(server, journal):
    items = {f"p{number}/0/full/0": record(f"p{number}") for number in range(6)}
    figures = {"front.png": b"\x89PNG"}
    with track(journal, server.uri) as tracking:
        for item in list(items.values())[:3]:
            journal_record(journal, item)
        until(lambda: tracking._mirror.complete == 3)
        server.kill()
        for item in list(items.values())[3:]:
            journal_record(journal, item)
        until(lambda: tracking.trouble is not None)
        tracking.figures(figures)
        tracking.front([("p4", 0, "full")])
        server.start()
        assert tracking.finish(PATIENCE_S) == 0, tracking.trouble
    store = Store(server.uri)
    is_whole(store, items)
    assert set(store.children("tags.front = 'true'")) == {"p4/0/full/0"}
    parent = store.parent()
    assert store.file(parent, "figures/front.png") == b"\x89PNG"
    assert parent.info.status == "FINISHED"
    assert not (journal.folder.parent.parent / "artifacts").exists()


def test_credentials_in_the_address_open_a_guarded_server_and_stay_secret(server, journal, caplog):
    expected = "Basic " + base64.b64encode(b"me:s3cr&t").decode()

    class Guard(Quiet):
        def pass_on(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != expected:
                self.say(401)
                return
            with_server = http.client.HTTPConnection("127.0.0.1", server.port)
            with_server.request(self.command, self.path, body, dict(self.headers))
            answer = with_server.getresponse()
            kept = [item for item in answer.getheaders() if item[0].lower() == "content-type"]
            self.say(answer.status, answer.read(), kept)
            with_server.close()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815

    with web(Guard) as port:
        with pytest.raises(PlaceError, match="asks who is there"):
            check(f"http://me:wrong@127.0.0.1:{port}", journal.folder)
        uri = f"http://me:s3cr%26t@127.0.0.1:{port}"
        check(uri, journal.folder)
        journal_record(journal, record("guarded"))
        with track(journal, uri) as tracking:
            assert tracking.finish(PATIENCE_S) == 0, tracking.trouble
        assert tracking.public_uri == f"http://127.0.0.1:{port}"
    assert "guarded/0/full/0" in Store(server.uri).children()
    files = [path for path in journal.folder.rglob("*") if path.is_file()]
    assert all(b"s3cr" not in path.read_bytes() for path in files)
    assert "s3cr" not in caplog.text
