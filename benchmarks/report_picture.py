"""The picture of the report in the README: ``python -m benchmarks.report_picture`` after ``make demo``.

Opens the demo's report in a headless Chromium and writes ``docs/report.png``.
"""

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.report import REPORT_PAGE

if TYPE_CHECKING:
    from playwright.sync_api import ViewportSize

SIZE: "ViewportSize" = {"width": 1280, "height": 860}


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_picture", description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("build/demo"))
    parser.add_argument("--to", type=Path, default=Path("docs/report.png"))
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        view = browser.new_page(viewport=SIZE)
        view.goto((arguments.demo / REPORT_PAGE).resolve().as_uri())
        view.click('[data-place="crop701/mito"]')
        view.wait_for_timeout(300)
        view.screenshot(path=arguments.to)
        browser.close()


if __name__ == "__main__":
    main()
