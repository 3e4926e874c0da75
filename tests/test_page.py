"""The page of compare.py in a real browser: it opens from disk and loads nothing, and its script works.

Headless Chromium is driven by chromedriver's plain HTTP; where one of them is not installed these tests are skipped.
"""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.records.comparison.comparing import Reader, compare
from agent.records.comparison.writing import write_comparison
from tests.runs import write_run
from tests.test_compare import HOSTILE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine")
#: Options of a new browser that makes no requests of its own.
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1280,1000"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
]


class Browser:
    """A session of WebDriver."""

    def __init__(self, address: str, profile: Path) -> None:
        options = {"binary": CHROMIUM, "args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
        logging = {"goog:loggingPrefs": {"browser": "ALL"}}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options, **logging}}}
        self._address = f"{address}/session"
        self._address += "/" + self._ask("POST", "", wanted)["sessionId"]

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._address}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path, fragment: str = "") -> None:
        self._ask("POST", "/url", {"url": "about:blank"})
        self._ask("POST", "/url", {"url": page.as_uri() + fragment})

    def run(self, script: str, *arguments: Any) -> Any:
        return self._ask("POST", "/execute/sync", {"script": script, "args": arguments})

    def point(self, x: int, y: int) -> None:
        moves = [{"type": "pointerMove", "duration": 0, "x": x, "y": y}]
        self._ask("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": moves}]})

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def picture(self) -> bytes:
        return base64.b64decode(self._ask("GET", "/screenshot"))

    def close(self) -> None:
        self._ask("DELETE", "")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert DRIVER is not None
    log = tmp_path_factory.mktemp("browser") / "log"
    with log.open("wb") as out:
        driver = subprocess.Popen([DRIVER, "--port=0"], stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 30
        while b"started successfully on port" not in log.read_bytes():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        port = log.read_text().partition("started successfully on port ")[2].split(".")[0]
        found = Browser(f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("profile"))
        yield found
        found.close()
    finally:
        driver.terminate()
        driver.wait()


def written(folder: Path, out: Path) -> Path:
    runs = Reader("eval/return_mean")(sorted(folder.iterdir()))
    return write_comparison(compare(runs, "eval/return_mean"), out)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three groups with five seeds and a group with one seed."""
    folder = tmp_path_factory.mktemp("compared")
    for agent, final in (("dqn", 420.0), ("noisy_dqn", 480.0), ("rainbow", 470.0)):
        for seed in range(5):
            write_run(folder / "runs" / f"{agent}{seed}", 100 + seed, agent, final=final)
    write_run(folder / "runs" / "single", 9, words=["agent.lr=1e-4"], options={"agent.lr": 1e-4})
    return written(folder / "runs", folder / "out")


#: The number of visible elements of a group in the pictures.
VISIBLE = """
return [...document.querySelectorAll(".picture .g" + arguments[0])].filter(e => e.getClientRects().length).length;
"""


def test_the_page_opens_without_complaint_and_loads_nothing(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.complaints() == []
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.run("return document.querySelectorAll('.picture svg').length") == 5
    assert "one seed" in browser.run("return document.getElementById('groups').innerText")
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert len(browser.picture()) > 10_000


def test_groups_are_switched_off_and_on_and_stay_so(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run(VISIBLE, 1) > 0
    browser.run("document.querySelector('[data-group=\"1\"]').click()")
    assert browser.run(VISIBLE, 1) == 0
    assert browser.run(VISIBLE, 0) > 0
    assert browser.run("return location.hash") == "#without=1"
    browser.open(page, "#without=1")
    assert browser.run(VISIBLE, 1) == 0
    browser.run("document.getElementById('all').click(); document.getElementById('all').click()")
    assert browser.run(VISIBLE, 1) > 0
    browser.run("document.getElementById('all').click()")
    assert [browser.run(VISIBLE, group) for group in range(4)] == [0, 0, 0, 0]


def test_numbers_follow_the_mouse(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("document.querySelector('.picture').scrollIntoView({block: 'center'})")
    frame = browser.run("return document.querySelector('.picture svg').getBoundingClientRect().toJSON()")
    left, top, width, height = (frame[name] for name in ("left", "top", "width", "height"))
    browser.point(int(left + 0.47 * width), int(top + 0.5 * height))
    text = browser.run("return document.querySelector('.picture .numbers').innerText")
    numbers = json.loads((page.parent / "comparison.json").read_text())["tasks"][0]["curves"]
    assert text.startswith("environment steps: ")
    assert len(text.strip().splitlines()) == 5
    assert "(one seed)" in text
    step = float(text.splitlines()[0].split(": ")[1].replace(",", ""))
    for name in ("agent=dqn", "agent=noisy_dqn", "agent=rainbow"):
        curve = numbers[name]["steps"]
        nearest = min(range(len(curve["x"])), key=lambda i: abs(curve["x"][i] - step))
        line = next(line for line in text.splitlines() if line.endswith(name))
        assert float(line.split(" ")[0]) == pytest.approx(curve["centre"][nearest], rel=1e-3)
    browser.point(int(left + 2), int(top + 2))
    assert browser.run("return getComputedStyle(document.querySelector('.picture .numbers')).display") == "none"


#: Pairs of texts of a picture that overlap by more than two pixels in width and four in height.
OVERLAPS = """
const found = [];
for (const picture of document.querySelectorAll(".picture")) {
  const texts = [...picture.querySelectorAll("svg text")].map(e => [e.textContent, e.getBoundingClientRect()]);
  texts.forEach(([a, p], i) => texts.slice(i + 1).forEach(([b, q]) => {
    const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (wide > 2 && high > 4) found.push(`${picture.dataset.name}: ${a} | ${b}`);
  }));
}
return found;
"""
#: The width of the settings' first column, and the distance between the box and the text of each switch.
WIDTHS = """
return [document.querySelector(".settings td").getBoundingClientRect().width,
  ...[...document.querySelectorAll("#groups label span")].map(span =>
    span.getBoundingClientRect().left - span.closest("label").querySelector("input").getBoundingClientRect().right)];
"""


@pytest.mark.parametrize("groups", [4, 6, 8])
def test_many_groups_with_long_names_can_be_read(browser: Browser, tmp_path: Path, groups: int) -> None:
    for group in range(groups):
        options = {"agent.network.hidden": [512, 512, 256, group], "agent.target_every": 1000 + group}
        words = [f"agent.network.hidden=[512,512,256,{group}]", f"agent.target_every={1000 + group}"]
        for seed in range(2):
            folder = tmp_path / "runs" / f"{group}_{seed}"
            write_run(folder, seed, final=300 + 20 * group, words=words, options=options)
    browser.open(written(tmp_path / "runs", tmp_path / "out"))
    assert browser.run(OVERLAPS) == []
    first, *switches = browser.run(WIDTHS)
    assert first > 150
    assert len(switches) >= groups
    assert min(switches) > 0


def test_texts_of_strangers_stay_texts(browser: Browser, tmp_path: Path) -> None:
    for seed in range(2):
        write_run(
            tmp_path / "runs" / f"{seed}<img src=x>",
            seed,
            env=HOSTILE,
            words=[f"agent.x={HOSTILE}{seed}"],
            options={"agent.x": f"{HOSTILE}{seed}"},
        )
    browser.open(written(tmp_path / "runs", tmp_path / "out"))
    assert browser.complaints() == []
    assert browser.run("return document.querySelectorAll('img, iframe, object').length") == 0
    assert browser.run("return document.scripts.length") == 2
    assert "<script>alert(1)</script>" in browser.run("return document.body.innerText")
