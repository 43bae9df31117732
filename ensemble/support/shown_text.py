"""Text from outside made safe to be shown and kept: no control characters, no passwords, one line."""

import re

MAX_LINE = 1000
"""Characters of a message; a longer one is cut in its middle."""

_ADDRESS = re.compile(r"(?<=://)(?:(?!://)\S)+")
_USER = re.compile(r"[^/?#]*@|[^/?#@:]*:(?!\d+[/?#])[^@]*@")
"""User and password before a host, also where the password holds a slash; "localhost:5000/a@b" has none."""
_QUERY_VALUE = re.compile(r"(?<==)[^&#\s]*[^&#\s:;,.)\]'\"]")


def printable(text: str) -> str:
    """The text with everything written out that a terminal would obey or break a line at."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def without_credentials(text: str) -> str:
    """The text with every address in it as it may be shown: no user, no password, no values after a "?"."""
    return _ADDRESS.sub(lambda address: _shown(address[0]), text) if "://" in text else text


def _shown(rest: str) -> str:
    """What follows "://", without what only its owner should know."""
    user = _USER.match(rest)
    place, mark, query = rest[user.end() if user else 0 :].partition("?")
    return place + mark + _QUERY_VALUE.sub("…", query)


def counted(count: int, one: str, many: str = "") -> str:
    """Such as "1 fault", "2 faults"; ``many`` where no s is put to it: "1 class is", "2 classes are"."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def plain_line(text: str) -> str:
    """The text on one line, safe to show: nothing of it is secret or obeyed, at most MAX_LINE characters."""
    text = without_credentials(text)
    if len(text) > 4 * MAX_LINE:
        text = f"{text[: 2 * MAX_LINE]} … {text[-2 * MAX_LINE :]}"
    lines = filter(None, (part.strip() for part in text.splitlines()))
    line = printable(" ".join(lines))
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE * 3 // 4]} … {line[-MAX_LINE // 5 :]}"
