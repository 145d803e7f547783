"""Counting people: who fills which role, each person once."""

from __future__ import annotations

from collections.abc import Mapping, Set


def missing_roles(required: Mapping[str, int], people: Mapping[str, Set[str]]) -> dict[str, int]:
    """How many people of which roles are still missing, when each person may fill one place.

    `required` maps role to number, `people` person to the roles they hold. A maximum bipartite matching
    (augmenting paths), so somebody who holds two roles is never put where they leave a place empty.
    Places are filled in the order given. Roles that are complete are left out; an empty answer means satisfied.
    """
    places = [role for role in required for _ in range(required[role])]
    taken: dict[int, str] = {}

    def seat(person: str, tried: set[int]) -> bool:
        for place, role in enumerate(places):
            if place in tried or role not in people[person]:
                continue
            tried.add(place)
            if place not in taken or seat(taken[place], tried):
                taken[place] = person
                return True
        return False

    for person in sorted(people):
        seat(person, set())
    missing: dict[str, int] = {}
    for place, role in enumerate(places):
        if place not in taken:
            missing[role] = missing.get(role, 0) + 1
    return missing
