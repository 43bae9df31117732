"""The code that a page of documentation shows, run as it stands there."""

import re
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks(page: Path) -> list[tuple[int, str]]:
    """Every block of Python, with the line of the page on which it begins."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)) + 1, found[1]) for found in BLOCK.finditer(text)]


def run_block(page: Path, line: int, code: str, names: dict[str, Any]) -> None:
    """Run it among ``names``; what goes wrong is told with the page's own line."""
    exec(compile("\n" * (line - 1) + code, str(page.relative_to(ROOT)), "exec"), names)
