"""Probes that are one direction: mean difference and least squares, as scikit-learn estimators.

    mean difference   w = mean of one class - mean of the other;  b so that the middle scores 0
    least squares     w = pinv(X - mean) (y - mean): the shortest solution where there are several

Both are closed forms: they need no settings and always succeed. With fewer examples than dimensions
least squares fits its training set exactly.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data


class MeanDifference(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Separates two classes along the line through their means.

    After `fit`: `coef_` [1, d], `intercept_` [1], `classes_` (the second one scores above 0).
    """

    def fit(self, X: Any, y: Any) -> Self:
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) != 2:
            raise ValueError(
                f"Only binary classification is supported. y has {len(self.classes_)} class(es)"
            )
        low, high = (X[y == c].mean(0) for c in self.classes_)
        self.coef_ = (high - low)[None]
        self.intercept_ = -self.coef_ @ (high + low) / 2
        return self

    def decision_function(self, X: Any) -> Any:
        """Scores [n], above 0 for the second class."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_[0] + self.intercept_[0]

    def predict(self, X: Any) -> Any:
        second = self.decision_function(X) > 0
        return self.classes_[second.astype(int)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


class LeastSquares(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The best linear fit of a number; of several best fits the shortest.

    After `fit`: `coef_` [d], `intercept_`.
    """

    def fit(self, X: Any, y: Any) -> Self:
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        centre, level = X.mean(0), y.mean()
        self.coef_ = np.linalg.lstsq(X - centre, y - level, rcond=None)[0]
        self.intercept_ = level - self.coef_ @ centre
        return self

    def predict(self, X: Any) -> Any:
        """Values [n]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_ + self.intercept_
