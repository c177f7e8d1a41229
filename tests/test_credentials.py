"""A password in a store's address is in no file, tag, screen or message; and which store is used, and said."""

import json
import os
import subprocess
from collections.abc import Iterator

import pytest
from conftest import STORE, Place, default_composer
from hydra import compose, initialize_config_dir

from src import pick
from src.cli import command, launching
from src.cli.compose import CONF
from src.settings import credentials
from src.settings.check import check
from src.settings.sections import Tracking
from src.store.address import elsewhere
from src.store.faults import reason
from src.sweep import plan
from src.sweep.variant import expand

SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What an address puts into the environment is taken out again."""
    before = dict(os.environ)
    monkeypatch.setattr(credentials, "_typed", {})
    yield
    for name in [name for name in os.environ if name.startswith(STORE) and name not in before]:
        del os.environ[name]


ADDRESSES = [
    # given, said, what MLflow is told, the variables of a server
    (f"http://me:{SECRET}@host:5000", "http://host:5000", "http://host:5000", ("me", SECRET)),
    (f"https://{SECRET}@host/mlflow", "https://host/mlflow", "https://host/mlflow", (SECRET, None)),
    (f"http://me:{SECRET}%40/:@host", "http://host", "http://host", ("me", f"{SECRET}@/:")),
    (f"http://me:{SECRET}/@x@host:80/a", "http://host:80/a", "http://host:80/a", ("me", f"{SECRET}/@x")),
    (f"postgresql://me:{SECRET}@host/db", "postgresql://me@host/db", f"postgresql://me:{SECRET}@host/db", None),
    (f"mysql+pymysql://me:{SECRET}#?@h/db", "mysql+pymysql://me@h/db", f"mysql+pymysql://me:{SECRET}%23%3F@h/db", None),
    (
        f"postgresql://host/db?user=me&password={SECRET}&sslmode=require",
        "postgresql://host/db?user=me&sslmode=require",
        f"postgresql://host/db?user=me&password={SECRET}&sslmode=require",
        None,
    ),
    (
        f"mssql+pyodbc:///?odbc_connect=PWD%3D{SECRET}",
        "mssql+pyodbc:///",
        f"mssql+pyodbc:///?odbc_connect=PWD%3D{SECRET}",
        None,
    ),
]


@pytest.mark.parametrize(("given", "said", "told", "server"), ADDRESSES, ids=[said for _, said, _, _ in ADDRESSES])
def test_an_address_is_parted_from_its_secrets(
    given: str, said: str, told: str, server: tuple[str, str | None] | None
) -> None:
    tracking = Tracking(uri=given, experiment="x")
    assert tracking.uri == said
    assert SECRET not in repr(tracking)
    assert credentials.whole(said) == told
    assert SECRET not in credentials.hidden(f"could not reach '{given}' (or {given})")
    if server:
        assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ.get("MLFLOW_TRACKING_PASSWORD")) == server
    assert "***" in credentials.to_give()
    assert SECRET not in credentials.to_give()


@pytest.mark.parametrize(
    "uri",
    [
        "http://host:5000",
        "http://host:5000/models:/name@champion",
        "sqlite:///a@b:c/mlflow.db",
        "postgresql://me@host/db",
    ],
)
def test_an_address_without_secrets_stays_as_it_is(uri: str) -> None:
    assert Tracking(uri=uri, experiment="x").uri == credentials.whole(uri) == credentials.hidden(uri) == uri
    assert credentials.to_give() == ""


def test_what_the_environment_says_need_not_be_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:{SECRET}@host/db")
    credentials.of_environment()
    assert os.environ["MLFLOW_TRACKING_URI"] == "postgresql://me@host/db", "as a composed config shows it"
    assert credentials.whole("postgresql://me@host/db") == f"postgresql://me:{SECRET}@host/db"
    assert credentials.to_give("postgresql://me@host/db") == ""


def test_a_command_that_goes_on_names_the_variables() -> None:
    credentials.of_argument(f"tracking.uri=http://me:{SECRET}@host")
    assert credentials.to_give("http://host") == (
        "MLFLOW_TRACKING_URI=http://host MLFLOW_TRACKING_USERNAME=me MLFLOW_TRACKING_PASSWORD=*** "
    )


@pytest.mark.parametrize("quote", ["", "'", '"'])
@pytest.mark.parametrize("key", ["tracking.uri", "++tracking.uri"])
def test_what_hydra_keeps_of_the_command_line_has_no_password(key: str, quote: str) -> None:
    argument = f"{key}={quote}http://me:{SECRET}@host{quote}"
    assert credentials.of_argument(argument) == f"{key}={quote}http://host{quote}"


def left_by(place: Place, done: subprocess.CompletedProcess[str]) -> str:
    """All that a command has said and written."""
    files = [file.read_bytes().decode(errors="replace") for file in place.folder.rglob("*") if file.is_file()]
    return "\n".join([done.stdout, done.stderr, *files])


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        ([f"tracking.uri=http://me:{SECRET}@127.0.0.1:9"], {}),
        (["-m", f"tracking.uri=postgresql+psycopg2://me:{SECRET}@127.0.0.1:9/db"], {}),
        ([f"tracking.url=http://me:{SECRET}@127.0.0.1:9"], {}),
        (["tracking=mine", "--config-dir=conf"], {}),
        (["--cfg", "job", "--resolve"], {"MLFLOW_TRACKING_URI": f"postgresql://me:{SECRET}@127.0.0.1:9/db"}),
    ],
    ids=["server", "database", "wrong key", "config file", "shown config"],
)
def test_no_command_says_or_writes_a_password(place: Place, arguments: list[str], variables: dict[str, str]) -> None:
    place.variables |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2", "HYDRA_FULL_ERROR": "0"} | variables
    mine = place.folder / "conf/tracking/mine.yaml"
    if "tracking=mine" in arguments:
        mine.parent.mkdir(parents=True)
        mine.write_text(f"uri: http://me:{SECRET}@127.0.0.1:9\nexperiment: x\nretry_seconds: 0\n", encoding="utf-8")
    done = place.run(*arguments)
    assert done.returncode == (0 if variables else 2), done.stderr
    mine.unlink(missing_ok=True)
    assert SECRET not in left_by(place, done)


def test_the_other_commands_say_no_password_either(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = command.parse([f"tracking.uri=http://me:{SECRET}@host"], pick.Settings)
    assert elsewhere(wanted.tracking.uri, "compression") == ["tracking.uri=http://host"]
    assert SECRET not in reason(ValueError(f"no such thing as postgresql://me:{SECRET}@host/db"))


# --- Which store -------------------------------------------------------------------------------------------------


def planned(place: Place, *arguments: str) -> str:
    done = place.run("experiment=smoke", "plan=true", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mlflows_variables_say_which_store_unless_the_command_line_does(place: Place) -> None:
    place.variables = {"MLFLOW_TRACKING_URI": "sqlite:///mine/store.db", "MLFLOW_EXPERIMENT_NAME": "2024"}
    assert "store  sqlite:///mine/store.db, experiment 2024\n" in planned(place)
    assert "store  sqlite:///x.db, experiment 2025\n" in planned(
        place, "tracking.uri=sqlite:///x.db", "tracking.experiment=2025"
    )
    done = place.run(module="src.pick")
    assert (done.returncode, done.stderr) == (
        2,
        "error: MLFLOW_TRACKING_URI=sqlite:///mine/store.db: no such store; `make sweep` makes one\n",
    )


def test_what_cannot_be_followed_is_said(place: Place) -> None:
    place.variables = {"MLFLOW_TRACKING_URI": "./mlruns"}
    done = place.run("experiment=smoke", "plan=true")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: MLFLOW_TRACKING_URI=./mlruns: takes sqlite:///FILE, a database")


def test_a_worker_is_told_the_store_whatever_its_own_environment_says() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        told = ["tracking.uri=sqlite:///a.db", "tracking.experiment='it\\'s $5'"]
        (variant, *_) = expand([told], default_composer())
        instructions = launching.instructions(plan.Job(variant, variant.stage), "0" * 32, 1)
        job = compose("config", instructions, return_hydra_config=True)
    of_the_job = json.loads(job.hydra.job.env_set[launching.INSTRUCTIONS])["tracking"]
    assert check(Tracking, of_the_job, "tracking") == variant.config.tracking


def test_a_whole_number_is_the_name_of_an_experiment_and_one_with_a_point_is_refused(place: Place) -> None:
    assert "experiment 2024\n" in planned(place, "tracking.experiment=2024")
    done = place.run("tracking.experiment=2024.10", "plan=true")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: tracking.experiment=2024.1: takes text; ")
