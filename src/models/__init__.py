"""One file per architecture; each builds a float Keras model for images of any shape and any number of classes.

Layer names are given, not numbered: a model is the same to the byte whatever else its process has built.
"""
