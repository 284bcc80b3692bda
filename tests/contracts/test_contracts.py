"""Every YAML of the seven kinds against every property of its contract.

A part that cannot be built fails. What is absent (data of a hub, an optional library) is skipped by its name.
"""

from __future__ import annotations

import pytest

from vrbench.app.check import GROUPS, Kit, properties_of, try_property, waivers
from vrbench.checks.contract import Absent, Broken

WAIVERS = waivers()


def table() -> list[object]:
    """Kinds × YAMLs × properties; a waived one must fail, so that no waiver outlives its reason."""
    cases = []
    for group in GROUPS:
        for choice in Kit().choices(group):
            for name in properties_of(group):
                reason = WAIVERS.get(group, {}).get(choice, {}).get(name)
                marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True, raises=Broken)]
                cases.append(pytest.param(group, choice, name, marks=marks, id=f"{group}={choice}-{name}"))
    return cases


@pytest.mark.parametrize(("group", "choice", "name"), table())
def test_contract(group: str, choice: str, name: str, kit: Kit) -> None:
    try:
        try_property(properties_of(group)[name], kit.part(group, choice))
    except Absent as absent:
        pytest.skip(f"absent: {absent}")


def test_waivers_speak_of_what_is_there() -> None:
    for group, choices in WAIVERS.items():
        for choice, waived in choices.items():
            assert choice in Kit().choices(group)
            assert set(waived) <= properties_of(group).keys()
            assert all(len(reason.split()) > 4 for reason in waived.values())
