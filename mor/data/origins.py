"""What the files of a hub corpus are, and whether they are those that its shards were made from.

The fingerprint of such a corpus is of its names, so one id would cover two texts where a copy of
the repository changed between two preparations. Files of `data.paths` need none of it: they are
known by their content.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mor.config import ConfigError, DataConfig
from mor.data.digests import file_digests
from mor.data.hub import HUB, hub_files
from mor.data.manifest import SOURCE, Origin, read_manifest

SHOWN = 3  # files that a refusal names


@dataclass(frozen=True)
class Origins:
    """Tells what the files of a corpus are now. `places` says where each can be read, by name."""

    data: DataConfig
    places: Mapping[str, str]

    def of(self, names: Sequence[str], threads: int = 1) -> dict[str, Origin]:
        """Sizes and digests; of a file that cannot be asked for them, nothing."""
        here = self.sizes(names)
        paths = [Path(self.places[name]) for name in here]
        with contextlib.suppress(OSError):
            digests = file_digests(paths, Path(self.data.cache_dir).expanduser(), threads)
            here = {
                name: Origin(here[name].size, digest)
                for name, digest in zip(here, digests, strict=True)
            }
        remote = [self.places[name] for name in names if self._is_remote(name)]
        there = hub_files(str(self.data.dataset), remote) if remote else {}
        return here | {
            name: Origin(*there[self.places[name]])
            for name in names
            if self.places.get(name) in there
        }

    def sizes(self, names: Sequence[str]) -> dict[str, Origin]:
        """Those of files on this machine."""
        found = {}
        for name in names:
            if self.data.kind == "hub" and name in self.places and not self._is_remote(name):
                with contextlib.suppress(OSError):
                    found[name] = Origin(Path(self.places[name]).stat().st_size)
        return found

    def _is_remote(self, name: str) -> bool:
        return self.places.get(name, "").startswith(HUB)


def refuse_another_source(origins: Origins, folder: Path, threads: int = 1) -> None:
    """Raises ConfigError where a file is not what it was when shards of `folder` were made."""
    kept = read_manifest(folder).origins
    if not kept:
        return
    sizes = origins.sizes(list(kept))
    changed = [name for name, now in sizes.items() if not kept[name].may_be(now)]
    if not changed:  # digests take longer
        now = origins.of([name for name, origin in kept.items() if origin.sha256], threads)
        changed = [name for name in now if not kept[name].may_be(now[name])]
    if changed:
        raise _changed(origins.data, sorted(changed), len(kept))


def refuse_another_copy(data: DataConfig, folder: Path) -> None:
    """The same while planning: of a copy of the repository (data.mirror) that this machine has."""
    root = None if data.mirror is None else Path(data.mirror).expanduser()
    if data.kind == "hub" and root is not None and (folder / SOURCE).exists():
        names = read_manifest(folder).origins
        refuse_another_source(Origins(data, {name: str(root / name) for name in names}), folder)


def _changed(data: DataConfig, names: list[str], known: int) -> ConfigError:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    setting, value = ("mirror", data.mirror) if data.mirror else ("revision", data.revision)
    return ConfigError(
        f"data.{setting}",
        value,
        f"{len(names)} of {known} files are not what they were when data={data.name} was prepared "
        f"from them ({', '.join(names[:SHOWN])}{more}), and one corpus would hold two texts",
        "restore them, or type data.name=<another name> to prepare the new text beside it",
    )
