"""The credentials in a store's address: taken out before anything is written, shown or said.

They stay in the environment alone, where MLflow and worker processes find them: a server's under MLflow's own names.
"""

import os
import re
import shlex
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

TRACKING_URI = "MLFLOW_TRACKING_URI"
USERNAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
WHOLE = "COMPRESSION_TRACKING_URI"  # a database's address with its password, for worker processes
HIDDEN = "***"

_SECRET_SETTING = re.compile(r"pass|pwd|secret|token|credential|odbc_connect|(^|_)(key|sig)$", re.IGNORECASE)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
# `user:password@`, where the password has characters that an address takes percent-encoded only. What follows the
# colon in `host:5000/a@b` is a port.
_UNQUOTED = re.compile(r"(?P<user>[^/?#@:]*):(?!\d+(?:[/?#]|$))(?P<password>.*)@(?P<place>[^@]*)")

_typed: dict[str, str] = {}  # variables that say what an address on the command line said, as they may be shown


@dataclass(frozen=True)
class _Address:
    """`scheme://user:password@place?settings`; `user` and `password` are None where there is none, both unquoted."""

    scheme: str
    user: str | None
    password: str | None
    place: str
    settings: tuple[str, ...]

    @property
    def is_server(self) -> bool:
        return self.scheme.lower() in ("http", "https")

    @property
    def has_secrets(self) -> bool:
        # Whatever stands before a server's @ may be a token.
        secret_user = self.is_server and self.user is not None
        return secret_user or self.password is not None or any(map(_is_secret, self.settings))

    @property
    def public(self) -> "_Address":
        user = None if self.is_server else self.user
        settings = tuple(setting for setting in self.settings if not _is_secret(setting))
        return replace(self, user=user, password=None, settings=settings)

    @property
    def shown(self) -> "_Address":
        """With `***` for each secret."""
        settings = (f"{s.partition('=')[0]}={HIDDEN}" if _is_secret(s) else s for s in self.settings)
        password = None if self.password is None else HIDDEN
        user = HIDDEN if self.is_server and self.user and password is None else self.user
        return replace(self, user=user, password=password, settings=tuple(settings))

    def __str__(self) -> str:
        before = "" if self.user is None else quote(self.user, safe="*")
        before += "" if self.password is None else f":{quote(self.password, safe='*')}"
        at = "" if self.user is None and self.password is None else "@"
        settings = f"?{'&'.join(self.settings)}" if self.settings else ""
        return f"{self.scheme}://{before}{at}{self.place}{settings}"


def apart(uri: str) -> str:
    """The address without its secrets, which go into the environment of this process and of those that it starts."""
    address = _parsed(uri)
    if address is None or not address.has_secrets:
        return uri
    told = os.environ.get(TRACKING_URI, "")
    if address.is_server:
        kept = {USERNAME: address.user, PASSWORD: address.password}
        shown = {USERNAME: HIDDEN if address.password is None else address.user, PASSWORD: HIDDEN}
    else:
        kept, shown = {WHOLE: str(address)}, {TRACKING_URI: str(address.shown)}
    os.environ.update({name: value for name, value in kept.items() if value})
    if _parsed(told) != address:
        _typed.update({name: value for name, value in shown.items() if value and kept.get(name, value)})
    if _public(told) == str(address.public):
        os.environ[TRACKING_URI] = str(address.public)
    return str(address.public)


def of_environment() -> None:
    """Does the same with the address that MLflow's own variable holds, before a config is composed with it."""
    apart(os.environ.get(TRACKING_URI, ""))


def of_argument(argument: str) -> str:
    """Does the same with the address in `tracking.uri=…`, before Hydra keeps what was typed."""
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") != "tracking.uri":
        return argument
    quoted = value[:1] if value[:1] in ("'", '"') and value[-1:] == value[:1] else ""
    bare = value[1:-1] if quoted else value
    public = apart(bare)
    return argument if public == bare else f"{key}={quoted}{public}{quoted}"


def whole(uri: str) -> str:
    """What MLflow is told for an address that `apart` gave: a database's with its password, where one is known."""
    known = (os.environ.get(name, "") for name in (WHOLE, TRACKING_URI))
    return next((told for told in known if _public(told) == uri), uri)


def hidden(text: str) -> str:
    """`text` with `***` for each secret of the addresses in it."""
    return _ADDRESS.sub(lambda found: _shown(found[0]), text)


def to_give(tracking_uri: str = "") -> str:
    """What has to stand before a command that goes on, because an address on the command line had it; and
    `tracking_uri`, where the environment does not say it yet. Empty, or ends in a space."""
    told = {TRACKING_URI: tracking_uri} if tracking_uri and os.environ.get(TRACKING_URI) != tracking_uri else {}
    told |= _typed
    return "".join(f"{name}={value if value == HIDDEN else shlex.quote(value)} " for name, value in told.items())


def _shown(uri: str) -> str:
    address = _parsed(uri)
    return str(address.shown) if address and address.has_secrets else uri


def _public(uri: str) -> str:
    address = _parsed(uri)
    return str(address.public) if address and address.has_secrets else uri


def _is_secret(setting: str) -> bool:
    return bool(_SECRET_SETTING.search(setting.partition("=")[0]))


def _parsed(uri: str) -> _Address | None:
    """None for what names no host: a file's path may hold any character."""
    scheme, separator, rest = uri.partition("://")
    if not separator or (rest.startswith("/") and "?" not in rest):
        return None
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user: str | None
    password: str | None
    if "@" in authority:
        before, _, place = rest[: len(authority)].rpartition("@")
        place += rest[len(authority) :]
        user, colon, after = before.partition(":")
        password = after if colon else None
    elif match := _UNQUOTED.match(rest):
        user, password, place = match["user"], match["password"], match["place"]
    else:
        user, password, place = None, None, rest
    place, _, settings = place.partition("?")
    return _Address(
        scheme,
        None if user is None else unquote(user),
        None if password is None else unquote(password),
        place,
        tuple(filter(None, settings.split("&"))),
    )
