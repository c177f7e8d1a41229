"""Hydra: every compression of an image classifier, measured as the file that would ship."""
