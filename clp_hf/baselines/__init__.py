"""What CLP and HSFM are compared with: methods on frozen features, one interface, one rule of selection."""

from .afr import afr
from .dfr import dfr
from .head import HeadResult, select, worst_and_average
from .logistic_regression import logistic_regression

__all__ = ["HeadResult", "afr", "dfr", "logistic_regression", "select", "worst_and_average"]
