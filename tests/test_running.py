"""A sweep that opens, does several times and closes, as a search would have it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from conftest import EXPERIMENT, default_composer
from hydra import initialize_config_dir

from src.cli.compose import CONF
from src.pipeline import worker
from src.settings.sections import Tracking
from src.store.store import Store
from src.sweep import plan
from src.sweep import running as sweep
from src.sweep.variant import Compose, Variant, expand

TINY = (
    "experiment=smoke",
    "train.epochs=1",
    "benchmark.seconds=1",
    "benchmark.operators=false",
    "benchmark.rounds=3",
    "benchmark.instances=3",
)


@dataclass
class Search:
    """Proposes variants to sweeps in one folder; `launched` are the stages that were done, in order."""

    folder: Path
    compose: Compose
    launched: list[str] = field(default_factory=list)

    def expand(self, overrides: Sequence[Sequence[str]], before: Sequence[Variant] = ()) -> list[Variant]:
        """With a store that stays where it is, whatever folder the test is in."""
        uri = f"sqlite:///{self.folder}/mlruns/mlflow.db"
        variants = expand([(*TINY, *each) for each in overrides], self.compose, before)
        return [replace(v, config=replace(v.config, tracking=Tracking(uri, EXPERIMENT))) for v in variants]

    def open(self) -> contextlib.AbstractContextManager[sweep.Opened]:
        (dense,) = self.expand([["prune=none", "quant=none"]])
        here = sweep.launcher_here(self.folder / "run.log").launch

        def launch(jobs: Sequence[plan.Job], parent: str) -> Sequence[sweep.Outcome]:
            self.launched += [job.title for job in jobs]
            return here(jobs, parent)

        there = sweep.look(dense.config)
        return sweep.open_sweep(
            dense.config, there, sweep.Launcher(launch), command="search", params={"data": "digits"}
        )

    def do(self, opened: sweep.Opened, *overrides: Sequence[str], reuse: str = "all") -> list[str]:
        """The names of the variants that were asked for."""
        variants = self.expand(overrides, opened.variants)
        outcomes = sweep.do(opened, plan.make(variants, opened.store, reuse))
        assert all(outcome.run_id for outcome in outcomes.values())
        return [variant.name for variant in variants]

    def store(self) -> Store:
        return Store(Tracking(f"sqlite:///{self.folder}/mlruns/mlflow.db", EXPERIMENT))

    def statuses(self, opened: sweep.Opened) -> dict[str, str]:
        """Of all that the sweep left, its parent run as `sweep`."""
        of_it = self.store().search(f"tags.sweep = '{opened.parent}'")
        return {r.name: r.status for r in of_it} | {"sweep": self.store().get(opened.parent).status}


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    folder = tmp_path_factory.mktemp("search")
    with contextlib.chdir(folder), initialize_config_dir(str(CONF), version_base="1.3"):
        yield Search(folder, default_composer())
    worker.stop()


@pytest.fixture(scope="module")
def searched(search: Search) -> sweep.Opened:
    """Done twice with variants of one training, nothing of it found in the store by their plans."""
    with search.open() as opened:
        assert search.do(opened, ["quant=drq"], reuse="none") == ["none-none", "none-drq"]
        names = search.do(opened, ["quant=drq"], ["quant=fiq", "quant.representative_images=9"])
        assert names == ["none-none", "none-drq", "none-fiq"]
        names = search.do(opened, ["quant=fiq", "quant.representative_images=7"], reuse="none")
        assert names == ["none-none", "none-fiq quant.representative_images=7"]
        sweep.close(opened)
    return opened


def test_one_parent_run_compares_all_that_a_sweep_did_in_several_goes(search: Search, searched: sweep.Opened) -> None:
    expected = ["none-none", "none-drq", "none-fiq", "none-fiq quant.representative_images=7"]
    variants = search.store().json(searched.parent, "comparison.json")["variants"]
    assert sorted(row["variant"] for row in variants) == sorted(expected)
    assert all(row["latency_ms_median"] > 0 for row in variants), "measured together"
    (parent,) = search.store().search("tags.kind = 'sweep'")
    assert (parent.run_id, parent.status) == (searched.parent, "FINISHED")
    assert search.statuses(searched) == dict.fromkeys([*expected, "train", "sweep"], "FINISHED")


def test_no_stage_is_done_twice_by_one_sweep(search: Search, searched: sweep.Opened) -> None:
    of_it = ["train", *(v.name for v in searched.variants)]
    assert sorted(name for name in search.launched if name in of_it) == sorted(of_it)


Ends = Callable[[Search, sweep.Opened], None]


def interrupted(search: Search, opened: sweep.Opened) -> None:
    opened.store.start("stage", "left", tags={}, params={}, parent=opened.parent)
    raise KeyboardInterrupt


def failed(search: Search, opened: sweep.Opened) -> None:
    raise ValueError("the search is at a loss")


def forgotten(search: Search, opened: sweep.Opened) -> None:
    """The block ends without `close`."""


@pytest.mark.parametrize(
    ("end", "error", "status"),
    [(interrupted, KeyboardInterrupt, "KILLED"), (failed, ValueError, "FAILED"), (forgotten, None, "KILLED")],
    ids=["interrupted", "failed", "forgotten"],
)
def test_a_sweep_that_ends_between_two_goes_leaves_nothing_running(
    search: Search, searched: sweep.Opened, end: Ends, error: type[BaseException] | None, status: str
) -> None:
    before = list(search.launched)
    with pytest.raises(error) if error else contextlib.nullcontext(), search.open() as opened:
        assert search.do(opened, ["quant=drq"]) == ["none-none", "none-drq"]
        end(search, opened)
    assert search.launched == before, "taken from the sweep before"
    left = {"left": "KILLED"} if end is interrupted else {}
    assert search.statuses(opened) == {"none-none": "FINISHED", "none-drq": "FINISHED", "sweep": status} | left
    if end is failed:
        assert search.store().get(opened.parent).tags["error"] == "ValueError: the search is at a loss"
