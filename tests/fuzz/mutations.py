"""Seeded ways to spoil an input: its bytes, its lines, or the values of its JSON."""

import copy
import json
import random
from typing import Any

DEEP = "[" * 1500 + "]" * 1500
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2**31,
        2**63,
        2**64,
        10**30,
        -(10**30),
        0.5,
        -0.0,
        1e308,
        float("nan"),
        float("inf"),
    ),
    *("", "0", "x", "../x", "/etc/passwd", "\x00", "\x1b[31m", "💥" * 3, "a" * 5000, "[8;8;8]", "557", "nan"),
    *([], [[]], [0], [None], {}, {"": 0}, [1] * 3, [-1, 0, 1], [1e18] * 3, list(range(1000))),
)


def spoilt_bytes(rng: random.Random, data: bytes) -> bytes:
    """Up to four times: bits flipped, a piece cut out, repeated, overwritten or moved, or all behind a place gone."""
    spoilt = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not spoilt:
            break
        start = rng.randrange(len(spoilt))
        stop = min(len(spoilt), start + rng.choice((1, 2, 4, 16, 200)))
        what = rng.randrange(6)
        if what == 0:
            spoilt[start] ^= 1 << rng.randrange(8)
        elif what == 1:
            del spoilt[start:stop]
        elif what == 2:
            spoilt[start:start] = spoilt[start:stop] * rng.choice((1, 3, 50))
        elif what == 3:
            spoilt[start:stop] = rng.randbytes(stop - start)
        elif what == 4:
            place = rng.randrange(len(spoilt))
            spoilt[place:place] = spoilt[start:stop]
        else:
            del spoilt[start:]
    return bytes(spoilt)


def spoilt_value(rng: random.Random, value: Any) -> Any:
    """Up to three times, somewhere in the tree: a value replaced by an odd one, a key or an entry gone or doubled."""
    root = {"root": copy.deepcopy(value)}
    for _ in range(rng.randint(1, 3)):
        holder = rng.choice(_holders(root))
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        what = rng.randrange(5)
        if what <= 2 or holder is root:
            holder[key] = copy.deepcopy(rng.choice(ODD))
        elif what == 3:
            del holder[key]
        elif isinstance(holder, dict):
            holder[f"{key}{rng.choice(('', 's', ' ', '_2'))}"] = holder.pop(key)
        else:
            holder.insert(key, holder[key])
    return root["root"]


def _holders(root: Any) -> list[Any]:
    found, waiting = [], [root]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list) and one:
            found.append(one)
            waiting += one.values() if isinstance(one, dict) else one
    return found


def spoilt_json(rng: random.Random, text: bytes) -> bytes:
    """Valid JSON of other values mostly; sometimes spoilt bytes, or a thousand levels deep."""
    kind = rng.randrange(10)
    if kind == 0:
        return DEEP.encode()
    if kind == 1:
        return spoilt_bytes(rng, text)
    return json.dumps(spoilt_value(rng, json.loads(text))).encode()
