"""Every compression of an image classifier, measured as the file that would ship."""

import os

# Read when TensorFlow is first imported, in worker processes as well: TFMOT needs Keras 2, and TensorFlow's C++ logs
# every detected CPU feature on import.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
