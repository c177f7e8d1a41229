"""The names of kinds of runs, tags, metrics and artifacts in the store. Scripts rely on them, and a test holds them."""

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
NO_NUMBER = "_no_number"  # after a split's name: for how many of its images; only where there are any
LATENCY = ("latency_ms_mean", "latency_ms_std", "latency_ms_median", "latency_ms_p90")
COMPARED = ("test_accuracy_drop", "gzip_ratio", "speedup")
# What a run says of the sweep that it is in, and a later sweep that takes it over says anew.
OF_A_SWEEP = ("sweep", "host", "process", "verdict", "error", "latency_host")
SPLITS = ("train", "validation", "test")
CHECKPOINT = "checkpoint/model.h5"
AUDIT = "audit.json"
PREPROCESSING = "preprocessing.json"
PYFUNC = "pyfunc"
FILES = "files"  # a tag: SHA-256 by path of what a variant leaves beside its artifact


def artifact_path(variant: str) -> str:
    return f"model/{variant}.tflite"


def predictions_path(split: str) -> str:
    return f"predictions/{split}.npz"
