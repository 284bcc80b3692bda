"""Our sweepers and launcher put where Hydra finds plugins."""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from vrbench.app.launchers import RayLauncher
from vrbench.app.run import PLUGINS
from vrbench.app.sweepers import Confirm, Grid, Tune


def add_plugins() -> None:
    """Make them known to this process' Hydra."""
    plugins = (Grid, Tune, Confirm, RayLauncher)
    Plugins.instance().class_name_to_class |= {f"{PLUGINS}.{plugin.__name__}": plugin for plugin in plugins}
    store = ConfigStore.instance()
    store.repo = _Kept(store.repo)


class _Kept(dict[str, Any]):
    """Hydra's store of plugin configs: it copies all at every look for a group's options, and never changes it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Kept:
        return self
