"""What is said of a sweep that was measured: judged, compared, reported, exported, served."""
