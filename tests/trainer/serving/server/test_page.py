"""The page at `/` in a real browser: a row is typed, its scores are shown. Chromium is driven over its DevTools."""

import asyncio
import itertools
import json
import shutil
import subprocess
import time

import aiohttp
import pytest

from tests.trainer.export.exported_runs import exported, rows
from tests.trainer.serving.server.running import running
from trainer.serving.bundle import Bundle

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


class Tab:
    """A page that is open in the browser."""

    def __init__(self, wire):
        self._wire, self._numbers = wire, itertools.count()

    async def call(self, method, **parameters):
        """A call of the DevTools protocol."""
        number = next(self._numbers)
        await self._wire.send_json({"id": number, "method": method, "params": parameters})
        while True:
            answer = await self._wire.receive_json(timeout=30)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    async def evaluate(self, script):
        """The value of a JavaScript expression."""
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, script):
        """Waits for an expression to become true, and returns it."""
        deadline = time.monotonic() + 20
        while not (value := await self.evaluate(script)):
            assert time.monotonic() < deadline, script
            await asyncio.sleep(0.05)
        return value

    async def type(self, field, text):
        """Types into an input in place of what it holds."""
        place = f"document.getElementById({json.dumps('in-' + field)})"
        await self.evaluate(f"{place}.focus(); {place}.select()")
        await self.call("Input.insertText", text=text)


async def use(url, folder, story):
    """Runs `story(tab)` with a page at `url`."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
    browser = subprocess.Popen(
        [CHROMIUM, *options, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 40
        while not (folder / "DevToolsActivePort").exists():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        port = (folder / "DevToolsActivePort").read_text().splitlines()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                page = next(one for one in await answer.json(content_type=None) if one["type"] == "page")
            async with session.ws_connect(page["webSocketDebuggerUrl"]) as wire:
                tab = Tab(wire)
                await tab.call("Page.navigate", url=url)
                await tab.until("document.readyState === 'complete' && document.getElementById('row') !== null")
                return await story(tab)
    finally:
        browser.terminate()
        browser.wait(20)


def test_a_row_is_typed_and_scored(tmp_path):
    folder = exported(tmp_path)
    row = rows(2).drop_columns(["row", "click"]).to_pylist()[1]

    async def story(tab):
        assert "ranker" in await tab.evaluate("document.querySelector('h1').textContent")
        for name, value in row.items():
            await tab.type(name, json.dumps(value))
        await tab.evaluate("document.querySelector('button').click()")
        score = float(await tab.until("document.getElementById('score-click')?.textContent"))
        await tab.type("age", '"old"')
        await tab.evaluate("document.querySelector('button').click()")
        return score, await tab.until("document.getElementById('error').textContent")

    with running(("ranker", str(folder)), grpc_port=None) as server:
        (tmp_path / "browser").mkdir()
        score, error = asyncio.run(use(server.url, tmp_path / "browser", story))
    assert score == pytest.approx(Bundle(folder).predict(rows(2))[1, 0], rel=1e-5)
    assert "'age'" in error
