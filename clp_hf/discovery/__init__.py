"""Groups where none are known: found from the features of a frozen backbone, with how sure each is."""

from .groups import WAYS, DiscoveredGroups, agreement, discover_groups, is_shortcut, with_groups
from .views import Backbone, views_of

__all__ = [
    "WAYS",
    "Backbone",
    "DiscoveredGroups",
    "agreement",
    "discover_groups",
    "is_shortcut",
    "views_of",
    "with_groups",
]
