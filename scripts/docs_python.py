"""The public Python as Markdown, read from its sources: nothing is imported. Docstrings are Markdown with sections."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

MODULES = {
    "vrbench": "what a script or a notebook imports",
    "vrbench.optimizers": "the optimizers that are ours, for anyone's training script",
    "vrbench.contracts": "what a part has to be, and the records that travel between parts",
}
"""The public modules, and what each is for."""
IN_A_CHECKOUT = {"vrbench.optimizers": "optimizers"}
"""Packages that lie inside vrbench in a wheel alone."""


def page(root: Path) -> str:
    """All public modules on one page. Raises what griffe raises for a name that cannot be followed to its source."""
    lines = ["# Public Python"]
    options: Any = {"warnings": False}
    loader = griffe.GriffeLoader(search_paths=[root], docstring_parser="google", docstring_options=options)
    for name, purpose in MODULES.items():
        module = loader.load(IN_A_CHECKOUT.get(name, name))
        lines += [f"## {name}", f"{purpose[0].upper()}{purpose[1:]}.", *_docstring(module)]
        for member in public(module):
            lines += _member(member, name)
    return "\n\n".join(lines) + "\n"


def public(module: Any) -> list[Any]:
    """What a module exports: `__all__`, or else what it defines and describes without an underscore before its name."""
    if module.exports is not None:
        named = (module[str(name)] for name in module.exports)
        return [one.final_target if one.is_alias else one for one in named]
    own = (one for one in module.members.values() if not (one.is_alias or one.is_module))
    return [one for one in own if one.is_public and one.has_docstring]


def _member(member: Any, module: str) -> Iterator[str]:
    yield f"### {member.name}"
    if member.is_attribute:
        called = f"{module}.{member.name} = {member.value}"
    elif member.is_class:
        called = f"class {module}.{member.signature(return_type=False) if len(member.parameters) else member.name}"
    else:
        called = f"{module}.{member.signature()}"
    yield f"```python\n{textwrap.fill(called, 86, subsequent_indent='    ', break_long_words=False)}\n```"
    yield from _docstring(member)
    if member.is_class:
        yield from _inside(member)


def _inside(member: Any) -> Iterator[str]:
    """Attributes and methods of a class that are public and described."""
    for one in member.members.values():
        if one.is_alias or not one.is_public or not one.has_docstring:
            continue
        if one.is_attribute:
            typed = f": {one.annotation}" if one.annotation is not None else ""
            yield f"`{one.name}{typed}`"
        else:
            yield f"`{one.signature()}`"
        yield from (f"> {part}".replace("\n", "\n> ") for part in _docstring(one))


def _docstring(member: Any) -> Iterator[str]:
    """The sections of a docstring: text as it stands, arguments and errors as lists."""
    for section in member.docstring.parsed if member.docstring else []:
        if section.kind is griffe.DocstringSectionKind.text:
            yield section.value
        elif section.kind in (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes):
            yield "\n".join(f"- `{one.name}`: {_indented(one.description)}" for one in section.value)
        elif section.kind in (griffe.DocstringSectionKind.raises, griffe.DocstringSectionKind.returns):
            yield f"{section.kind.value.capitalize()}:"
            yield "\n".join(f"- `{one.annotation}`: {_indented(one.description)}" for one in section.value)
        else:
            raise ValueError(f"{member.path}: a docstring section of kind {section.kind.value}, which no page shows")


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")
