"""Making and measuring are apart: what is measured of an artifact is done once, and again only where it may differ."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Place, default_composer
from hydra import initialize_config_dir

from src.cli.compose import CONF
from src.measure import probes
from src.measure.probe import Probe
from src.pipeline import keys, stages, worker
from src.pipeline.stages import Request
from src.settings.config import Config
from src.store.artifacts import Record
from src.store.names import MEASURED, artifact_path, predictions_path
from src.store.store import Store
from src.sweep import plan
from src.sweep.variant import expand

# A probe as a user would write it, which says on which artifacts it ran.
COUNTING = """
from pathlib import Path

def probe(subject, settings):
    with open(settings["ran"], "a") as ran:
        print(subject.artifact.stem, file=ran)
    (subject.folder / "counted.txt").write_text("counted")
    yield "kilobytes", subject.artifact.stat().st_size / 1000
    yield "counted", "yes"
"""
SETTINGS = ["experiment=smoke", "train.epochs=1", "prune=none"]


class Sweeps:
    """Sweeps of one store, stage after stage as a launcher does them, without latency and comparison."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store, self.ran = folder, None, folder / "ran"

    def planned(self, *own: str, quant: str = "fiq", images: int = 5000) -> plan.Plan:
        """Of the dense baseline and one scheme."""
        uri = f"tracking.uri=sqlite:///{self.folder}/mlflow.db"
        scheme = [f"quant={quant}"] + ([f"quant.representative_images={images}"] if quant == "fiq" else [])
        with initialize_config_dir(str(CONF), version_base="1.3"):
            variants = expand([[*SETTINGS, *scheme, *own, uri]], default_composer())
        self.store = self.store or Store(variants[0].config.tracking)
        return plan.make(variants, self.store, "all")

    def do(self, planned: plan.Plan) -> dict[str, Record]:
        """The run of each job, by the name of its variant."""
        assert self.store
        parent = self.store.start("sweep", "sweep", tags={}, params={})
        done = {}
        for job in planned.jobs:
            request = Request(job.stage, job.variant.config, job.variant.name, parent)
            done[job.variant.name if job.is_variant else job.stage.name] = self.store.get(
                stages.perform(request, self.store)
            )
        return done

    def counted(self) -> list[str]:
        """The artifacts that `COUNTING` ran on, since this was asked last."""
        lines = self.ran.read_text().split() if self.ran.exists() else []
        self.ran.unlink(missing_ok=True)
        return lines

    def counting(self, config: Config, key: str) -> Iterator[Probe]:
        import counting

        yield Probe("counting", counting.probe, {"ran": str(self.ran)})

    def content(self, record: Record, path: str) -> bytes:
        assert self.store
        return self.store.file(record.run_id, path).read_bytes()


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweeps]:
    """One store, in which the dense baseline and one full-integer variant are done."""
    worker.stop()
    folder = tmp_path_factory.mktemp("probes")
    (folder / "counting.py").write_text(COUNTING)
    sys.path.insert(0, str(folder))
    made = Sweeps(folder)
    made.do(made.planned())
    yield made
    sys.path.remove(str(folder))
    worker.stop()


def test_nothing_is_measured_again_where_nothing_differs(sweeps: Sweeps) -> None:
    assert sweeps.planned().jobs == []
    assert sweeps.planned("benchmark.threads=2", "compare.margin=0.02").jobs == []


def test_compressors_that_are_asked_for_later_are_audited_and_nothing_else(sweeps: Sweeps) -> None:
    before = {r.name: r for r in sweeps.store.search("tags.kind = 'variant'")}
    planned = sweeps.planned("audit.compressors=[xz]")
    assert [(job.title, job.probes) for job in planned.jobs] == [("none-none", ("audit",)), ("none-fiq", ("audit",))]
    assert "to convert and evaluate: 0; to measure again, without converting: 2 (audit)" in plan.summary(planned, 1)
    after = sweeps.do(planned)
    for name, record in after.items():
        assert record.tags["artifact_from"] == before[name].run_id
        assert record.metrics.keys() - before[name].metrics.keys() == {"xz_bytes"}
        assert before[name].metrics.items() <= record.metrics.items()
        assert record.tags["digest"] == before[name].tags["digest"]
        for path in (artifact_path(name), predictions_path("test"), "preprocessing.json"):
            assert sweeps.content(record, path) == sweeps.content(before[name], path)
    assert sweeps.planned("audit.compressors=[xz]").jobs == []


def test_a_probe_that_is_added_later_fills_in_old_artifacts(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PROBES", (*probes.PROBES, sweeps.counting))
    planned = sweeps.planned(quant="none")
    assert [(job.title, job.probes) for job in planned.jobs] == [("none-none", ("counting",))]
    (record,) = sweeps.do(planned).values()
    assert sweeps.counted() == ["none-none"]
    assert record.metrics["kilobytes"] == record.metrics["tflite_bytes"] / 1000
    assert record.measured.keys() >= {"kilobytes", *MEASURED}
    assert record.tags["counted"] == "yes"
    assert sweeps.content(record, "counted.txt") == b"counted"
    assert record.digests["counted.txt"], "it is checked like every file"
    assert sweeps.planned(quant="none").jobs == []
    # A sweep that takes the variant over takes this with it.
    parent = sweeps.store.start("sweep", "later", tags={}, params={})
    adopted = sweeps.store.get(sweeps.store.adopt(record, "none-none", parent))
    assert adopted.measured == record.measured


def test_two_variants_of_one_file_are_evaluated_once(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PROBES", (*probes.PROBES, sweeps.counting))
    # There are fewer training images than either number: all of them give the same ranges, and so the same bytes.
    done = sweeps.do(sweeps.planned(images=6000)) | sweeps.do(sweeps.planned(images=7000))
    ran = sweeps.counted()
    (first,) = (r for r in sweeps.store.search("tags.kind = 'variant'") if r.run_id == done["none-fiq"].run_id)
    same = sweeps.store.of_digest(first.tags["digest"])
    assert len({record.tags["key"] for record in same}) == 3
    assert ran.count("none-fiq") == 1
    assert len({json.dumps(record.metrics["test_accuracy"]) for record in same}) == 1
    assert sweeps.content(same[0], predictions_path("test")) == sweeps.content(same[-1], predictions_path("test"))


def test_what_another_variant_holds_is_measured_again_where_it_is_damaged(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "PROBES", (*probes.PROBES, sweeps.counting))
    done = sweeps.do(sweeps.planned(images=8000))
    for record in sweeps.store.of_digest(done["none-fiq"].tags["digest"]):
        sweeps.store.file(record.run_id, predictions_path("test")).write_bytes(b"")
    after = sweeps.do(sweeps.planned(images=9000))["none-fiq"]
    assert after.metrics["test_accuracy"] == done["none-fiq"].metrics["test_accuracy"]
    assert len(sweeps.content(after, predictions_path("test"))) > 100


def test_an_edited_probe_is_measured_again_and_no_other(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PROBES", (*probes.PROBES, sweeps.counting))
    sweeps.do(sweeps.planned(quant="none"))
    sweeps.counted()
    module = sweeps.folder / "counting.py"
    module.write_text(module.read_text().replace("/ 1000", "/ 1024"))
    keys.code_version.cache_clear()
    worker.stop()  # it holds the module as it was
    planned = sweeps.planned(quant="none")
    assert [(job.title, job.probes) for job in planned.jobs] == [("none-none", ("counting",))]
    (record,) = sweeps.do(planned).values()
    assert record.metrics["kilobytes"] == record.metrics["tflite_bytes"] / 1024
    assert sweeps.counted() == ["none-none"]


def test_the_first_sweep_on_a_store_of_before_says_that_all_is_made_anew(sweeps: Sweeps, tmp_path: Path) -> None:
    before = Sweeps(tmp_path)
    assert plan.outdated(before.planned()) == ""
    tags = {"stage": "quant", "key": "0" * 64, "digest": "0" * 64, "variant": "none-fiq"}  # as version 0.1 left them
    with before.store.run("variant", "none-fiq", tags=tags, params={}) as run_id:
        before.store.log(run_id, metrics={**dict.fromkeys(MEASURED, 0.5), "test_no_number": 2, "speedup": 2})
    assert plan.outdated(before.planned()).startswith("1 variant of this store: made by other code or libraries;")
    assert before.store.get(run_id).measured == {**dict.fromkeys(MEASURED, 0.5), "test_no_number": 2}
    assert plan.outdated(sweeps.planned()) == ""


def test_an_edit_of_the_evaluation_converts_nothing_and_evaluates_again(twelve, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for part in ("src", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    code = tree / "src/measure/accuracy.py"
    text = code.read_text()
    assert 'yield f"{name}_accuracy", predictions.accuracy\n' in text
    code.write_text(text.replace(", predictions.accuracy\n", ", predictions.accuracy / 2\n"))
    shutil.copytree(twelve[0].folder / "mlruns", tmp_path / "mlruns")
    place = Place(tmp_path, {"PYTHONPATH": str(tree)})
    before = {r.name: r for r in twelve[0].variants(twelve[0].first_sweep()).values()}
    done = place.run("-m", "experiment=smoke", "prune=none", "quant=none,fiq")
    assert done.returncode == 0, done.stderr
    assert "to make: nothing; to convert and evaluate: 0; to measure again, without converting: 2" in done.stderr
    assert "(accuracy.train, accuracy.validation, accuracy.test)" in done.stderr
    for name, record in place.variants(place.newest_sweep()).items():
        assert record.tags["digest"] == before[name].tags["digest"]
        assert record.metrics["test_accuracy"] == before[name].metrics["test_accuracy"] / 2
        assert record.metrics["gzip_bytes"] == before[name].metrics["gzip_bytes"]
