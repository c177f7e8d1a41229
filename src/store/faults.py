"""What goes wrong with a store, in one line for a person; which faults pass, and which of them last."""

import importlib.util
import os
import re
import sqlite3
import textwrap

from src.settings import credentials
from src.settings.check import Told, UserError, in_short
from src.settings.credentials import TRACKING_URI


def named(uri: str) -> str:
    """The setting or the variable that names a store, for messages."""
    return f"{TRACKING_URI if os.environ.get(TRACKING_URI) == uri else 'tracking.uri'}={uri}"


def reason(error: BaseException) -> str:
    """An exception in one line."""
    text = credentials.hidden(" ".join(str(error).split()))
    if isinstance(error, Told):
        return text
    return in_short(f"{type(error).__name__}: {text}", 500) if text else type(error).__name__


def missing_driver(package: str, uri: str) -> str:
    """What to do about a database's driver that is not installed."""
    said = f"takes the package {package}, which is not installed"
    if not uri.startswith("postgresql"):
        return said
    # Which driver `postgresql://` means differs between versions of SQLAlchemy.
    said = said if package == "psycopg2" else f"{said}; write postgresql+psycopg2://…"
    installed = importlib.util.find_spec("psycopg2")
    return said if installed else f"{said}; `make setup EXTRAS=dev,postgres` installs psycopg2"


def why(error: BaseException) -> str:
    """Of a store that can't be used: what the operating system or SQLite said, where they were asked; else all that is
    known."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if isinstance(cause, sqlite3.Error):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if "API request to" in str(error) and "failed with exception" in str(error):
        return "no connection"
    return textwrap.shorten(reason(error).split(" Response body")[0], 200)


def _status(error: BaseException) -> int | None:
    """Of HTTP, where a server has answered with an error."""
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code
    if isinstance(error, MlflowException):
        # MLflow 3.17 keeps the code of an answer that is not its own, and of a download, in its words only.
        told = re.search(r"(?:failed with error code (\d{3})|\b(4\d\d) Client Error)", str(error))
        return int(told[1] or told[2]) if told else error.get_http_status_code()
    return None


def is_refusal(error: BaseException) -> bool:
    return _status(error) in (401, 403)


def refused(uri: str, error: BaseException) -> UserError:
    user = os.environ.get(credentials.USERNAME)
    who = f" to {user}" if user else " to the token" if os.environ.get("MLFLOW_TRACKING_TOKEN") else ""
    return UserError(
        f"{named(uri)}: refuses access{who} ({_status(error)}); takes {credentials.USERNAME} and "
        f"{credentials.PASSWORD}, or MLFLOW_TRACKING_TOKEN, of someone who may use it"
    )


def is_missing(error: Exception) -> bool:
    """Whether the place where artifacts are kept has answered that there is no such one."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, FileNotFoundError) or _status(error) == 404:
        return True
    return isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST"


def passing(error: Exception) -> bool:
    """Whether the same call may succeed later: a server that is gone or overloaded, a database that is locked."""
    import requests

    if any(lasting in str(error) for lasting in ("disk is full", "readonly database", "No space left")):
        return False
    if (status := _status(error)) is not None:
        return status >= 500 or status == 429
    return isinstance(error, requests.RequestException)
