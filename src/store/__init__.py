"""All that imports MLflow: runs, artifacts, the registry, waiting for a store that is away."""
