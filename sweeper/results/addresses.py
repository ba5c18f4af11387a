"""Where MLflow's records go, whether one can write there, and addresses without secrets."""

import base64
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from sweeper.errors import PlaceError

_CREDENTIALS = re.compile(r"""(?<=://)(?:[^/\s"'?#\\]|\\u[0-9a-fA-F]{4}|\\\\)*@""")
_SQLITE = "sqlite:///"
_TIMEOUT_S = 5.0
_EXPERIMENTS = "/api/2.0/mlflow/experiments/search?max_results=1"


@dataclass(frozen=True, kw_only=True)
class Place:
    """An MLflow tracking store; `artifacts` is the folder for files where the store has none."""

    uri: str
    artifacts: Path | None
    database: Path | None = None

    @property
    def public_uri(self) -> str:
        """The address as it may be shown."""
        return without_credentials(self.uri)


def without_credentials(text: str) -> str:
    r"""`text` with the `user:password@` of every address taken out.

    Works on plain text and on JSON, whose `\uXXXX` may stand in a password.
    """
    return _CREDENTIALS.sub("", text)


def place_of(uri: str | None, root: Path) -> Place:
    """The store that `tracking.uri` means: `None` is SQLite under `root`, with absolute paths.

    Raises:
        PlaceError: MLflow cannot keep records at such an address.
    """
    root = root.absolute()
    if uri is None:
        uri = f"{_SQLITE}{root / 'mlflow.db'}"
    scheme, separator, _ = uri.partition(":")
    if not separator or scheme == "file":
        raise PlaceError(
            f"tracking.uri {uri}: MLflow no longer keeps records in plain folders. Leave it null "
            f"for SQLite under {root}, or give sqlite:///FILE or the address of a tracking server"
        )
    if uri.startswith(_SQLITE):
        database = Path(uri.removeprefix(_SQLITE)).absolute()
        uri = f"{_SQLITE}{database}"
        return Place(uri=uri, artifacts=database.parent / "artifacts", database=database)
    if scheme in {"http", "https", "databricks"}:
        return Place(uri=uri, artifacts=None)
    return Place(uri=uri, artifacts=root / "artifacts")


def check(uri: str | None, root: Path) -> None:
    """Whether records can be written where `tracking.uri` says; nothing is made or changed.

    Raises:
        PlaceError: a folder that cannot be written, or a server that does not answer or refuses;
            the message says what to do.
    """
    place = place_of(uri, root)
    if place.database is not None:
        _check_file(place.database)
    elif place.uri.startswith(("http:", "https:")):
        _check_server(place)


def _check_file(database: Path) -> None:
    way_out = "make it writable, or set tracking.uri to sqlite:///FILE in a folder that is"
    usable = database.is_file() and os.access(database, os.R_OK | os.W_OK)
    if database.exists() and not usable:
        raise PlaceError(f"MLflow's database {database} cannot be written: {way_out}")
    folder = next(parent for parent in database.parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise PlaceError(f"MLflow's records cannot be kept in {folder}: {way_out}")


def _check_server(place: Place) -> None:
    try:
        _get(place, "/health")
        _get(place, _EXPERIMENTS)
    except urllib.error.HTTPError as error:
        error.close()
        raise PlaceError(f"{place.public_uri} {_refusal(error.code)}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = without_credentials(str(getattr(error, "reason", error)))
        raise PlaceError(
            f"no MLflow server answers at {place.public_uri} ({why}): start it "
            "(mlflow server --host HOST --port PORT), correct tracking.uri, or leave it null"
        ) from error


def _refusal(status: int) -> str:
    if status == 401:
        return (
            "asks who is there: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN"
        )
    if status == 403:
        return (
            "refuses: start the server with --allowed-hosts naming the host in tracking.uri, or "
            "ask for the right to write there"
        )
    return (
        f"answers with HTTP status {status}, not as an MLflow server does: correct tracking.uri, "
        "or leave it null"
    )


def _get(place: Place, path: str) -> None:
    request = urllib.request.Request(place.public_uri.rstrip("/") + path, headers=_headers(place))
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        answer.read()


def _headers(place: Place) -> dict[str, str]:
    parts = urllib.parse.urlsplit(place.uri)
    user = urllib.parse.unquote(parts.username or os.environ.get("MLFLOW_TRACKING_USERNAME", ""))
    password = urllib.parse.unquote(
        parts.password or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    )
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if user:
        packed = base64.b64encode(f"{user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {packed}"}
    return {"Authorization": f"Bearer {token}"} if token else {}
