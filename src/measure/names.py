"""What probes call that which they leave."""

NO_NUMBER = "_no_number"  # after a split's name: for how many of its images; only where there are any
AUDIT = "audit.json"


def predictions_path(split: str) -> str:
    return f"predictions/{split}.npz"
