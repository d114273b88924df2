"""The CIFAR networks under the name by which published model cards import them: they are registered with timm."""

from .modeling.cifar import CifarResNet, WideResNet

__all__ = ["CifarResNet", "WideResNet"]
