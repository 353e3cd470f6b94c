"""The linear probe: how much of the label a linear classifier reads from frozen features."""

import numpy as np


def linear_probe(features: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fits multinomial logistic regression on standardised features.

    Args:
      features: `[N, C]`, to learn from.
      labels: int `[N]`.
      queries: `[Q, C]`.

    Returns:
      Predicted labels of `features` `[N]` and of `queries` `[Q]`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-3))
    probe.fit(features, labels)
    return probe.predict(features), probe.predict(queries)


def efficacy(train_accuracy: float, test_accuracy: float) -> float | None:
    """Acc_train / (Acc_train - Acc_test): discriminative and general at once (HCML 4.1); None without a gap."""
    gap = train_accuracy - test_accuracy
    return train_accuracy / gap if gap > 0 else None
