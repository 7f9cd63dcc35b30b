"""The report in a browser, offline: no request, and no scrolling to the side, wide and narrow."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from synthetic_runs import synthetic_run

from mpi_dcasgd.reporting.write import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # The outer page looks into the inner ones, which are files, too.
    *("--allow-file-access-from-files", "--virtual-time-budget=10000", "--dump-dom"),
)
OUTER = """<!doctype html><title>widths</title><body><script>
const found = [];
// On paper (A4): the page's own rules for it, as rules of a screen.
for (const [width, paper] of [[1280, false], [1200, false], [390, false], [680, true]]) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 900px; border: 0`;
  frame.src = "report.html";
  frame.onload = () => {
    const page = frame.contentDocument, root = page.documentElement;
    const folded = [...page.querySelectorAll("details")].filter(each => !each.open).length;
    const shut = root.scrollWidth;
    page.querySelectorAll("details").forEach(each => each.open = true);
    const rules = [...page.styleSheets].flatMap(sheet => [...sheet.cssRules]);
    const print = rules.filter(rule => rule.media?.mediaText === "print");
    const style = page.createElement("style");
    style.textContent = print.flatMap(rule => [...rule.cssRules]).map(r => r.cssText).join("\\n");
    if (paper) page.head.append(style);
    const boxes = [...page.querySelectorAll(".scroll")];
    const over = box => box.firstElementChild.getBoundingClientRect().width - box.clientWidth;
    const table = page.querySelector("table.narrow");
    found.push({
      width, paper, shut, open: root.scrollWidth, folded,
      tables: boxes.length, cut: boxes.map(over).filter(width => width > 1),
      table: table.scrollWidth, room: table.parentElement.clientWidth,
      broken: [...page.images].filter(each => !each.naturalWidth).length,
      images: page.images.length,
      requests: frame.contentWindow.performance.getEntriesByType("resource")
        .map(each => each.name).filter(name => !name.startsWith("data:")),
    });
    if (found.length == 4) {
      const shown = document.createElement("pre");
      shown.textContent = JSON.stringify(found);
      document.body.append(shown);
    }
  };
  document.body.append(frame);
}
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, to look at a page")
def test_the_page_fits_a_screen_and_a_phone_and_asks_for_nothing(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    for seed in (1, 2, 3):
        for algorithm in ("ssgd", "dcasgd-a"):
            for workers in (2, 16):
                synthetic_run(tmp_path / "runs", algorithm, workers=workers, seed=seed, epochs=2)
    for push in ("float32", "fp16"):
        wire = {"wire": {"push": push, "reply": "bf16"}}
        synthetic_run(tmp_path / "runs", "asgd", workers=16, seed=1, epochs=2, job=wire)
    synthetic_run(tmp_path / "runs", seed=4, status="failed", epochs=1)
    out = tmp_path / "out"
    page = write_report([tmp_path / "runs"], out).html
    (out / "outer.html").write_text(OUTER)
    seen = subprocess.run(
        [
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            (out / "outer.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = re.search(r"<pre>(.+)</pre>", seen.stdout)
    assert told, f"{seen.stdout[-2000:]}\n{seen.stderr[-2000:]}"
    found = json.loads(told[1])
    assert sorted(each["width"] for each in found) == [390, 680, 1200, 1280]
    for each in found:
        assert each["shut"] <= each["width"], each
        assert each["open"] <= each["width"], each
        assert each["table"] <= each["room"], each
        assert each["requests"] == [], each
        assert (each["broken"], each["images"]) == (0, page.read_text().count("<img ")), each
        assert each["folded"] > 5, each
        assert each["tables"] > 5, each
        # On a phone wide tables scroll in boxes of their own, which paper cannot.
        assert each["width"] == 390 or each["cut"] == [], each
