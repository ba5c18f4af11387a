import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sweeper.errors import PlaceError
from sweeper.results.addresses import check, place_of, without_credentials
from tests.loopback import Quiet, free_port, web


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:secret@host:5000/x", "http://host:5000/x"),
        ("https://token@host", "https://host"),
        ("uri: 'postgresql://u:p%40@db/x' # a@b", "uri: 'postgresql://db/x' # a@b"),
        ('{"a":"http://u:p\\u00fc\\\\@h"}', '{"a":"http://h"}'),
        ("http://host/a@b and c@d", "http://host/a@b and c@d"),
        ("http://host:8000\\nINFO a@b", "http://host:8000\\nINFO a@b"),
        ("sqlite:////x/y@z.db", "sqlite:////x/y@z.db"),
        ("nothing", "nothing"),
    ],
)
def test_credentials_are_taken_out_of_addresses(text, shown):
    assert without_credentials(text) == shown


@pytest.mark.parametrize(
    ("uri", "where"),
    [
        (None, "sqlite:////r/mlruns/mlflow.db"),
        ("sqlite:////x/y.db", "sqlite:////x/y.db"),
        ("http://u:p@h:5000", "http://h:5000"),
        ("postgresql://u:p@h/db", "postgresql://h/db"),
    ],
)
def test_an_address_is_absolute_and_shown_without_credentials(uri, where):
    assert place_of(uri, Path("/r/mlruns")).public_uri == where


def test_files_go_beside_a_database_and_to_a_server_through_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of("sqlite:///a/b.db", Path("m")).artifacts == tmp_path / "a" / "artifacts"
    assert place_of(None, Path("m")).artifacts == tmp_path / "m" / "artifacts"
    assert place_of("postgresql://h/db", Path("m")).artifacts == tmp_path / "m" / "artifacts"
    assert place_of("https://h", Path("m")).artifacts is None


@pytest.mark.parametrize("uri", ["mlruns", "file:///x", "./x"])
def test_a_plain_folder_is_no_store(uri, tmp_path):
    with pytest.raises(PlaceError, match=r"no longer keeps records in plain folders.*sqlite:///"):
        check(uri, tmp_path)


def test_a_check_of_a_database_changes_nothing_and_names_what_is_in_the_way(tmp_path):
    check(None, tmp_path / "new" / "mlruns")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaceError, match=r"cannot be kept in .*/file: make it writable"):
        check(None, tmp_path / "file" / "mlruns")
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(PlaceError, match=r"mlflow.db cannot be written"):
        check(None, tmp_path)


CHECKER = """
import os, sys
from pathlib import Path
from sweeper.errors import PlaceError
from sweeper.results.tracking import check
if os.getuid() == 0:
    os.setuid(65534)
try:
    check(None, Path(sys.argv[1]))
except PlaceError as error:
    print(error)
"""


def test_a_read_only_mlruns_is_told_before_anything_starts():
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o555)
        told = subprocess.run(
            [sys.executable, "-c", CHECKER, f"{root}/mlruns"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"cannot be kept in {root}: make it writable" in told.stdout
        assert list(Path(root).iterdir()) == []


def test_a_server_that_is_not_there_is_named_with_the_way_out(tmp_path):
    port = free_port()
    said = rf"no MLflow server answers at http://127.0.0.1:{port} \(.*refused.*start it .*null"
    with pytest.raises(PlaceError, match=said):
        check(f"http://me:secret@127.0.0.1:{port}", tmp_path)
    with pytest.raises(PlaceError, match=r"no MLflow server answers at http://nowhere.invalid "):
        check("http://me:secret@nowhere.invalid", tmp_path)
    with pytest.raises(PlaceError, match="no MLflow server answers at http://h:port"):
        check("http://h:port", tmp_path)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "asks who is there: set MLFLOW_TRACKING_USERNAME"),
        (403, "refuses: start the server with --allowed-hosts"),
        (404, "answers with HTTP status 404, not as an MLflow server does"),
    ],
)
def test_a_server_that_answers_otherwise_is_told_apart(status, said, tmp_path):
    class Refusing(Quiet):
        def do_GET(self):  # noqa: N802
            self.say(200 if self.path == "/health" else status)

    with web(Refusing) as port, pytest.raises(PlaceError, match=rf"http://127.0.0.1:{port} {said}"):
        check(f"http://me:secret@127.0.0.1:{port}", tmp_path)
