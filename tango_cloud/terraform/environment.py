"""What a Terraform of ours sees of the world: its environment and its CLI configuration."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tango_cloud.core.errors import ConfigurationError, Fault

REGISTRY = "registry.terraform.io"
"""The folder by which a plugin mirror is known: mirrors are laid out by the registry's name."""
_LEVELS = 3
_DROPPED = ("TF_CLI_ARGS", "TF_VAR_", "TF_LOG", "TF_REATTACH_PROVIDERS")
"""Prefixes: what would change our command lines or their output behind our back."""
_DROPPED_NAMES = frozenset(
    {"TF_WORKSPACE", "TF_DATA_DIR", "TF_CLI_CONFIG_FILE", "TERRAFORM_CONFIG"}
)


def terraform_environment(
    base: Mapping[str, str],
    *,
    cli_config: Path | None,
    plugin_cache: Path | None,
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a Terraform: `base` (PATH, proxies, credentials) without what disturbs.

    `cli_config` is the CLI configuration that it reads instead of the user's, `plugin_cache` where
    it keeps plugins, `extra` what the provider needs on top. Pure.
    """
    kept = {
        name: text
        for name, text in base.items()
        if not name.startswith(_DROPPED) and name not in _DROPPED_NAMES
    }
    kept |= {"TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}
    if cli_config is not None:
        kept["TF_CLI_CONFIG_FILE"] = str(cli_config)
    if plugin_cache is not None:
        kept["TF_PLUGIN_CACHE_DIR"] = str(plugin_cache)
        # Without a lock file the cache is else only written: each workspace loads its plugin again.
        kept["TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE"] = "true"
    return kept | dict(extra or {})


def find_mirror(setting: Path | None = None, places: Sequence[Path] | None = None) -> Path | None:
    """The folder that contains a mirrored registry; None when plugins come from the registry.

    `setting` is final. Else the usual places for optional software and shared data are looked
    through, three levels deep, once per process. Raises ConfigurationError when `setting` has none.
    """
    if setting is not None:
        mirror = setting.expanduser()
        if not (mirror / REGISTRY).is_dir():
            raise ConfigurationError(
                [
                    Fault(
                        "terraform.plugin_mirror",
                        f"{mirror} does not contain a plugin mirror",
                        f"the folder that contains {REGISTRY}",
                    )
                ]
            )
        return mirror
    return _search(tuple(_usual_places() if places is None else places))


def _usual_places() -> Sequence[Path]:
    system = ("/opt", "/usr/local", "/usr/share", "/usr/local/share")
    own = (".terraform.d/plugins", ".local/share/terraform")
    return [*(Path(place) for place in system), *(Path.home() / place for place in own)]


@functools.lru_cache(maxsize=8)
def _search(places: tuple[Path, ...]) -> Path | None:
    return next((mirror for place in places for mirror in _mirrors_below(place, _LEVELS)), None)


def _mirrors_below(folder: Path, levels: int) -> Iterator[Path]:
    """Folders that hold REGISTRY at most `levels` below `folder`, nearest first."""
    level = [folder]
    for _ in range(levels):
        for candidate in level:
            if (candidate / REGISTRY).is_dir():
                yield candidate
        level = [below for candidate in level for below in _subfolders(candidate)]


def _subfolders(folder: Path) -> Sequence[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(e.path) for e in entries if e.is_dir(follow_symlinks=False))
    except OSError:
        return []


def mirrored_plugins(mirror: Path) -> Sequence[str]:
    """The plugins that a mirror has, as `host/namespace/type`, sorted."""
    return sorted(
        plugin.relative_to(mirror).as_posix()
        for host in _subfolders(mirror)
        if "." in host.name.lstrip(".")
        for namespace in _subfolders(host)
        for plugin in _subfolders(namespace)
    )


def cli_config(mirror: Path | None, plugins: Sequence[str]) -> str:
    """A CLI configuration: `plugins` from `mirror`, every other from its registry. Pure."""
    lines = ["disable_checkpoint = true"]
    if mirror is not None and plugins:
        names = ", ".join(json.dumps(plugin) for plugin in plugins)
        lines += [
            "provider_installation {",
            "  filesystem_mirror {",
            f"    path    = {json.dumps(str(mirror))}",
            f"    include = [{names}]",
            "  }",
            "  direct {",
            f"    exclude = [{names}]",
            "  }",
            "}",
        ]
    return "\n".join(lines) + "\n"


def write_cli_config(path: Path, mirror: Path | None) -> Path:
    """Write the CLI configuration for `mirror` to `path`, replaced atomically when it differs."""
    text = cli_config(mirror, mirrored_plugins(mirror) if mirror is not None else ())
    if not path.exists() or path.read_text() != text:
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(path)
    return path
