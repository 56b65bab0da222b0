"""`GET /`: one page that shows the model, and scores a row that one types. Plain HTML, no file from elsewhere."""

from collections.abc import Mapping
from html import escape
from string import Template

import numpy as np
import numpy.typing as npt

from trainer.serving.server.host import Host
from trainer.serving.server.models import Version
from trainer.serving.server.skew import feature_counts
from trainer.serving.server.tensors import Input
from trainer.serving.shares import shares_of

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$name</title>
<meta name="viewport" content="width=device-width">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top }
input { font: inherit; width: 22rem; padding: .15rem .3rem } button { font: inherit; padding: .3rem 1.2rem }
.kind { color: #777 } #error { color: #a00; white-space: pre-wrap } td.score { font-variant-numeric: tabular-nums }
</style></head><body>
<h1>$name</h1>
<p>version $version, step $step of $run. Predicts $tasks. Served: $models.</p>
<h2>Score a row</h2>
<p>Each field takes JSON: <code>7</code>, <code>"text"</code>, <code>[1, 2]</code>, <code>null</code>.</p>
<form id="row"><table>
$fields
</table><p><button>Score</button></p></form>
<table id="scores"></table><p id="error"></p>
$shares<h2>For programs</h2>
<p><a href="openapi.json">OpenAPI document</a>, <a href="signature">signature</a>, <a href="metrics">metrics</a>,
<a href="v2/models/$name">metadata</a>. Open Inference Protocol v2 at <code>v2/models/$name/infer</code>, and over gRPC.
</p>
<script>
const form = document.getElementById("row")
form.onsubmit = async event => {
  event.preventDefault()
  const scores = document.getElementById("scores"), error = document.getElementById("error")
  scores.replaceChildren()
  error.textContent = ""
  const row = {}
  for (const field of form.querySelectorAll("input")) {
    try { row[field.name] = JSON.parse(field.value) }
    catch { error.textContent = field.name + ": " + field.value + " is not JSON"; return }
  }
  const request = {method: "POST", body: JSON.stringify({rows: [row]})}
  const answer = await fetch("models/$path/predict", request).then(response => response.json())
  if (answer.error) { error.textContent = answer.error; return }
  for (const [task, score] of Object.entries(answer.predictions[0])) {
    const line = scores.insertRow()
    line.insertCell().textContent = task
    const cell = line.insertCell()
    cell.className = "score"
    cell.id = "score-" + task
    cell.textContent = score.toPrecision(6)
  }
}
</script></body></html>
""")


_SHARES = """<h2>What requests bring</h2>
<p>Shares since the start, in brackets those of training's rows. Where the two differ, look at what sends the requests.
</p>
<table><tr><th>feature</th><th>rows</th><th>nulls</th><th>unknown IDs</th><th>clipped IDs</th></tr>
{rows}
</table>
"""


def html(host: Host) -> str:
    """The page of the first model."""
    models, version = host.models, host.models.first
    source = version.bundle.signature.source
    return _PAGE.substitute(
        name=escape(version.name),
        path=escape(version.name),
        version=escape(version.version),
        step=f"{source.step:,}",
        run=escape(source.run),
        tasks=escape(", ".join(version.bundle.tasks)),
        models=escape(", ".join(f"{other.name} {other.version}" for other in models.loaded)),
        shares=_shares(version, feature_counts(host, version.name)),
        fields="\n".join(_field(version, one) for one in version.inputs.values() if one.role == "values"),
    )


def _shares(version: Version, counts: Mapping[str, npt.NDArray[np.int64]]) -> str:
    """A table of what requests brought, beside training's rows; nothing before the first request."""
    rows = []
    for name, of_one in counts.items():
        if not of_one[0] or name not in version.bundle.features:
            continue
        trained, here = version.bundle.signature.shares.get(name), shares_of(of_one)
        cells = [f"<td>{escape(name)}</td>", f"<td>{of_one[0]:,}</td>"]
        for kind, share in here.model_dump().items():
            before = "" if trained is None else f" ({getattr(trained, kind):.1%})"
            cells.append(f'<td id="{kind}-{escape(name, quote=True)}">{share:.1%}{before}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return _SHARES.format(rows="\n".join(rows)) if rows else ""


def _field(version: Version, one: Input) -> str:
    name = escape(one.name, quote=True)
    kind = f"{one.datatype} list" if not one.width else one.datatype + (f" x {one.width}" if one.width > 1 else "")
    return (
        f'<tr><td><label for="in-{name}">{name}</label></td><td><input id="in-{name}" name="{name}" '
        f'value="{escape(_example(one), quote=True)}"></td><td class="kind">{kind}</td></tr>'
    )


def _example(one: Input) -> str:
    if not one.width:
        return "[]"
    single = {"BYTES": '""', "BOOL": "false"}.get(one.datatype, "0")
    return single if one.width == 1 else f"[{', '.join([single] * one.width)}]"
