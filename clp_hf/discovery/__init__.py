"""Groups where none are known: found from the features of a frozen backbone, with how sure each is."""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
    from .groups import DiscoveredGroups, agreement, discover_groups, is_shortcut, with_groups
    from .views import Backbone, views_of

__all__ = [
    "Backbone",
    "DiscoveredGroups",
    "agreement",
    "discover_groups",
    "is_shortcut",
    "views_of",
    "with_groups",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Backbone": ".views",
        "DiscoveredGroups": ".groups",
        "agreement": ".groups",
        "discover_groups": ".groups",
        "is_shortcut": ".groups",
        "views_of": ".views",
        "with_groups": ".groups",
    },
)
