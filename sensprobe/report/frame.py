"""The frame of the report's page: style, and the script that draws its figures in the theme."""

from __future__ import annotations

FRAME = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{policy}}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{title}}</title>
<style>
:root { --paper: #ffffff; --ink: #22262b; --faint: #d9dce1; --soft: #6a7079; --worse: #b84300; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171c; --ink: #e4e7eb; --faint: #363c45; --soft: #9aa1ab; --worse: #ff9a57; }
}
body { margin: 2rem auto; max-width: 66rem; padding: 0 1.2rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .4rem; }
p, li { margin: .3rem 0; overflow-wrap: anywhere; }
.facts { color: var(--soft); font-size: .9rem; }
.figure { margin: 1rem 0; }
details { margin: .8rem 0; }
summary { cursor: pointer; font-weight: 600; }
.wide { overflow: auto; max-height: 85vh; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th { text-align: right; vertical-align: bottom; padding: .3rem .8rem;
  position: sticky; top: 0; background: var(--paper); box-shadow: inset 0 -1px var(--ink); }
td { text-align: right; border-bottom: 1px solid var(--faint); padding: .25rem .8rem; }
th.text, td.text { text-align: left; }
td.noise { color: var(--soft); }
td.unstable { color: var(--worse); }
@media print { details > .wide { display: block; } .wide { max-height: none; } }
</style>
</head>
<body>
<h1>{{title}}</h1>
<p class="facts">{{facts}}</p>
<noscript>
<p>The figures need JavaScript; the same figures lie beside this page as PNG files.</p>
</noscript>
{{body}}
<script>{{plotly}}</script>
<script>
const figures = {{figures}};
const themes = {{themes}};
const darkness = window.matchMedia("(prefers-color-scheme: dark)");
const config = {responsive: true, displaylogo: false, toImageButtonOptions: {format: "svg"}};
function painted(value, marks) {
  const colour = (_, v) => typeof v === "string" && Object.hasOwn(marks, v) ? marks[v] : v;
  return JSON.parse(JSON.stringify(value), colour);
}
function draw() {
  const theme = themes[darkness.matches ? "dark" : "light"];
  for (const figure of figures) {
    const layout = {...painted(figure.layout, theme.marks), template: theme.template};
    if (layout.coloraxis) {
      layout.coloraxis = {...layout.coloraxis, colorscale: theme[layout.meta.scale]};
    }
    Plotly.react(figure.id, painted(figure.data, theme.marks), layout, config);
  }
}
if (figures.length) {
  draw();
  darkness.addEventListener("change", draw);
}
</script>
</body>
</html>
"""
