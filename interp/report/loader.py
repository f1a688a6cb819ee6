"""The style and the script of a report: the script unpacks plotly and the figures, and draws them.

Plotly's script has 4.8 MB, packed 2.0: the page holds it packed, and the browser unpacks it. It is
added as an inline script, which the page's policy allows by its hash.
"""

from __future__ import annotations

STYLE = """
nav a{margin-right:1rem}
section{border-top:1px solid var(--line);margin-top:1.6rem;padding-top:.6rem}
h2{font-size:1.15rem;margin:.2rem 0 .4rem;overflow-wrap:anywhere}
.figures{display:flex;flex-wrap:wrap;gap:1rem}
.figures>div{flex:1 1 24rem;min-width:0}
.figure{overflow-x:auto;min-height:6rem}
.figure>div{min-width:20rem}.panels>div{min-width:44rem}
.wide{overflow:auto;max-height:32rem;border:1px solid var(--line);margin:.5rem 0}
.wide table{border-collapse:collapse;font-size:13px}
.wide th{position:sticky;top:0;background:var(--field);text-align:left;font-weight:600}
.wide th,.wide td{padding:.15rem .7rem;border-bottom:1px solid var(--line);white-space:nowrap;
max-width:28rem;overflow:hidden;text-overflow:ellipsis}
p,dd,.wide .lines{white-space:pre-line}.wide .lines{min-width:12rem}
.wide .number{text-align:right;font-variant-numeric:tabular-nums}
pre{background:var(--field);padding:.6rem;overflow-x:auto;font:13px/1.4 ui-monospace,monospace}
dl{display:grid;grid-template-columns:fit-content(40%) minmax(0,1fr);gap:.1rem 1rem;margin:.4rem 0}
dt{color:color-mix(in srgb,currentColor 70%,transparent)}dd{margin:0;overflow-wrap:anywhere}
footer{border-top:1px solid var(--line);margin-top:2rem;font-size:14px}
button{font:inherit;color:var(--link);background:none;border:1px solid var(--line);
border-radius:4px;padding:.1rem .6rem;cursor:pointer}
"""

SCRIPT = """
'use strict';
const unpacked = async id => {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(packed, sign => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Response(stream).text();
};
const dark = matchMedia('(prefers-color-scheme: dark)');

function recoloured(part, colours, name) {
  if (typeof part === 'string') {
    return (name === 'colorscale' || name === 'color') && colours[part] || part;
  }
  if (Array.isArray(part)) return part.map(each => recoloured(each, colours, name));
  if (part === null || typeof part !== 'object') return part;
  const each = ([key, value]) => [key, recoloured(value, colours, key)];
  return Object.fromEntries(Object.entries(part).map(each));
}

function themed(figure, colours) {
  const style = getComputedStyle(document.body), clear = 'rgba(0,0,0,0)';
  const layout = structuredClone(figure.layout);
  const usual = layout.template.layout ||= {};
  Object.assign(usual, {paper_bgcolor: clear, plot_bgcolor: clear});
  usual.font = {...usual.font, color: style.color};
  const line = style.getPropertyValue('--line');
  for (const axis of ['xaxis', 'yaxis']) {
    usual[axis] = {...usual[axis], gridcolor: line, linecolor: line, zerolinecolor: line};
  }
  if (!dark.matches) return [figure.data, layout];
  return [recoloured(figure.data, colours), recoloured(layout, colours)];
}

async function start() {
  const data = JSON.parse(await unpacked('data'));
  for (const button of document.querySelectorAll('button[data-csv]')) {
    button.addEventListener('click', () => {
      const table = data.csv[+button.dataset.csv];
      const address = URL.createObjectURL(new Blob([table], {type: 'text/csv'}));
      Object.assign(document.createElement('a'), {href: address, download: button.title}).click();
      setTimeout(() => URL.revokeObjectURL(address), 1000);
    });
  }
  if (!data.figures.length) return;
  const script = document.createElement('script');
  script.textContent = await unpacked('plotly');
  document.head.append(script);
  const draw = () => document.querySelectorAll('.figure').forEach((place, number) => {
    const [traces, layout] = themed(data.figures[number], data.colours);
    const how = {responsive: true, displaylogo: false};
    Plotly.react(place.firstElementChild, traces, layout, how);
  });
  draw();
  dark.addEventListener('change', draw);
}
start().catch(error => {
  const said = document.getElementById('broken');
  said.hidden = false;
  said.textContent = `The figures cannot be drawn (${error}): use a browser of 2023 or later.`;
});
"""
