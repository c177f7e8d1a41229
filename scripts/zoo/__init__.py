"""The zoo: small classifiers of every kind that Keras can make, what TensorFlow's plain converter does with each, and
what this project does. `python -m scripts.zoo` writes docs/models.md."""
