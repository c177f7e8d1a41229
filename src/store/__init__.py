"""All that imports MLflow: runs, artifacts, the registry, waiting for a store that is away."""

import os

# Read when MLflow is first imported, which the modules of this folder do only where they need it.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# `waiting` waits for a server that does not answer: it says so, and for no longer than it was told.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
