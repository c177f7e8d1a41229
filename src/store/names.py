"""The names of kinds of runs, tags, metrics and artifacts in the store. Scripts rely on them, and a test holds them."""

from src.measure.names import AUDIT as AUDIT
from src.measure.names import NO_NUMBER as NO_NUMBER
from src.measure.names import predictions_path as predictions_path

KINDS = ("sweep", "stage", "variant")
TAGS = ("kind", "variant", "stage", "key", "digest")
MEASURED = (
    "train_accuracy",
    "validation_accuracy",
    "test_accuracy",
    "balanced_accuracy",
    "tflite_bytes",
    "gzip_bytes",
    "sparsity",
)
LATENCY = ("latency_ms_mean", "latency_ms_std", "latency_ms_median", "latency_ms_p90")
OF_BASELINE = {"test_accuracy_drop": 0.0, "gzip_ratio": 1.0, "speedup": 1.0}
COMPARED = tuple(OF_BASELINE)
PROBE = "probe."  # a tag, before the name of a probe: the key of what it found
OF_LATENCY = f"{PROBE}latency"
# What a run says of the sweep that it is in, and a later sweep that takes it over says anew.
OF_A_SWEEP = ("sweep", "host", "process", "verdict", "error", "latency_host", OF_LATENCY)
SPLITS = ("train", "validation", "test")
CHECKPOINT = "checkpoint/model.h5"
PROMISES = "checkpoint/promises.json"  # what the file itself carries as well
PREPROCESSING = "preprocessing.json"
PYFUNC = "pyfunc"  # where version 0.1 kept what it registered
LOGGED_MODEL = "logged_model"  # a tag: the id of the one that holds the artifact
FOUND = "probes"  # a tag: the names of the metrics, tags and files that each probe left
ASKED = "asked.json"  # what was asked for when an artifact was made
FILES = "files"  # a tag: SHA-256 by path of what a variant leaves beside its artifact


def artifact_path(variant: str) -> str:
    return f"model/{variant}.tflite"
