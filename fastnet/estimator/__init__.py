"""scikit-learn's ``MLPClassifier`` on fastnet's kernels: same parameters, same attributes, same losses."""
from fastnet.estimator.classifier import MLPClassifier

__all__ = ["MLPClassifier"]
