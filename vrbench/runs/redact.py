"""Keep secrets out of records, logs and messages."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_WORD = r"(?:api_?key|key|token|secret|password|passwd|credentials?)"
_NAME = re.compile(rf"(?:^|[_.\-]){_WORD}$", re.IGNORECASE)
"""Names of keys and environment variables whose values are secrets."""
_GIVEN = re.compile(rf"((?:^|[^a-z0-9]){_WORD}=).+?(?=: |$)", re.IGNORECASE | re.MULTILINE)
"""A secret given as `key=value`, in a command or in a message about it (`key=value: what is wrong`)."""
_SHORTEST = 8
"""Shorter values of environment variables are not looked for: they would blot out ordinary words."""


def hide(text: str) -> str:
    """The text without secrets: values given as `…token=…`, and what environment variables of such names hold."""
    for name, secret in os.environ.items():
        if len(secret) >= _SHORTEST and secret in text and _NAME.search(name):
            text = text.replace(secret, HIDDEN)
    return _GIVEN.sub(rf"\1{HIDDEN}", text)


def hide_all(node: Any) -> Any:
    """A config without secrets: `hide` on every text, and nothing under a key that names a secret."""
    if isinstance(node, Mapping):
        return {key: _value(str(key), value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [hide_all(item) for item in node]
    return hide(node) if isinstance(node, str) else node


def _value(key: str, value: Any) -> Any:
    return HIDDEN if isinstance(value, str) and value and _NAME.search(key) else hide_all(value)
