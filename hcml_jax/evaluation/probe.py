"""Linear probes on extracted features."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Probe:
    """A linear classifier of features.

    Attributes:
      pipeline: scikit-learn's.
      train_accuracy: on the features that it was fitted on.
    """

    pipeline: Any
    train_accuracy: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Labels int `[N]` of features `[N, C]`."""
        return self.pipeline.predict(features)


def fit_probe(features: np.ndarray, labels: np.ndarray) -> Probe:
    """Fits multinomial logistic regression on standardised features `[N, C]` with labels int `[N]`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-3))
    pipeline.fit(features, labels)
    return Probe(pipeline, float((pipeline.predict(features) == labels).mean()))


def efficacy(train_accuracy: float, test_accuracy: float) -> float | None:
    """Acc_train / (Acc_train - Acc_test): discriminative and general at once (HCML 4.1); None without a gap."""
    gap = train_accuracy - test_accuracy
    return train_accuracy / gap if gap > 0 else None
