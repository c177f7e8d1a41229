"""What can be measured of an artifact, and what the numbers allow to be said. Knows no store."""
