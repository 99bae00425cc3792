"""Label and field selectors, as in a list request's query."""

import re
from typing import Any

_SET = re.compile(r"^\s*(?P<key>[^\s!=,()]+)\s+(?P<operator>in|notin)\s+\((?P<values>[^)]*)\)\s*$")
_EQUAL = re.compile(r"^\s*(?P<key>[^\s!=,()]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^\s,]*)\s*$")


def matches_labels(selector: str, labels: dict[str, str]) -> bool:
    """Whether labels match: `a=b,c!=d,e in (f,g),h notin (i),j,!k`."""
    return all(_label_matches(part, labels) for part in re.split(r",(?![^(]*\))", selector) if part.strip())


def _label_matches(part: str, labels: dict[str, str]) -> bool:
    if found := _SET.match(part):
        values = {value.strip() for value in found["values"].split(",")}
        return (labels.get(found["key"]) in values) == (found["operator"] == "in")
    if found := _EQUAL.match(part):
        return (labels.get(found["key"]) == found["value"]) == (found["operator"] != "!=")
    name = part.strip()
    return name[1:].strip() not in labels if name.startswith("!") else name in labels


def matches_fields(selector: str, item: dict[str, Any]) -> bool:
    """Whether fields match: `metadata.name=a,involvedObject.uid!=b`."""
    for part in filter(None, selector.split(",")):
        path, operator, value = re.split(r"(!=|==|=)", part, maxsplit=1)
        found: Any = item
        for name in path.strip().split("."):
            found = found.get(name, "") if isinstance(found, dict) else ""
        if (str(found) == value) != (operator != "!="):
            return False
    return True
