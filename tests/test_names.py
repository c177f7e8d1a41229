"""Every sweep has a name and folders of its own, and a name that could mean several is an error that lists them."""

import contextlib
import json
import re
import sqlite3
from pathlib import Path

import pytest
from conftest import default_composer
from hydra import compose, initialize_config_dir

from src.cli.compose import CONF
from src.compare import Settings, compare
from src.results import recorded
from src.results.comparison import Findings
from src.results.report import tables
from src.settings.check import UserError
from src.settings.sections import Compare, Tracking
from src.store.store import Store
from src.sweep import running as sweep
from src.sweep.variant import expand


def test_sweeps_that_begin_in_the_same_second_have_names_of_their_own() -> None:
    names = [sweep.new_name() for _ in range(100)]
    assert len(set(names)) == 100
    assert all(re.fullmatch(r"sweep-\d{8}-\d{6}-[0-9a-f]{6}", name) for name in names)


@pytest.mark.parametrize("key", ["run", "sweep"])
def test_runs_that_begin_in_the_same_second_have_hydra_folders_of_their_own(key: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        configs = [compose("config", return_hydra_config=True) for _ in range(5)]
    folders = [config.hydra[key].dir for config in configs]
    assert len(set(folders)) == 5
    assert [config.hydra[key].dir for config in configs] == folders, "one run has one folder"


def test_variants_that_differ_in_a_setting_of_their_scheme_have_names_of_their_own() -> None:
    grid = [["quant=fiq", f"quant.representative_images={images}"] for images in (10, 20)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        alone = expand(grid, default_composer())
        seeds = expand([[*own, f"seed={seed}"] for own in grid for seed in (0, 1)], default_composer())
    names = [f"none-fiq quant.representative_images={images}" for images in (10, 20)]
    assert [variant.label for variant in alone] == ["none-none", *names]
    assert [variant.label for variant in seeds] == [
        f"seed={s} {name}" for s in (0, 1) for name in ("none-none", *names)
    ]


def test_a_sweep_over_what_is_only_measured_is_refused_in_one_line() -> None:
    grid = [["quant=drq", f"audit.compressors=[{name}]"] for name in ("xz", "gzip9")]
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(UserError) as refused:
        expand(grid, default_composer())
    told = "audit.compressors: takes one list for all variants of a sweep, such as [gzip9,xz]"
    assert str(refused.value) == told


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names") / "mlflow.db"


@pytest.fixture
def store(database: Path, request: pytest.FixtureRequest) -> Store:
    """An experiment of its own for each test: to make a database takes MLflow seconds."""
    return Store(Tracking(f"sqlite:///{database}", request.node.name))


def start(store: Store, name: str) -> str:
    """A finished sweep without variants."""
    run_id = store.start("sweep", name, tags={"command": "python -m src.run"}, params={})
    nothing = Findings(name, "today", (), Compare(), {})
    store.keep_text(run_id, tables.as_json(nothing), recorded.COMPARISON)
    store.end(run_id, "FINISHED")
    return run_id


def test_a_name_that_could_be_several_sweeps_is_an_error_that_lists_them(store: Store) -> None:
    """As sweeps of before are called that began in the same second."""
    twins = {start(store, "sweep-20260101-120000") for _ in range(2)}
    other = start(store, "sweep-20260101-130000-0a1b2c")
    for wanted in ("sweep-20260101-120000", "sweep-20260101-12"):
        with pytest.raises(UserError, match=f"^sweep={wanted}: could be 2 sweeps; takes the run id of one: ") as error:
            recorded.find_sweep(store, wanted)
        assert (
            set(re.findall(r"([0-9a-f]{32}) \(sweep-20260101-120000, begun 20\S+ \S+: python", str(error.value)))
            == twins
        )
    for run_id in twins:
        assert recorded.find_sweep(store, run_id).run.run_id == run_id
    for wanted in ("latest", "sweep-20260101-130000", "sweep-20260101-130000-0a1b2c", other[:31]):
        assert recorded.find_sweep(store, wanted).run.run_id == other
    with pytest.raises(UserError, match=r"^sweep=sweep-2027: no such sweep; takes latest or one of sweep-20260101-13"):
        recorded.find_sweep(store, "sweep-2027")


def test_where_the_latest_sweep_is_not_whole_the_error_names_the_command_for_the_latest_that_is(store: Store) -> None:
    def refused(*names: str) -> str:
        with pytest.raises(UserError) as error:
            recorded.find_sweep(store, *names, module="src.pick")
        return str(error.value)

    store.end(store.start("sweep", "sweep-killed", tags={}, params={}), "KILLED")
    assert refused("latest").endswith("takes one that is whole; no sweep is")
    for name in ("sweep-first", "sweep-second"):
        start(store, name)
    store.end(store.start("sweep", "sweep-killed-too", tags={}, params={}), "KILLED")
    settings = f"tracking.uri={store.uri} tracking.experiment={store.experiment}"
    takes = f"python -m src.pick sweep=sweep-second {settings}"
    assert refused("latest") == (
        f"sweep=latest: sweep-killed-too is KILLED (it was interrupted); takes one that is whole: {takes}"
    )
    assert refused("sweep-killed-too").endswith("takes one that is whole")  # nothing else was meant
    with pytest.raises(UserError, match=r"whole: python -m src\.compare sweep=sweep-first,sweep-second tracking"):
        compare(Settings(Tracking(store.uri, store.experiment), "sweep-first,latest"))
    running = store.start("sweep", "sweep-running", tags={}, params={})
    assert refused("latest").endswith(f"is still running; takes one that is over: {takes}")
    store.end(running, "FINISHED")
    assert refused("latest").endswith(f"takes one that is whole: {takes}")


def test_a_sweep_is_found_however_many_came_after(store: Store, database: Path) -> None:
    first, other = start(store, "sweep-first"), start(store, "sweep-other")
    with contextlib.closing(sqlite3.connect(database)) as sql:
        for table in ("runs", "tags"):
            rows = sql.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (other,)).fetchall()
            copies = [[f"{i:032x}" if cell == other else cell for cell in row] for row in rows for i in range(1000)]
            sql.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(rows[0]))})", copies)
        sql.commit()
    assert recorded.find_sweep(store, "sweep-first").run.run_id == first


def test_an_exact_name_is_no_beginning_of_another(store: Store) -> None:
    short, long = start(store, "sweep-20260101-120000"), start(store, "sweep-20260101-120000-0a1b2c")
    assert recorded.find_sweep(store, "sweep-20260101-120000").run.run_id == short
    assert recorded.find_sweep(store, "sweep-20260101-120000-").run.run_id == long
    assert json.loads(store.file(long, recorded.COMPARISON).read_text())["variants"] == []
