"""What this machine gives: cores, processes, disks, locks, and TensorFlow as the stages need it. Knows nothing of
the project's own things.
"""
