"""Logistic regression on frozen training features, classes or groups weighted alike."""

from __future__ import annotations

from ..features.feature_set import FeatureSet, Head
from .head import HeadResult, Settings, check, fold, select, standardiser

BALANCES = ("class", "group")
# Ours: on standardised features, from almost the class prior to almost no penalty.
DEFAULT_SETTINGS = [{"C": strength} for strength in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)]


def logistic_regression(
    train: FeatureSet,
    validation: FeatureSet,
    head: Head,
    settings: Settings = DEFAULT_SETTINGS,
    seed: int = 0,
    *,
    balance: str = "class",
) -> HeadResult:
    """Retrain the head on standardised training features with an L2 penalty, each class or group weighted alike.

    With `balance="group"` it is the simple reweighting of Idrissi et al. 2022 ("Simple data balancing achieves
    competitive worst-group-accuracy") and needs the group of every training sample.

    Args:
        train, validation: features of one frozen backbone; `validation` selects the setting.
        head: weight (C, d) and bias (C,) of the current head; only its shape is used.
        settings: dictionaries with `C`, scikit-learn's inverse strength of the penalty.
        seed: not used, the fit is deterministic.
        balance: `"class"` or `"group"`.

    Returns:
        `HeadResult`, by worst group on validation (worst class without groups).

    Raises:
        ValueError: the inputs do not fit together, or group balance without training groups.
    """
    from sklearn.linear_model import LogisticRegression  # half a second to import, needed here only
    from sklearn.utils.class_weight import compute_sample_weight

    check(train, validation, head, settings, ["C"])
    if balance not in BALANCES:
        raise ValueError(f"balance must be 'class' or 'group', got {balance!r}.")
    cells = train.labels if balance == "class" else train.groups
    if cells is None:
        raise ValueError("Group balance needs the group of every training sample; they have none. Use balance='class'.")
    scaler = standardiser(train)
    inputs = scaler.transform(train.features.numpy())
    weights = compute_sample_weight("balanced", cells.numpy())

    def fit(setting):
        model = LogisticRegression(**setting, max_iter=2000).fit(inputs, train.labels.numpy(), weights)
        return fold(model.coef_, model.intercept_, scaler)

    return select((({**setting, "balance": balance}, fit(setting)) for setting in settings), validation)
