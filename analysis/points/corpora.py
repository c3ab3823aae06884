"""What corpora and tokenizers are called: results name those of one's own files by a fingerprint
alone, and `config.yaml` beside them says by which settings they were made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ledger.folder import RunFolder

# Of a corpus, in the order in which they are looked at; the rest says how it is read or kept.
TOLD = ("name", "dataset", "subset", "revision", "paths", "text_field", "tokenizer", "separator")


def with_corpora(
    settings: Mapping[str, dict[str, Any]], rows: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The `settings` of runs with what made the corpus of each of the points `rows`, both by run
    id; as they are where a corpus is not known, or where two would be called the same."""
    one_of = {str(row["data_fingerprint"]): row for row in rows.values()}
    if len(one_of) < 2:
        return dict(settings)
    told = {fingerprint: _told(Path(str(row["source"]))) for fingerprint, row in one_of.items()}
    if len({repr(found) for found in told.values() if found}) < len(told):
        return dict(settings)
    return {
        name: {**own, "data": {**told[str(rows[name]["data_fingerprint"])], **(own["data"])}}
        if name in rows and isinstance(own.get("data"), dict)
        else own
        for name, own in settings.items()
    }


def _told(folder: Path) -> dict[str, Any]:
    try:
        text = RunFolder(folder).config_file.read_text()
        found = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["data"]
        return {key: _as_typed(found[key]) for key in TOLD if found.get(key) is not None}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return {}


def _as_typed(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value
